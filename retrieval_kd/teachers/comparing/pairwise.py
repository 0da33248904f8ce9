"""The pairwise teacher: a language model that says which of two passages answers a query better.

Its strategies choose which pairs of a query's candidates to compare, each in both orders; comparing
only some pairs saves cost. `run_strategies.py` stores the answers. Scores always come from the
answers (`targets/aggregate_pairs.py`), never from the order in which candidates were compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from pydantic import Field
from scipy.special import expit, log_expit

from retrieval_kd.errors import InputError
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import (
    Answer,
    CandidateList,
    Request,
    RequestTexts,
    Steps,
    Strategy,
    log_odds_of,
    together,
)
from retrieval_kd.teachers.comparing.parse_answers import choice_answer
from retrieval_kd.teachers.comparing.set_prompts import (
    CHOICE_TOKENS,
    LETTERS,
    PAIR_TEMPLATES,
    choice_form,
    set_key,
    set_prompts,
)
from retrieval_kd.teachers.llm.prompts import Template, find_template, template_for
from retrieval_kd.teachers.llm.protocol import LanguageModel
from retrieval_kd.teachers.options import SetOptions, refuse_unused


class PairwiseOptions(SetOptions):
    """Options of a `pairwise:` teacher."""

    answer: Literal["logits", "words"] = Field(
        "logits",
        description="read the probabilities of the two labels, or the words the model writes",
    )
    pairs: Literal["all", "adjacent", "uncertain", "sorting"] = Field(
        "all", description="which pairs to compare, each in both orders"
    )
    reach: int = Field(1, gt=0, description="adjacent: number of neighbours below each candidate")
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
        form = choice_form(self.template.answers)
        prompts = set_prompts(
            self.model, requests, self.template, LETTERS, self.options, form=lambda count: form
        )
        if self.options.answer == "logits":
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
    missing = [answer for answer in template.answers if answer not in words]
    if missing:
        raise InputError(
            f"the prompt never mentions {' or '.join(map(repr, missing))}, which it should ask for",
            file=file,
            remedy="set `answers` to the two words the prompt asks for, the first passage's first",
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


@dataclass(frozen=True)
class AllPairs(Strategy):
    """All pairs: n (n − 1) requests. As duoT5 (Pradeep et al. 2021), PRP-Allpair (Qin et al. 2023).

    Example:
        >>> AllPairs().most_requests(20)
        380
    """

    choice = "pairs=all"

    def most_requests(self, count: int) -> int:
        return count * (count - 1)

    def steps(self, candidates: CandidateList) -> Steps[dict[int, float]]:
        yield both_orders(list(combinations(range(candidates.count), 2)))
        return {}


@dataclass(frozen=True)
class AdjacentPairs(Strategy):
    """Each candidate with the next `reach` in first-stage order: about 2 n · reach requests.

    A first stage is least certain about neighbours.

    Example:
        >>> AdjacentPairs(reach=2).most_requests(20)
        74
    """

    choice = "pairs=adjacent"

    reach: int = 1

    def most_requests(self, count: int) -> int:
        return 2 * sum(max(0, count - step) for step in range(1, self.reach + 1))

    def steps(self, candidates: CandidateList) -> Steps[dict[int, float]]:
        pairs = combinations(range(candidates.count), 2)
        yield both_orders([(i, j) for i, j in pairs if j - i <= self.reach])
        return {}


@dataclass(frozen=True)
class UncertainPairs(Strategy):
    """`most` pairs, drawn by a pointwise teacher's uncertainty about them: 2 · `most` requests.

    A pair is drawn without replacement with weight p (1 − p), p = σ((s_i − s_j) / std of the
    query's scores): the variance of "i is better" under that teacher. The draw depends only on the
    query and its candidates, so a resumed job compares the same pairs.

    Example:
        >>> [UncertainPairs(most=30).most_requests(count) for count in (20, 3)]
        [60, 6]
    """

    choice = "pairs=uncertain"

    most: int = 30

    def most_requests(self, count: int) -> int:
        return min(2 * self.most, count * (count - 1))

    def steps(self, candidates: CandidateList) -> Steps[dict[int, float]]:
        if candidates.scores is None:
            raise InputError(
                "pairs=uncertain needs a pointwise teacher's scores of the same candidates",
                remedy="score them with one first, and name it: &by=TEACHER",
            )
        if candidates.count < 2:
            return {}
        pairs = np.array(list(combinations(range(candidates.count), 2)), dtype=np.int64)  # (m, 2)
        drawn = draw(uncertainty(np.array(candidates.scores), pairs), self.most, candidates.seed)
        yield both_orders([(int(i), int(j)) for i, j in pairs[drawn]])
        return {}


def uncertainty(scores: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """log p (1 − p) (m,) of pairs (m, 2) under scores (n,); equal for all pairs if all scores are.

    Example:
        >>> uncertainty(np.array([3.0, 1.0, 0.9]), np.array([[0, 1], [1, 2]])).round(2).tolist()
        [-2.31, -1.39]
    """
    spread = float(scores.std()) or 1.0
    margin = (scores[pairs[:, 0]] - scores[pairs[:, 1]]) / spread  # (m,)
    return log_expit(margin) + log_expit(-margin)


def draw(log_weights: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Draw at most `most` positions without replacement by weight; return them ascending.

    These are the largest values of log weight + Gumbel noise (Kool, van Hoof and Welling 2019,
    section 2.2).
    """
    noise = -np.log(-np.log(np.random.default_rng(seed).uniform(1e-300, 1.0, len(log_weights))))
    return np.sort(np.argsort(-(log_weights + noise), kind="stable")[:most])


@dataclass(frozen=True)
class SortingPairs(Strategy):
    """The pairs that a merge sort compares: at most 2 n log₂ n requests, one level at a time.

    The mean of both orders decides a comparison. A tie, or two unparsable answers, keeps the
    first-stage order for the next comparison, without any effect on the scores.

    Example:
        >>> SortingPairs().most_requests(20)
        146
    """

    choice = "pairs=sorting"

    def most_requests(self, count: int) -> int:
        lengths, total = [1] * count, 0
        while len(lengths) > 1:
            merged = [sum(lengths[at : at + 2]) for at in range(0, len(lengths), 2)]
            total += sum(m - 1 for m, at in zip(merged, range(0, len(lengths), 2), strict=True)
                         if at + 1 < len(lengths))  # fmt: skip
            lengths = merged
        return 2 * total

    def steps(self, candidates: CandidateList) -> Steps[dict[int, float]]:
        runs = [[i] for i in range(candidates.count)]
        while len(runs) > 1:
            odd = [runs[-1]] if len(runs) % 2 else []
            halves = zip(runs[0::2], runs[1::2], strict=False)
            runs = (yield from together([_merge(left, right) for left, right in halves])) + odd
        return {}


def _merge(left: Sequence[int], right: Sequence[int]) -> Steps[list[int]]:
    first, second, merged = list(left), list(right), []
    while first and second:
        answers = yield both_orders([(first[0], second[0])])
        merged.append((second if second_is_better(*answers) else first).pop(0))
    return merged + first + second


def second_is_better(answer: Answer, reversed_answer: Answer) -> bool:
    """Whether the mean of both orders prefers the document that `answer` showed second."""
    p, reversed_p = (float(expit(log_odds_of(a))) for a in (answer, reversed_answer))
    parsed = [p for p in (p, 1 - reversed_p) if not np.isnan(p)]
    return bool(parsed) and sum(parsed) / len(parsed) < 0.5


def both_orders(pairs: Sequence[tuple[int, int]]) -> list[Request]:
    """Two requests for each pair, sorted so that requests with the same first candidate adjoin.

    Example:
        >>> [request.shown for request in both_orders([(0, 1), (0, 2)])]
        [(0, 1), (0, 2), (1, 0), (2, 0)]
    """
    return [Request(shown) for shown in sorted({*pairs, *((j, i) for i, j in pairs)})]
