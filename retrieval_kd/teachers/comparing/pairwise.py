"""The pairwise teacher: a language model that says which of two passages answers a query better.

`pair_strategies.py` chooses the pairs; `run_strategies.py` stores the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from retrieval_kd.errors import InputError
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer, RequestTexts, Strategy
from retrieval_kd.teachers.comparing.pair_strategies import (
    AdjacentPairs,
    AllPairs,
    SortingPairs,
    UncertainPairs,
)
from retrieval_kd.teachers.comparing.parse_answers import choice_answer
from retrieval_kd.teachers.comparing.set_prompts import (
    CHOICE_TOKENS,
    LETTERS,
    PAIR_TEMPLATES,
    choice_form,
    set_key,
    set_prompts,
    template_for,
)
from retrieval_kd.teachers.comparing.steps import refuse_unused
from retrieval_kd.teachers.llm.prompts import Template, find_template
from retrieval_kd.teachers.llm.protocol import LanguageModel
from retrieval_kd.teachers.options import SetOptions


class PairwiseOptions(SetOptions):
    """Options of a `pairwise:` teacher."""

    answer: Literal["logits", "words"] = Field(
        "logits",
        description="read the probabilities of the two labels, or the words the model writes",
    )
    pairs: Literal["all", "adjacent", "uncertain", "sorting"] = Field(
        "all", description="which pairs to compare, each in both orders"
    )
    reach: int = Field(1, gt=0, description="adjacent: this many neighbours below each candidate")
    most: int = Field(30, gt=0, description="uncertain: number of pairs per query")
    by: str | None = Field(
        None, description="uncertain: the stored pointwise teacher whose scores choose the pairs"
    )

    def model_post_init(self, context: Any) -> None:
        refuse_unused(self, "pairs", {"reach": "adjacent", "most": "uncertain", "by": "uncertain"})

    def strategy(self) -> Strategy:
        match self.pairs:
            case "all":
                return AllPairs()
            case "adjacent":
                return AdjacentPairs(self.reach)
            case "uncertain":
                return UncertainPairs(self.most)
            case "sorting":
                return SortingPairs()


class PairwiseTeacher:
    """A teacher that answers with log p(first is better) − log p(second is better), or in words.

    As in duoT5 (Pradeep, Nogueira and Lin 2021, section 3.2) and pairwise ranking prompting (Qin et
    al. 2023, https://arxiv.org/abs/2306.17563, section 3), which answers either way. Every pair is
    compared in both orders, because models prefer a position.

    Args:
        model: local or on a server.
        options: as in a teacher's spec.
        at_once: requests in a batch, after which the answers are stored.
    """

    def __init__(
        self, model: LanguageModel, options: PairwiseOptions | None = None, *, at_once: int = 256
    ) -> None:
        self.model, self.options, self.at_once = model, options or PairwiseOptions(), at_once
        name = self.options.prompt or template_for(model.name, PAIR_TEMPLATES)
        self.template = find_template(name, PAIR_TEMPLATES)
        if self.template not in PAIR_TEMPLATES:
            check_template_answers(self.template, name)
        self.strategy, self.by = self.options.strategy(), self.options.by

    @property
    def key(self) -> TeacherKey:
        """Everything that changes an answer; the choice of pairs does not."""
        return set_key(
            "pairwise", f"pair by {self.options.answer}", self.model, self.template, self.options
        )

    def answer(self, requests: Sequence[RequestTexts]) -> list[Answer | None]:
        """Compare the two documents of each request; None where the call failed."""
        options = self.options
        prompts = set_prompts(
            self.model,
            requests,
            self.template,
            LETTERS,
            query_tokens=options.query_tokens,
            passage_tokens=options.passage_tokens,
            cut=options.cut,
            form=lambda count: choice_form(self.template.answers),
        )
        if options.answer == "logits":
            logs = self.model.options(prompts, self.template.answers)  # (requests, 2)
            return [_answer_by_logits(row) for row in logs]
        completions = self.model.generate(prompts, CHOICE_TOKENS)
        return [
            None if c.status == "failed" else choice_answer(c.text, self.template.answers)
            for c in completions
        ]


def check_template_answers(template: Template, file: str) -> None:
    """Refuse a user's prompt that does not mention both of its answers."""
    words = f"{template.system} {template.user}"
    if not all(answer in words for answer in template.answers):
        first, second = template.answers
        raise InputError(
            f"the prompt asks for neither {first!r} nor {second!r}, its answers",
            file=file,
            remedy="say with `answers` what it asks for: the first passage's, then the second's",
        )


def _answer_by_logits(logs: np.ndarray) -> Answer | None:
    """Convert log-probabilities (2,) to an answer.

    NaN means that the call failed or the server did not report a label. Neither is stored, so the
    next run tries again, perhaps with more `--logprobs`.
    """
    if np.isnan(logs).any():
        return None
    first, second = map(float, logs)
    return Answer(logs=(first, second), log_odds=first - second)
