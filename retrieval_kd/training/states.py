"""Objectives on states: a student's layers or features are compared with those of a frozen model.

`hidden_states` is computed for each group of texts as the group is encoded. Its value becomes one
more of the texts' representations, so that cached gradients work for it as for the others: each
text holds its share of the sum, and its weight in the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models.layers import layer_stack
from retrieval_kd.models.load import load_cross_encoder, load_retriever
from retrieval_kd.models.modules.interaction import InteractionEncoder
from retrieval_kd.training.live_models import slate_pairs
from retrieval_kd.training.objective.terms import Term


class Imitation(nn.Module):
    """All terms on states of a training run, with their teachers.

    `watch` captures the student's states for a group of texts. `compare` returns the terms' values,
    which are added to the group's representations; `means` takes them out again.
    """

    def __init__(self, student: Any, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = [term for term in terms if term.name == "hidden_states"]
        self.teachers = nn.ModuleList(StateTeacher(t.teacher, student) for t in self.terms)
        self.of_pairs = [term for term in terms if term.name == "feature_imitation"]
        self.pair_teachers = nn.ModuleList(PairTeacher(t.teacher, student) for t in self.of_pairs)

    def watch(self, student: Any) -> Any:
        """Capture the states that the terms compare in a forward pass of the student."""
        return all_states(student) if self.terms else nullcontext([])

    def compare(self, seen: Sequence[Tensor], features: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return (n, 2) by a term's label: each text's share of the sum, and its weight."""
        compared = {}
        own = [state.float() for state in seen]
        for term, teacher in zip(self.terms, self.teachers, strict=True):
            mask = features["attention_mask"].bool()  # (n, L)
            layers: Any = teacher.layers
            value = term.function(own, teacher(features), mask, layers=layers, **term.parameters)
            counts = mask.sum(1).to(value)  # (n,)
            compared[term.label] = torch.stack([value * counts, counts], dim=1)  # (n, 2)
        return compared

    def means(self, represented: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Take the terms out of the representations; return each term's mean over all tokens."""
        groups, losses = list(represented), {}
        for term in self.terms:
            share, counts = torch.cat([group.pop(term.label) for group in groups]).sum(0)
            losses[term.label] = share / counts.detach().clamp(min=1)
        return losses

    def of_slates(
        self,
        student: Any,
        queries: dict[str, Tensor],
        groups: Sequence[dict[str, Tensor]],
        labels: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        """Return the values of terms on the features of an interaction `student` for each slate."""
        losses = {}
        for term, teacher in zip(self.of_pairs, self.pair_teachers, strict=True):
            documents = {"vector": torch.cat([group["vector"] for group in groups])}  # (M, D)
            own = student.features(queries, documents, labels["columns"])  # (B, N, K)
            length = student.model.max_seq_length
            other = teacher(labels["texts"], labels, length)  # (B, N, E)
            losses[term.label] = term.function(own, other, labels["mask"], **term.parameters)
        return losses


class StateTeacher(nn.Module):
    """A frozen encoder whose layers' states are the targets of a student."""

    def __init__(self, model_spec: str, student: Any) -> None:
        super().__init__()
        model: Any = load_retriever(model_spec)
        if model.tokenizer.get_vocab() != student.tokenizer.get_vocab():
            raise InputError(
                f"{model_spec} and the student have different vocabularies: their tokens' states "
                "cannot be compared",
                remedy="use the model that the student was made from as the teacher",
            )
        own, other = (one[0].auto_model.config for one in (student, model))
        if own.hidden_size != other.hidden_size:
            raise InputError(
                f"the states of {model_spec} have {other.hidden_size} dimensions, the student's "
                f"{own.hidden_size}",
                remedy="make the student from this model, with fewer layers",
            )
        self.layers = uniform_map(own.num_hidden_layers, other.num_hidden_layers)
        self.model = model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> StateTeacher:
        return super().train(False)

    @torch.no_grad()
    def forward(self, features: Mapping[str, Any]) -> list[Tensor]:
        """Return its states for tokenised texts: the embeddings', then each layer's."""
        with all_states(self.model) as states:
            self.model[0](dict(features))
        return [state.float() for state in states]


class PairTeacher(nn.Module):
    """A frozen cross-encoder that returns the states its logits are computed from.

    A student with an interaction head reads two vectors, this teacher both texts. The features of a
    query's candidates are trained to be as similar to each other for the student as for the teacher
    (D2LLM, Liao et al. 2024, https://arxiv.org/abs/2406.17262, "Feature Imitation").
    """

    def __init__(self, model_spec: str, student: Any) -> None:
        super().__init__()
        if not isinstance(student, InteractionEncoder):
            raise InputError(
                "feature_imitation compares what an interaction head makes of two vectors, and "
                "this student has none",
                remedy="use kind: interaction, or an objective on scores",
            )
        self.model = load_cross_encoder(model_spec).requires_grad_(False).eval()
        with torch.no_grad(), before_answer(self.model) as states:
            texts = {"queries": ["a query"], "documents": ["a document"]}
            only = torch.zeros(1, 1, dtype=torch.long)
            *_, groups = slate_pairs(self.model, texts, {"columns": only, "mask": only == 0})
            self.model(next(groups))
        if [state.dim() for state in states] != [2]:
            raise InputError(
                f"{model_spec} does not compute its score from one state for each pair",
                remedy="name a cross-encoder with a classification head, such as BERT's",
            )

    def train(self, mode: bool = True) -> PairTeacher:
        return super().train(False)

    @torch.no_grad()
    def forward(
        self, texts: Mapping[str, list[str]], labels: Mapping[str, Tensor], length: int
    ) -> Tensor:
        """Return states (B, N, E) of each query's slate; zeros where a slate is shorter."""
        own_length = self.model.max_seq_length
        self.model.max_seq_length = min(own_length or length, length)
        with before_answer(self.model) as states:
            rows, places, groups = slate_pairs(self.model, texts, labels)
            for group in groups:
                self.model(group)
        self.model.max_seq_length = own_length
        flat = torch.cat(states).float()  # (P, E)
        empty = flat.new_zeros(*labels["mask"].shape, flat.shape[-1])  # (B, N, E)
        return empty.index_put((rows, places), flat)


def uniform_map(student: int, teacher: int) -> list[tuple[int, int]]:
    """Pair each layer of the student with one of the teacher; 0 stands for the embeddings.

    TinyBERT's uniform strategy, g(m) = m · M / N for N of M layers, here rounded.

    Example:
        >>> uniform_map(3, 6), uniform_map(2, 3)
        ([(0, 0), (1, 2), (2, 4), (3, 6)], [(0, 0), (1, 2), (2, 3)])
    """
    return [(m, int(m * teacher / student + 0.5)) for m in range(student + 1)]


@contextmanager
def all_states(model: Any) -> Iterator[list[Tensor]]:
    """Capture the embeddings and each layer's states, (n, L, D) each, of a forward pass."""
    parent, name = layer_stack(model)
    stack: Any = getattr(parent, name)
    states: list[Tensor] = []

    def before(module: nn.Module, inputs: Any) -> None:
        states[:] = [inputs[0]]

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks:
        hooks.enter_context(stack[0].register_forward_pre_hook(before))
        for module in stack:
            hooks.enter_context(module.register_forward_hook(after))
        yield states


@contextmanager
def before_answer(model: Any) -> Iterator[list[Tensor]]:
    """Capture the input (n, E) of a cross-encoder's last linear layer in a forward pass."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    if not layers:
        raise InputError(
            "this cross-encoder does not compute its score from a state with a linear layer",
            remedy="name a cross-encoder with a classification head, such as BERT's",
        )
    states: list[Tensor] = []
    with layers[-1].register_forward_pre_hook(lambda module, inputs: states.append(inputs[0])):
        yield states
