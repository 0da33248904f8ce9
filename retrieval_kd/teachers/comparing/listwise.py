"""The listwise teacher: a language model that orders passages by how well they answer a query.

`list_strategies.py` chooses the lists; `run_strategies.py` stores the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from retrieval_kd.errors import InputError
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer, RequestTexts, Strategy
from retrieval_kd.teachers.comparing.list_strategies import Heap, Tournament, Windows
from retrieval_kd.teachers.comparing.parse_answers import (
    choice_answer,
    order_by_logits,
    parse_order,
)
from retrieval_kd.teachers.comparing.set_prompts import (
    CHOICE_TOKENS,
    LETTERS,
    NUMBERS,
    choice_form,
    list_templates,
    order_form,
    set_key,
    set_prompts,
)
from retrieval_kd.teachers.llm.prompts import find_template, template_for
from retrieval_kd.teachers.llm.protocol import Completion, LanguageModel, Prompt
from retrieval_kd.teachers.options import SetOptions, refuse_unused

LABEL_TOKENS = 8  # upper bound for "[12] > " with a tokenizer of single characters


class ListwiseOptions(SetOptions):
    """Options of a `listwise:` teacher."""

    how: Literal["windows", "heap", "tournament"] = Field(
        "windows", description="what to show: sliding windows, a heap of small sets, tournaments"
    )
    answer: Literal["words", "logits"] = Field(
        "words",
        description="read the words the model writes, or the probabilities of its first label",
    )
    window: int = Field(20, gt=1, description="windows: passages in a prompt")
    stride: int = Field(10, gt=0, description="windows: passages from one window to the next")
    passes: int = Field(1, gt=0, description="windows: number of passes from the end to the top")
    children: int = Field(3, gt=0, description="heap: a prompt shows one passage more than this")
    top: int = Field(10, gt=0, description="heap: how many of the best to rank")
    # groups of two could leave a group of one
    group: int = Field(10, gt=2, description="tournament: passages in a prompt")
    rounds: int = Field(2, gt=0, description="tournament: number of rounds, each with other groups")

    def model_post_init(self, context: Any) -> None:
        belongs_to = dict.fromkeys(("window", "stride", "passes"), "windows")
        belongs_to |= dict.fromkeys(("children", "top"), "heap")
        belongs_to |= dict.fromkeys(("group", "rounds"), "tournament")
        refuse_unused(self, "how", belongs_to)

    def strategy(self) -> Strategy:
        match self.how:
            case "windows":
                return Windows(self.window, self.stride, self.passes)
            case "heap":
                return Heap(self.children, self.top)
            case "tournament":
                return Tournament(self.group, self.rounds)


class ListwiseTeacher:
    """A teacher that answers with an order of the passages shown or, for a heap, the best of them.

    In words the model writes `[2] > [1]` (RankGPT, Sun et al. 2023, section 3.1). By logits the
    passages are ordered by the probabilities of their letters as the first token
    (`order_by_logits`).
    """

    def __init__(
        self, model: LanguageModel, options: ListwiseOptions | None = None, *, at_once: int = 64
    ) -> None:
        self.model, self.options, self.at_once = model, options or ListwiseOptions(), at_once
        self._best_only = self.options.how == "heap"
        templates = list_templates(self.options.how, self.options.answer)
        name = self.options.prompt or template_for(model.name, templates)
        self.template = find_template(name, templates)
        self.strategy = self.options.strategy()
        self.by: str | None = None
        self._writes_order = self.options.answer == "words" and not self._best_only
        self.labels = NUMBERS if self._writes_order else LETTERS

    @property
    def key(self) -> TeacherKey:
        """Everything that changes an answer; the choice of lists does not."""
        task = "best" if self._best_only else "order"
        return set_key(
            "listwise", f"{task} by {self.options.answer}", self.model, self.template, self.options
        )

    def answer(self, requests: Sequence[RequestTexts]) -> list[Answer | None]:
        """Order the documents of each request; None where the call failed."""
        most = max((len(request.documents) for request in requests), default=0)
        if most > len(self.labels):
            raise InputError(
                f"{most} passages in a prompt, but only {len(self.labels)} labels",
                remedy="choose a smaller window or group",
            )
        if self.options.answer == "logits":
            return self._answer_by_logits(requests)
        tokens = CHOICE_TOKENS if self._best_only else LABEL_TOKENS * (most + 1)
        completions = self.model.generate(self._prompts(requests), tokens)
        return [
            self._parse(completion, len(request.documents))
            for request, completion in zip(requests, completions, strict=True)
        ]

    def _answer_by_logits(self, requests: Sequence[RequestTexts]) -> list[Answer | None]:
        answers: list[Answer | None] = [None] * len(requests)
        sizes = [len(request.documents) for request in requests]
        for size in sorted(set(sizes)):
            rows = [row for row, other in enumerate(sizes) if other == size]
            prompts = self._prompts([requests[row] for row in rows])
            logs = self.model.options(prompts, self.labels[:size])  # (rows, size)
            for row, values in zip(rows, logs, strict=True):
                answers[row] = order_by_logits(values)
        return answers

    def _parse(self, completion: Completion, count: int) -> Answer | None:
        if completion.status == "failed":
            return None
        if self._best_only:
            return choice_answer(completion.text, self.labels[:count])
        text = completion.text
        if completion.status == "cut off":  # the last number may be incomplete
            text = text.rstrip("0123456789")
        order, status = parse_order(text, count)
        return Answer(completion.text, order=order, status=status)

    def _prompts(self, requests: Sequence[RequestTexts]) -> list[Prompt]:
        return set_prompts(
            self.model,
            requests,
            self.template,
            self.labels,
            self.options,
            form=order_form
            if self._writes_order
            else lambda count: choice_form(self.labels[:count]),
            start="" if self._best_only or self._writes_order else "[",
        )
