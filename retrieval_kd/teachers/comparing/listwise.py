"""A language model as listwise teacher: in what order do these passages answer the query?

Which of them it is shown is its strategy's business (`windows.py`, `set_wise.py`), asking and
storing is `ask.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from retrieval_kd.errors import InputError
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer, Question, Strategy
from retrieval_kd.teachers.comparing.pairwise import CHOICE_TOKENS, choice
from retrieval_kd.teachers.comparing.parse_order import order_by_logits, parse_order
from retrieval_kd.teachers.comparing.set_prompts import (
    LETTERS,
    NUMBERS,
    choice_form,
    list_templates,
    order_form,
    set_key,
    set_prompts,
    template_for,
)
from retrieval_kd.teachers.comparing.set_wise import Heap, Tournament
from retrieval_kd.teachers.comparing.steps import refuse_stray
from retrieval_kd.teachers.comparing.windows import Windows
from retrieval_kd.teachers.llm.prompts import find_template
from retrieval_kd.teachers.llm.protocol import Completion, LanguageModel, Prompt
from retrieval_kd.teachers.options import SetOptions

LABEL_TOKENS = 8  # of "[12] > " in an answer, by a tokenizer of single characters


class ListwiseOptions(SetOptions):
    """Of `listwise`."""

    how: Literal["windows", "heap", "tournament"] = Field(
        "windows", description="what to show: sliding windows, a heap of small sets, tournaments"
    )
    answer: Literal["words", "logits"] = Field(
        "words", description="read what the model writes, or the probabilities of its first label"
    )
    window: int = Field(20, gt=1, description="windows: passages in a prompt")
    stride: int = Field(10, gt=0, description="windows: how far the next window is above")
    passes: int = Field(1, gt=0, description="windows: how often from the end to the top")
    children: int = Field(3, gt=0, description="heap: a prompt shows so many passages and one more")
    top: int = Field(10, gt=0, description="heap: how many of the best to rank")
    group: int = Field(10, gt=2, description="tournament: passages in a prompt")
    rounds: int = Field(2, gt=0, description="tournament: how many, each with other groups")

    def model_post_init(self, context: Any) -> None:
        goes_with = dict.fromkeys(("window", "stride", "passes"), "windows")
        goes_with |= dict.fromkeys(("children", "top"), "heap")
        goes_with |= dict.fromkeys(("group", "rounds"), "tournament")
        refuse_stray(self, "how", goes_with)

    def strategy(self) -> Strategy:
        match self.how:
            case "windows":
                return Windows(self.window, self.stride, self.passes)
            case "heap":
                return Heap(self.children, self.top)
            case "tournament":
                return Tournament(self.group, self.rounds)


class ListwiseTeacher:
    """Answers with an order of the passages shown, or, for a heap, with the best of them.

    In words it writes `[2] > [1]` (RankGPT, Sun et al. 2023, section 3.1); by logits the passages'
    letters are ordered by their probability as its first word (`first_logits.py`).

    Args:
        model: where it runs is its own business.
        options: as in a teacher's spec.
        at_once: questions in a batch, after which the answers are stored.
    """

    def __init__(
        self, model: LanguageModel, options: ListwiseOptions | None = None, *, at_once: int = 64
    ) -> None:
        self.model, self.options, self.at_once = model, options or ListwiseOptions(), at_once
        self._best = self.options.how == "heap"
        known = list_templates(self.options.how, self.options.answer)
        self.template = find_template(self.options.prompt or template_for(model.name, known), known)
        self.strategy = self.options.strategy()
        self.by: str | None = None
        self._orders = self.options.answer == "words" and not self._best  # written out
        self.labels = NUMBERS if self._orders else LETTERS

    @property
    def key(self) -> TeacherKey:
        """Everything that changes an answer; which passages are shown together does not."""
        task = "best" if self._best else "order"
        return set_key(
            "listwise", f"{task} by {self.options.answer}", self.model, self.template, self.options
        )

    def answer(self, questions: Sequence[Question]) -> list[Answer | None]:
        """One answer per question; None where the call failed.

        Raises:
            InputError: more passages than labels.
        """
        most = max((len(question.documents) for question in questions), default=0)
        if most > len(self.labels):
            raise InputError(
                f"{most} passages in a prompt, but only {len(self.labels)} labels",
                remedy="choose a smaller window or group",
            )
        if self.options.answer == "logits":
            return self._by_logits(questions)
        tokens = CHOICE_TOKENS if self._best else LABEL_TOKENS * (most + 1)
        written = self.model.generate(self._prompts(questions), tokens)
        return [
            self._read(one, len(question.documents))
            for question, one in zip(questions, written, strict=True)
        ]

    def _by_logits(self, questions: Sequence[Question]) -> list[Answer | None]:
        found: list[Answer | None] = [None] * len(questions)
        sizes = [len(question.documents) for question in questions]
        for size in sorted(set(sizes)):
            rows = [row for row, other in enumerate(sizes) if other == size]
            prompts = self._prompts([questions[row] for row in rows])
            logs = self.model.options(prompts, self.labels[:size])  # (rows, size)
            for row, one in zip(rows, logs, strict=True):
                found[row] = order_by_logits(one)
        return found

    def _read(self, written: Completion, count: int) -> Answer | None:
        if written.status == "failed":
            return None
        if self._best:
            return choice(written.text, self.labels[:count])
        whole = written.text
        if written.status == "cut off":  # its last number may be half of one
            whole = whole.rstrip("0123456789")
        order, status = parse_order(whole, count)
        return Answer(written.text, order=order, status=status)

    def _prompts(self, questions: Sequence[Question]) -> list[Prompt]:
        return set_prompts(
            self.model,
            questions,
            self.template,
            self.labels,
            query_tokens=self.options.query_tokens,
            passage_tokens=self.options.passage_tokens,
            cut=self.options.cut,
            form=order_form if self._orders else lambda count: choice_form(self.labels[:count]),
            start="" if self._best or self._orders else "[",
        )
