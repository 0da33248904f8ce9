"""Which objectives a training minimises, with weights: parsed, checked, evaluated."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from retrieval_kd import objectives
from retrieval_kd.errors import InputError
from retrieval_kd.training.slates import Pool


class Term(BaseModel):
    """One objective of a weighted sum. Further keys are the objective's own parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="function in retrieval_kd.objectives")
    weight: float = Field(1.0, gt=0, description="factor in the sum; no unit")
    candidates: Literal["slate", "batch"] = Field(
        "slate",
        description="slate: the query's own N candidates; batch: all documents of the batch",
    )

    @model_validator(mode="after")
    def _known(self) -> Term:
        if self.name not in objectives.__all__:
            raise ValueError(
                f"no objective {self.name!r}; there are {', '.join(objectives.__all__)}"
            )
        known = list(inspect.signature(self.function).parameters)[3:]
        for key in self.parameters:
            if key not in known:
                raise ValueError(f"{self.name} has no parameter {key!r}; it has {', '.join(known)}")
        return self

    @property
    def function(self) -> Callable[..., Tensor]:
        return getattr(objectives, self.name)

    @property
    def learns_from(self) -> str:
        """`teacher` or `labels`: the name of the objective's second parameter."""
        return list(inspect.signature(self.function).parameters)[1]

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        return self.name if self.candidates == "slate" else f"{self.name}_{self.candidates}"


def parse_terms(text: str) -> list[Term]:
    """`kl`, `kl+infonce`, `kl:1.0+infonce:0.5@batch` → terms.

    Example:
        >>> [(t.name, t.weight, t.candidates) for t in parse_terms("kl+infonce:0.5@batch")]
        [('kl', 1.0, 'slate'), ('infonce', 0.5, 'batch')]
    """
    terms = []
    for part in text.split("+"):
        rest, _, candidates = part.strip().partition("@")
        name, _, weight = rest.partition(":")
        try:
            terms.append(
                Term.model_validate(
                    {"name": name, "weight": weight or 1.0, "candidates": candidates or "slate"}
                )
            )
        except ValueError as error:
            reason = str(error).splitlines()[-2].strip() if "\n" in str(error) else str(error)
            raise InputError(
                f"cannot read objective {part!r}: {reason}",
                remedy="write for example kl, kl+infonce or kl:1.0+infonce:0.5@batch",
            ) from error
    return terms


def with_temperature(term: Term, student_temperature: float) -> Term:
    """The term with τ_s set where the objective has one and the user gave none."""
    takes = "student_temperature" in inspect.signature(term.function).parameters
    if takes and "student_temperature" not in term.parameters:
        return term.model_copy(update={"student_temperature": student_temperature})
    return term


def evaluate_term(term: Term, scores: Tensor, label: Mapping[str, Tensor]) -> Tensor:
    """The term's loss for scores (B, M) of all queries with all documents of the batch.

    In a batch, a document that is no candidate of a query has teacher probability zero; one that is
    a candidate but was not scored is left out, like everywhere.
    """
    target_name = "teacher" if term.learns_from == "teacher" else "gains"
    if term.candidates == "slate":
        student = scores.gather(1, label["columns"])  # (B, N)
        target, mask = label[target_name], label["mask"]  # (B, N)
    else:
        student, target = scores, label[f"batch_{target_name}"]  # (B, M)
        mask = scores.new_ones(scores.shape).bool()
    if term.learns_from == "teacher":
        mask = mask & ~target.isnan()
        # a query of which the teacher said nothing teaches nothing
        known = (target.isfinite() & mask).any(-1, keepdim=True)
        mask = mask & known
    return term.function(student, target, mask, **term.parameters)


def check_targets(pools: Sequence[Pool], terms: Sequence[Term]) -> None:
    """Refuse, before anything is trained, objectives that have nothing to learn from."""
    for term in terms:
        if term.learns_from == "teacher":
            enough = any(np.isfinite(pool.teacher).any() for pool in pools)
            remedy = "give the score store and its teachers (--store, --teacher)"
        else:
            enough = any((pool.gains > 0).any() for pool in pools)
            remedy = "train on a split with judgments, or use an objective that needs none"
        if not enough:
            what = "teacher scores" if term.learns_from == "teacher" else "judgments"
            raise InputError(f"objective {term.name} needs {what}; there are none", remedy=remedy)
