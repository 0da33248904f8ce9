"""The loss module that evaluates a sum of objectives in Sentence Transformers' trainers.

With `mini_batch_size` the gradient is cached (GradCache, Gao et al. 2021,
https://arxiv.org/abs/2101.06983) by Sentence Transformers' own engine: texts are encoded without a
graph, the loss is differentiated down to their representations, then each mini-batch is encoded
again and receives its share. Memory stays flat however many texts a batch has, and the gradient is
the same, for every student kind and objective: a student's representations are just tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin, RandContext
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.students.dense import DenseStudent
from retrieval_kd.students.student import Student, student_of
from retrieval_kd.training.batches.collate import NO_QUERIES
from retrieval_kd.training.objective.batch import Batch, evaluate_terms
from retrieval_kd.training.objective.policy import FACTS, TeacherPolicy
from retrieval_kd.training.objective.terms import Term, with_temperature
from retrieval_kd.training.states import Imitation
from retrieval_kd.training.trainer.devices import gather


class ScoreMatrixLoss(CachedLossMixin, nn.Module):
    """Σ weight · objective(student score matrix, targets, mask); each component is logged.

    Args:
        model: the student, of any kind that `students.student.student_of` knows.
        terms: the objectives. A `student_temperature` that is not set is the student kind's own.
        mini_batch_size: texts encoded at a time with cached gradients; by default all at once,
            with their graph.
        live: live teachers by name; those with `trains` are trained with the student. Their
            gradients are not cached.
        members: number of stored teachers, for an objective that chooses among them.

    Inputs: features of the queries and of groups of documents, and the label dict of
    `SlateCollator` or `TextCollator`; only the latter's batches may lack queries or documents.
    `progress`, the share of steps done, is set by the engine.
    """

    def __init__(
        self,
        model: Any,
        terms: Sequence[Term],
        *,
        mini_batch_size: int | None = None,
        live: Mapping[str, nn.Module] | None = None,
        members: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.student: Student = student_of(model)
        self.terms = [with_temperature(term, self.student.temperature) for term in terms]
        self.mini_batch_size = mini_batch_size or 0
        self.progress = 0.0
        self.policies = policies(model, self.terms, members)
        self.live = nn.ModuleDict(dict(live or {}))
        set_exits(self.student, self.terms)
        for name, teacher in self.live.items():
            set_exits(getattr(teacher, "kind", None), self.terms, name)
        self.imitation = Imitation(model, self.terms).to(model.device)
        self._layouts: dict[int, Layout] = {}
        self._parts: dict[str, Tensor] = {}

    def forward(
        self, features: Sequence[dict[str, Tensor]], labels: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        first = first_column(labels)
        sided: list[dict[str, Any]] = [{**f, COLUMN: i} for i, f in enumerate(features, first)]
        if self.mini_batch_size:
            total = self.forward_cached(sided, labels)  # type: ignore[arg-type]
            return carried_by_first(self._parts, total)
        return self._losses([self._represent(f) for f in sided], labels)

    def _represent(self, features: dict[str, Any]) -> dict[str, Tensor]:
        own = {name: value for name, value in features.items() if name != COLUMN}
        side = "document" if features[COLUMN] else "query"
        with self.imitation.watch(self.model) as seen:
            represented = self.student.represent(own, side)
        return represented | self.imitation.compare(seen, own)

    def _losses(
        self, represented: Sequence[dict[str, Tensor]], labels: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Evaluate the terms on what `_represent` made of each column."""
        states = self.imitation.means(represented)
        first = first_column(labels)
        queries: dict[str, Tensor] = {} if first else represented[0]
        groups: Sequence[dict[str, Tensor]] = represented[1 - first :]
        live, own = dict(self.live.items()), len(groups)
        states |= self.imitation.of_slates(self.student, queries, groups, labels)
        if "pool_targets" in labels:
            groups, labels = gather(groups, labels)
        batch = Batch(self.student, queries, groups, labels, self.progress, live, own=own)
        batch.states = states
        return evaluate_terms(self.terms, batch, self.policies)

    def own_state(self) -> nn.Module:
        """Return what is trained beside the student, which checkpoints must keep too."""
        trained = {name: model for name, model in self.live.items() if model.trains}
        return nn.ModuleDict({"policies": self.policies, "live": nn.ModuleDict(trained)})

    # -- the methods that Sentence Transformers' GradCache calls ------------------------------

    def embed_minibatch(
        self,
        sentence_feature: dict[str, Any],
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        """Represent texts `begin` to `end`, packed into one tensor (n, K)."""
        part = {
            name: value[begin:end] if isinstance(value, Tensor) and value.dim() else value
            for name, value in sentence_feature.items()
        }
        tensors = [value for value in part.values() if isinstance(value, Tensor)]
        with (
            random_state if random_state is not None else nullcontext(),
            nullcontext() if with_grad else torch.no_grad(),
        ):
            kept = RandContext(*tensors) if copy_random_state else None
            packed, layout = pack(self._represent(part))
        self._layouts[sentence_feature[COLUMN]] = layout
        return packed, kept

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Any = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss of the packed representations of each column."""
        numbered = enumerate(reps, first_column(labels))
        columns = [unpack(torch.cat(rows), self._layouts[i]) for i, rows in numbered]
        parts = self._losses(columns, labels)
        total = torch.stack(list(parts.values())).sum()
        if with_backward:
            total.backward()
            total = total.detach()
        self._parts = {name: part.detach() for name, part in parts.items()}
        return total


COLUMN = "_column"  # 0: queries, above: groups of documents


def first_column(labels: Mapping[str, Any]) -> int:
    """Return the column that a batch's features begin with: 1 if it has no queries."""
    return int(bool(labels.get(NO_QUERIES, False)))


def set_exits(model: Any, terms: Sequence[Term], teacher: str = "") -> None:
    """Make a dense model score by the layers that the terms name as `exitK`.

    Args:
        model: the student or, with `teacher`, the live teacher of that name.
    """
    names = {name for term in terms for name in term.scores if name.exit is not None}
    own = {n for n in names if (n.source == teacher if teacher else n.part is None)}
    exits = sorted({name.exit for name in own if name.exit is not None})
    if exits and not isinstance(model, DenseStudent):
        raise InputError(
            f"{f'{teacher}.' if teacher else ''}exit{exits[0]} needs a model with exits",
            remedy="exits are layers of a dense student or of a live `encoder`",
        )
    if exits:
        model.exits = tuple(exits)


def policies(model: Any, terms: Sequence[Term], members: int = 0) -> nn.ModuleDict:
    """Make the policy of each term that chooses among `members` teachers, by its label."""
    modules = nn.ModuleDict()
    for term in terms:
        if "policy" in term.takes and members:
            states = int(model.get_embedding_dimension()) + FACTS
            modules[term.label] = TeacherPolicy(members, states)
    return modules


def carried_by_first(parts: Mapping[str, Tensor], total: Tensor) -> dict[str, Tensor]:
    """Return loss components for the log, the first of which carries the gradient of `total`."""
    names = list(parts)
    rest: Tensor | float = sum((parts[name] for name in names[1:]), start=torch.zeros_like(total))
    return {names[0]: total - rest, **{name: parts[name] for name in names[1:]}}


# name → (shape of one text's part, dtype); the first entry of a shape may be a number of tokens.
Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]


def pack(representations: dict[str, Tensor]) -> tuple[Tensor, Layout]:
    """Put representations (n, …) side by side in one float32 tensor (n, K), with their layout."""
    layout = {name: (tuple(t.shape[1:]), t.dtype) for name, t in representations.items()}
    rows = [tensor.float().flatten(1) for tensor in representations.values()]
    return torch.cat(rows, dim=1), layout  # (n, K)


def unpack(packed: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Undo `pack`.

    Example:
        >>> on = torch.tensor([[True], [False]])
        >>> packed, layout = pack({"vector": torch.ones(2, 3), "on": on})
        >>> packed.shape, unpack(packed, layout)["on"].tolist()
        (torch.Size([2, 4]), [[True], [False]])
    """
    representations, start = {}, 0
    for name, (shape, dtype) in layout.items():
        width = int(torch.Size(shape).numel())
        part = packed[:, start : start + width].reshape(len(packed), *shape)
        representations[name] = part if dtype.is_floating_point else part.detach().to(dtype)
        start += width
    return representations
