"""What the objectives see of a batch: score matrices (B, M) by name, and representations.

Student and teacher are two names of matrices of one kind, so that any matrix may teach any other:
stored scores, a part of the student, a live teacher, the similarity of documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.objectives import FROM_LABELS, OR_FROM_LABELS
from retrieval_kd.students.student import Representations, Student
from retrieval_kd.training.objective.score_names import POSITIVE, STORED
from retrieval_kd.training.objective.terms import Term


class Batch:
    """One training step's matrices, computed when first asked for.

    Args:
        queries, groups: the student's representations of B queries and, in groups, M documents.
        labels: the label dict of `SlateCollator`.
        progress: share of the training's steps done.
        live: live teachers by name (`teachers/live.py`).
        own: how many of the groups are this process's; objectives on vectors see these alone.
    """

    def __init__(
        self,
        student: Student | None,
        queries: Representations,
        groups: Sequence[Representations],
        labels: Mapping[str, Any],
        progress: float = 0.0,
        live: Mapping[str, nn.Module] | None = None,
        own: int | None = None,
    ) -> None:
        self.student, self.queries, self.groups = student, queries, groups
        self.labels, self.progress = labels, progress
        self.live, self.own = dict(live or {}), own
        self.matrices: dict[str, Tensor] = {}
        self.states: dict[str, Tensor] = {}  # objectives on states, by their term's label

    @classmethod
    def of_scores(cls, scores: Tensor, labels: Mapping[str, Any], progress: float = 0.0) -> Batch:
        """A batch of which only one score matrix (B, M) is known."""
        batch = cls(None, {}, [], labels, progress)
        batch.matrices["score"] = scores
        return batch

    def matrix(self, name: str) -> Tensor:
        """Scores (B, M) by name; `score@64` is by the first 64 dimensions alone.

        A live teacher's are under its name, those of its parts under `NAME.PART`.
        """
        if name not in self.matrices:
            owner = name.partition(".")[0]
            if name.startswith(f"{STORED}:"):
                self.matrices[name] = self.labels["batch_members"][int(name.partition(":")[2])]
            elif owner in self.live:
                scores = self.live[owner](self.labels["texts"], self.labels)
                for part, matrix in scores.items():
                    self.matrices[owner if part == "score" else f"{owner}.{part}"] = matrix
            elif name == POSITIVE:
                self.matrices[name] = self._positive_similarity()
            elif self.student is not None:
                self._compute(name)
        if name not in self.matrices:
            raise InputError(
                f"no scores named {name!r} in this training",
                remedy=f"there are {', '.join(sorted({STORED, POSITIVE, *self.matrices}))}",
            )
        return self.matrices[name]

    def _compute(self, name: str) -> None:
        assert self.student is not None
        _, _, cut = name.partition("@")
        dimensions = int(cut) if cut else None
        widths = [self.queries[n].shape[-1] for n in ("vector", "tokens") if n in self.queries]
        if dimensions and widths and dimensions > max(widths):
            raise InputError(
                f"{name} asks for {dimensions} dimensions of a student with {max(widths)}",
                remedy=f"give at most {max(widths)}",
            )
        groups = [self.student.scores(self.queries, g, dimensions) for g in self.groups]
        for part in groups[0]:
            whole = torch.cat([scores[part] for scores in groups], dim=1)  # (B, M)
            self.matrices[f"{part}@{cut}" if cut else part] = whole

    def _positive_similarity(self) -> Tensor:
        """How alike each query's positive document is to every document of the batch (B, M)."""
        assert self.student is not None
        rows = [
            torch.cat([self.student.scores(left, right)["score"] for right in self.groups], dim=1)
            for left in self.groups
        ]
        return torch.cat(rows)[self.labels["columns"][:, 0]]  # (M, M) → (B, M)

    def vectors(self, side: str, name: str = "vector") -> Tensor:
        """One vector per text, (B, D) of "queries" or (M, D) of "documents".

        A multi-function student's weights of words are its "sparse" ones.
        """
        parts = [self.queries] if side == "queries" else list(self.groups[: self.own])
        if any(name not in part for part in parts):
            raise InputError(
                f"this student has no single {name} per text for an objective on vectors",
                remedy="use an objective on scores, or a dense student",
            )
        return torch.cat([part[name] for part in parts])


def evaluate_term(term: Term, batch: Batch, projections: Any = None) -> Tensor:
    """The term's loss, not weighted.

    In a batch, a document that is no candidate of a query has teacher probability zero; one that is
    a candidate but was not scored is left out, like everywhere, and so is one that the query's pool
    ignores.
    """
    if term.kind == "vectors":
        return _vectors(term, batch, projections)
    if term.kind == "states":
        return _states(term, batch)
    if term.kind == "regulariser":
        given = {"progress": batch.progress} if "progress" in term.takes else {}
        part = "sparse" if term.student == "sparse" else "vector"
        sides = [batch.vectors(side, part) for side in ("queries", "documents")]
        return torch.stack([term.function(v, **given, **term.parameters) for v in sides]).sum()
    if term.kind == "layers":
        return _layers(term, batch)
    if term.kind == "several":
        return _several(term, batch, projections)
    names = [f"{term.student}@{d}" for d in term.dimensions] or [term.student]
    losses = [_scores(term, batch, batch.matrix(name)) for name in names]
    return torch.stack(losses).mean()


def _candidates(term: Term, batch: Batch) -> tuple[Tensor, Tensor]:
    """Where a term's candidates are among the batch's documents, the positive first; their mask."""
    labels = batch.labels
    if term.candidates == "slate":
        return labels["columns"], labels["mask"]  # (B, N)
    columns = positive_first(labels["columns"][:, 0], labels["batch_gains"].shape[1])  # (B, M)
    return columns, labels["batch_mask"].gather(1, columns)


def _scores(term: Term, batch: Batch, scores: Tensor) -> Tensor:
    labels = batch.labels
    columns, mask = _candidates(term, batch)
    in_batch = term.candidates == "batch"
    student = scores.gather(1, columns)  # (B, N) or (B, M)
    if term.teacher == STORED or term.pairs_of is not None:
        teacher = labels["batch_teacher"].gather(1, columns) if in_batch else labels["teacher"]
    else:
        teacher = batch.matrix(term.teacher).gather(1, columns)
        teacher = teacher if term.joint else teacher.detach()
    gains = labels["batch_gains"].gather(1, columns) if in_batch else labels["gains"]
    if term.pairs_of is not None:  # it knows itself which pairs were asked
        return term.function(
            student, teacher, mask, preferences=labels["preferences"], **term.parameters
        )
    if term.function not in FROM_LABELS:
        scored = mask & ~teacher.isnan()  # (B, N)
        # a query of which the teacher said nothing teaches nothing, or what its judgments say
        said = (teacher.isfinite() & scored).any(-1, keepdim=True)  # (B, 1)
        mask = torch.where(said, scored, mask & (term.function in OR_FROM_LABELS))
    given = {"labels": gains, "progress": batch.progress}
    given = {name: value for name, value in given.items() if name in term.takes}
    return term.function(student, teacher, mask, **given, **term.parameters)


def _several(term: Term, batch: Batch, projections: Any) -> Tensor:
    """An objective on all stored teachers; one that chooses among them has its policy beside it."""
    columns, mask = _candidates(term, batch)
    members = batch.labels["batch_members"]  # (T, B, M)
    teachers = members.gather(2, columns.expand(len(members), -1, -1))  # (T, B, N)
    student = batch.matrix(term.student).gather(1, columns)
    given = {}
    if "policy" in term.takes and projections is not None and term.label in projections:
        given = {
            "policy": projections[term.label],
            "queries": batch.vectors("queries"),
            "labels": batch.labels["batch_gains"].gather(1, columns),
        }
    return term.function(student, teachers, mask, **given, **term.parameters)


def _layers(term: Term, batch: Batch) -> Tensor:
    """An objective on the scores of several layers, over all documents of the batch."""
    gains = batch.labels["batch_gains"]
    columns = positive_first(batch.labels["columns"][:, 0], gains.shape[1])
    student = [batch.matrix(name).gather(1, columns) for name in term.students]  # L of (B, M)
    teacher = [batch.matrix(name).detach().gather(1, columns) for name in term.teachers]
    mask = batch.labels["batch_mask"].gather(1, columns)
    given = {"labels": gains.gather(1, columns)}
    return term.function(student, teacher, mask, **given, **term.parameters)


def _vectors(term: Term, batch: Batch, projections: Any) -> Tensor:
    losses = []
    for side in ("queries", "documents"):
        student = batch.vectors(side)  # (n, D)
        teacher = batch.labels["vectors"][term.teacher][side].to(student)  # (n, D')
        if projections is not None and term.label in projections:
            student = projections[term.label](student)  # (n, D')
        losses.append(term.function(student, teacher, **term.parameters))
    return torch.stack(losses).mean()


def _states(term: Term, batch: Batch) -> Tensor:
    if term.label not in batch.states:
        raise InputError(
            f"{term.name} compares states, and none were kept of this forward pass",
            remedy="train with `train_student`, which keeps them",
        )
    return batch.states[term.label]


def positive_first(positive: Tensor, documents: int) -> Tensor:
    """Columns (B, M) of all documents, with each query's own positive moved to the front.

    Example:
        >>> positive_first(torch.tensor([2, 0]), 3).tolist()
        [[2, 1, 0], [0, 1, 2]]
    """
    columns = torch.arange(documents, device=positive.device).repeat(len(positive), 1)  # (B, M)
    columns.scatter_(1, positive[:, None], 0)
    columns[:, 0] = positive
    return columns


def evaluate_terms(
    terms: Sequence[Term], batch: Batch, projections: Any = None
) -> dict[str, Tensor]:
    """Each term's weighted loss by its label.

    Raises:
        InputError: a loss is NaN or infinite; going on would save a ruined model.
    """
    losses = {term.label: term.weight * evaluate_term(term, batch, projections) for term in terms}
    for name, loss in losses.items():
        if not loss.isfinite():
            raise InputError(
                f"the loss {name} became {loss.item()}",
                remedy="lower train.learning_rate, or look at the teacher's scores",
            )
    return losses
