"""The score matrices and vectors of a batch, and the loss of each term on them.

Every score matrix (B, M) has a name, so any of them can be the target of any other: stored scores,
a part of the student, a live teacher, the similarity of documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.objectives import FROM_LABELS
from retrieval_kd.students.dense import Representations
from retrieval_kd.students.student import Student
from retrieval_kd.training.objective.score_names import POSITIVE, STORED, ScoreName
from retrieval_kd.training.objective.terms import Term


class Batch:
    """The score matrices of one training step, each computed when a term first reads it.

    Args:
        queries, groups: the student's representations of B queries and, in groups, of M documents.
        labels: the label dict of `SlateCollator`.
        progress: share of the training steps done.
        live: live teachers by name (`training/live_models.py`).
        own: number of groups that this process encoded; objectives on vectors read only these.
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
        self.matrices: dict[ScoreName, Tensor] = {}
        self.states: dict[str, Tensor] = {}  # losses of the terms on states, by label

    @classmethod
    def of_scores(cls, scores: Tensor, labels: Mapping[str, Any], progress: float = 0.0) -> Batch:
        """Wrap a single score matrix (B, M)."""
        batch = cls(None, {}, [], labels, progress)
        batch.matrices[ScoreName("score")] = scores
        return batch

    def matrix(self, name: ScoreName) -> Tensor:
        """Return the scores (B, M) of a name."""
        if name not in self.matrices:
            if name.source == STORED and name.member is not None:
                self.matrices[name] = self.labels["batch_members"][name.member]
            elif name.source in self.live:
                scores = self.live[name.source](self.labels["texts"], self.labels)
                for part, matrix in scores.items():
                    own = ScoreName(name.source, None if part == "score" else part)
                    self.matrices[own] = matrix
            elif name.source == POSITIVE:
                self.matrices[name] = self._positive_similarity()
            elif self.student is not None and name.part is None:
                self._score(self.student, name)
        if name not in self.matrices:
            names = {STORED, POSITIVE, *map(str, self.matrices)}
            raise InputError(
                f"no scores named {str(name)!r} in this training run",
                remedy=f"choose one of {', '.join(sorted(names))}",
            )
        return self.matrices[name]

    def _score(self, student: Student, name: ScoreName) -> None:
        dimensions = name.dimensions
        widths = [self.queries[n].shape[-1] for n in ("vector", "tokens") if n in self.queries]
        if dimensions and widths and dimensions > max(widths):
            raise InputError(
                f"{name} asks for {dimensions} dimensions of a student with {max(widths)}",
                remedy=f"give at most {max(widths)}",
            )
        groups = [student.scores(self.queries, group, dimensions) for group in self.groups]
        for part in groups[0]:
            whole = torch.cat([scores[part] for scores in groups], dim=1)  # (B, M)
            self.matrices[ScoreName(part, dimensions=dimensions)] = whole

    def _positive_similarity(self) -> Tensor:
        """Similarity (B, M) of each query's positive document to every document of the batch."""
        assert self.student is not None
        rows = [
            torch.cat([self.student.scores(left, right)["score"] for right in self.groups], dim=1)
            for left in self.groups
        ]
        return torch.cat(rows)[self.labels["columns"][:, 0]]  # (M, M) → (B, M)

    @property
    def sides(self) -> list[str]:
        """Which of "queries" and "documents" the batch has: one of texts may lack a side."""
        return ["queries"] * bool(self.queries) + ["documents"] * bool(self.groups)

    def vectors(self, side: str, name: str = "vector") -> Tensor:
        """One vector per text: (B, D) of "queries", or (M, D) of "documents".

        Args:
            name: "vector", or "sparse" for the word weights of a multi-function student.
        """
        parts = [self.queries] if side == "queries" else list(self.groups[: self.own])
        if any(name not in part for part in parts):
            raise InputError(
                f"this student has no single {name} per text for an objective on vectors",
                remedy="use an objective on scores, or a dense student",
            )
        return torch.cat([part[name] for part in parts])


def evaluate_terms(terms: Sequence[Term], batch: Batch, policies: Any = None) -> dict[str, Tensor]:
    """Compute each term's weighted loss, by its label.

    Args:
        policies: modules that choose among teachers for a term, by its label.

    Raises:
        InputError: a loss is NaN or infinite; continuing would save a ruined model.
    """
    losses = {term.label: term.weight * evaluate_term(term, batch, policies) for term in terms}
    for name, loss in losses.items():
        if not loss.isfinite():
            raise InputError(
                f"the loss {name} became {loss.item()}",
                remedy="lower train.learning_rate, or look at the teacher's scores",
            )
    return losses


def evaluate_term(term: Term, batch: Batch, policies: Any = None) -> Tensor:
    """Compute the term's loss, without its weight.

    With `candidates: batch`, a document that is not a candidate of a query has teacher probability
    zero. A candidate without a teacher score, or one that the query's pool ignores, is left out.
    `candidates: collection` is the same, of a batch that has all documents.
    """
    if term.kind == "vectors":
        return _on_vectors(term, batch)
    if term.kind == "states":
        return _on_states(term, batch)
    if term.kind == "regulariser":
        return _regulariser(term, batch)
    if term.kind == "layers":
        return _on_layers(term, batch)
    if term.kind == "several":
        return _on_several(term, batch, policies)
    [name] = term.students
    names = [replace(name, dimensions=d) for d in term.dimensions] or [name]
    return torch.stack([_on_scores(term, batch, batch.matrix(name)) for name in names]).mean()


def _candidates(term: Term, batch: Batch) -> tuple[Tensor, Tensor]:
    """Columns of a term's candidates in the batch, the positive first, and their mask."""
    labels = batch.labels
    if term.candidates == "slate":
        return labels["columns"], labels["mask"]  # (B, N)
    columns = positive_first(labels["columns"][:, 0], labels["batch_gains"].shape[1])  # (B, M)
    return columns, labels["batch_mask"].gather(1, columns)


def _on_scores(term: Term, batch: Batch, scores: Tensor) -> Tensor:
    labels = batch.labels
    columns, mask = _candidates(term, batch)
    in_batch = term.candidates != "slate"
    student = scores.gather(1, columns)  # (B, N) or (B, M)
    [target] = term.teachers
    if term.pairs_of is not None or target == ScoreName(STORED):
        teacher = labels["batch_teacher"].gather(1, columns) if in_batch else labels["teacher"]
    else:
        teacher = batch.matrix(target).gather(1, columns)
        teacher = teacher if term.joint else teacher.detach()
    gains = labels["batch_gains"].gather(1, columns) if in_batch else labels["gains"]
    if term.pairs_of is not None:  # NaN in `preferences` marks the pairs without an answer
        return term.function(
            student, teacher, mask, preferences=labels["preferences"], **term.parameters
        )
    if term.function not in FROM_LABELS:
        scored = mask & ~teacher.isnan()  # (B, N)
        mask = scored & (teacher.isfinite() & scored).any(-1, keepdim=True)  # or nothing to learn
    trainer = {"labels": gains, "progress": batch.progress}
    trainer = {name: value for name, value in trainer.items() if name in term.takes}
    return term.function(student, teacher, mask, **trainer, **term.parameters)


def _on_several(term: Term, batch: Batch, policies: Any) -> Tensor:
    """An objective on all stored teachers; `policies` has the one that chooses among them."""
    columns, mask = _candidates(term, batch)
    members = batch.labels["batch_members"]  # (T, B, M)
    teachers = members.gather(2, columns.expand(len(members), -1, -1))  # (T, B, N)
    [name] = term.students
    student = batch.matrix(name).gather(1, columns)
    trainer = {}
    if "policy" in term.takes and policies is not None and term.label in policies:
        trainer = {
            "policy": policies[term.label],
            "queries": batch.vectors("queries"),
            "labels": batch.labels["batch_gains"].gather(1, columns),
        }
    return term.function(student, teachers, mask, **trainer, **term.parameters)


def _on_layers(term: Term, batch: Batch) -> Tensor:
    """An objective on the scores of several layers, over all documents of the batch."""
    gains = batch.labels["batch_gains"]
    columns = positive_first(batch.labels["columns"][:, 0], gains.shape[1])
    student = [batch.matrix(name).gather(1, columns) for name in term.students]  # L of (B, M)
    teacher = [batch.matrix(name).detach().gather(1, columns) for name in term.teachers]
    mask = batch.labels["batch_mask"].gather(1, columns)
    labels = gains.gather(1, columns)
    return term.function(student, teacher, mask, labels=labels, **term.parameters)


def _regulariser(term: Term, batch: Batch) -> Tensor:
    part = "sparse" if term.student == "sparse" else "vector"
    sides = getattr(batch.student, "regularised", ("queries", "documents"))
    step = {"progress": batch.progress} if "progress" in term.takes else {}
    losses = [term.function(batch.vectors(side, part), **step, **term.parameters) for side in sides]
    return torch.stack(losses).sum()


def _on_vectors(term: Term, batch: Batch) -> Tensor:
    """An objective on the vectors of all texts of the batch, queries and documents alike."""
    targets = batch.labels["vectors"][term.teacher]
    student = torch.cat([batch.vectors(side) for side in batch.sides])  # (n, D)
    teacher = torch.cat([targets[side] for side in batch.sides]).to(student)  # (n, D')
    axes = {"axes": targets["axes"].to(student)} if term.projects else {}  # (D, D')
    return term.function(student, teacher, **axes, **term.parameters)


def _on_states(term: Term, batch: Batch) -> Tensor:
    if term.label not in batch.states:
        raise InputError(
            f"{term.name} compares states, and none were kept of this forward pass",
            remedy="train with `train_student`, which keeps them",
        )
    return batch.states[term.label]


def positive_first(positive: Tensor, documents: int) -> Tensor:
    """Columns (B, M) of all documents, with each query's positive moved to the front.

    Example:
        >>> positive_first(torch.tensor([2, 0]), 3).tolist()
        [[2, 1, 0], [0, 1, 2]]
    """
    columns = torch.arange(documents, device=positive.device).repeat(len(positive), 1)  # (B, M)
    columns.scatter_(1, positive[:, None], 0)
    columns[:, 0] = positive
    return columns
