"""A language model as pairwise teacher: which of two passages answers the query better?

Which pairs it is asked is its strategy's business (`pairs.py`), asking and storing is `ask.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from retrieval_kd.errors import InputError
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer, Question, Strategy
from retrieval_kd.teachers.comparing.pair_strategies import (
    AdjacentPairs,
    AllPairs,
    SortingPairs,
    UncertainPairs,
)
from retrieval_kd.teachers.comparing.parse_order import parse_choice
from retrieval_kd.teachers.comparing.set_prompts import (
    LETTERS,
    PAIR_TEMPLATES,
    choice_form,
    set_key,
    set_prompts,
    template_for,
)
from retrieval_kd.teachers.comparing.steps import refuse_stray
from retrieval_kd.teachers.llm.prompts import Template, find_template
from retrieval_kd.teachers.llm.protocol import LanguageModel
from retrieval_kd.teachers.options import SetOptions

CHOICE_TOKENS = 16  # of an answer in words; a letter is one or two


class PairwiseOptions(SetOptions):
    """Of `pairwise`."""

    answer: Literal["logits", "words"] = Field(
        "logits", description="read the probabilities of the two labels, or what the model writes"
    )
    pairs: Literal["all", "adjacent", "uncertain", "sorting"] = Field(
        "all", description="which pairs to ask about, each in both orders"
    )
    reach: int = Field(1, gt=0, description="adjacent: this many neighbours below each candidate")
    most: int = Field(30, gt=0, description="uncertain: so many pairs of a query")
    by: str | None = Field(
        None, description="uncertain: the pointwise teacher in the store whose scores choose"
    )

    def model_post_init(self, context: Any) -> None:
        refuse_stray(self, "pairs", {"reach": "adjacent", "most": "uncertain", "by": "uncertain"})

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
    """Answers with log p(first is better) − log p(second is better), or with a choice in words.

    As duoT5 (Pradeep, Nogueira and Lin 2021, section 3.2) and pairwise ranking prompting (Qin et
    al. 2023, https://arxiv.org/abs/2306.17563, section 3), which has both ways to answer. Every
    pair is asked in both orders, because models prefer one place.

    Args:
        model: where it runs is its own business.
        options: as in a teacher's spec.
        at_once: questions in a batch, after which the answers are stored.
    """

    def __init__(
        self, model: LanguageModel, options: PairwiseOptions | None = None, *, at_once: int = 256
    ) -> None:
        self.model, self.options, self.at_once = model, options or PairwiseOptions(), at_once
        name = self.options.prompt or template_for(model.name, PAIR_TEMPLATES)
        self.template = find_template(name, PAIR_TEMPLATES)
        if self.template not in PAIR_TEMPLATES:
            check_answers(self.template, name)
        self.strategy, self.by = self.options.strategy(), self.options.by

    @property
    def key(self) -> TeacherKey:
        """Everything that changes an answer; which pairs are asked does not."""
        return set_key(
            "pairwise", f"pair by {self.options.answer}", self.model, self.template, self.options
        )

    def answer(self, questions: Sequence[Question]) -> list[Answer | None]:
        """One answer per question about two documents; None where the call failed."""
        options = self.options
        prompts = set_prompts(
            self.model,
            questions,
            self.template,
            LETTERS,
            query_tokens=options.query_tokens,
            passage_tokens=options.passage_tokens,
            cut=options.cut,
            form=lambda count: choice_form(self.template.answers),
        )
        if options.answer == "logits":
            return [_by_logs(logs) for logs in self.model.options(prompts, self.template.answers)]
        written = self.model.generate(prompts, CHOICE_TOKENS)
        return [
            None if one.status == "failed" else choice(one.text, self.template.answers)
            for one in written
        ]


def check_answers(template: Template, file: str) -> None:
    """Refuse a user's prompt that never names the answers that are looked for."""
    words = f"{template.system} {template.user}"
    if not all(answer in words for answer in template.answers):
        first, second = template.answers
        raise InputError(
            f"the prompt asks for neither {first!r} nor {second!r}, its answers",
            file=file,
            remedy="say with `answers` what it asks for: the first passage's, then the second's",
        )


def choice(text: str, labels: Sequence[str]) -> Answer:
    """The answer that names one label in words.

    Example:
        >>> choice("B", "AB").order, choice("neither", "AB").status
        ((1, 0), 'unparsable')
    """
    best, status = parse_choice(text, labels)
    if best is None:
        return Answer(text, status="unparsable")
    rest = [place for place in range(len(labels)) if place != best]
    return Answer(text, order=(best, *rest) if len(rest) == 1 else (best,), status=status)


def _by_logs(logs: np.ndarray) -> Answer | None:
    """Of log-probabilities (2,); NaN is a failed call, or a word that a server did not tell of.

    Neither is stored: asked again, with more `--logprobs`, it may be told.
    """
    if np.isnan(logs).any():
        return None
    told = tuple(float(log) for log in logs)
    return Answer(logs=told, log_odds=told[0] - told[1])
