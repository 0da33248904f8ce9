"""Objectives on states: a student's layers or tokens are compared with those of a frozen model.

A term is computed for each group of texts as the group is encoded. Its value becomes one more of
the texts' representations, so that cached gradients work for it as for the others: each text holds
its share of the sum, and its weight in the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models.load import load_retriever
from retrieval_kd.objectives import states as objectives
from retrieval_kd.training.live_models import read_texts
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.states.hooks import (
    KINDS,
    all_states,
    attention_states,
    check_heads,
    check_width,
    uniform_map,
)
from retrieval_kd.training.states.pair_features import PairTeacher

Seen = dict[str, Any]  # captured states by the name of the objective
OWN_TOKENS = ("token_alignment",)  # here the teacher tokenises the texts itself


class StateTeacher(nn.Module):
    """A frozen encoder whose states are the targets of a student.

    Args:
        model_spec: the MODEL.
        student: the model to train; its first module must be a transformer.
        terms: the terms on states whose `teacher` it is.

    Raises:
        InputError: the two models cannot be compared by these terms.
    """

    def __init__(self, model_spec: str, student: Any, terms: Sequence[Term]) -> None:
        super().__init__()
        model: Any = load_retriever(model_spec)
        self.terms = list(terms)
        self.names = {term.name for term in terms}
        self.layer = -1
        self.layers: list[tuple[int, int]] = []
        if self.reads_tokens and model.tokenizer.get_vocab() != student.tokenizer.get_vocab():
            raise InputError(
                f"{model_spec} has another vocabulary than the student: their tokens' states "
                "cannot be compared",
                remedy="learn from a model that the student was made of",
            )
        for term in terms:
            if term.name == "hidden_states":
                own, other = check_width(student, model, model_spec)
                self.layers = uniform_map(own, other)
            elif term.name == "relations":
                self.layer, heads = term.parameters.get("layer", -1), _heads(term)
                check_heads(student, heads, -1, "the student")
                check_heads(model, heads, self.layer, model_spec)
            elif token_width(student) != token_width(model):
                raise InputError(
                    f"tokens of {model_spec} have {token_width(model)} dimensions, the student's "
                    f"{token_width(student)}",
                    remedy="learn from a model with as many, or set student.dimensions so",
                )
        self.model = model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> StateTeacher:
        return super().train(False)

    @property
    def reads_tokens(self) -> bool:
        """Whether it reads the student's tokens, so that both need the same vocabulary."""
        return bool(self.names - set(OWN_TOKENS))

    @torch.no_grad()
    def forward(
        self, features: Mapping[str, Any], texts: Sequence[str], side: str, length: int
    ) -> Seen:
        """Capture its states for tokenised texts, or for the same `texts` in its own tokens."""
        seen: Seen = {}
        if self.reads_tokens:
            with watched(self.model, self.names - set(OWN_TOKENS), self.layer) as seen:
                self.model[0](dict(features))
        if "token_alignment" in self.names:
            with token_states(self.model) as tokens:
                read_texts(self.model, texts, side, length)
            seen["token_alignment"] = tokens
        return seen

    def compare(self, term: Term, own: Any, other: Any, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the term's mean over the tokens of n texts, and their numbers by text (n,)."""
        tokens = mask.sum(1)  # (n,)
        if term.name == "hidden_states":
            value = objectives.hidden_states(
                [state.float() for state in own],
                [state.float() for state in other],
                mask,
                layers=self.layers,
                **term.parameters,
            )
            return value, tokens
        if term.name == "relations":
            pairs = [(own[kind].float(), other[kind].float()) for kind in KINDS]
            values = [objectives.relations(s, t, mask, heads=_heads(term)) for s, t in pairs]
            return torch.stack(values).sum(), torch.where(tokens > 1, tokens, 0)
        present, there = own["present"], other["present"]
        value = objectives.token_alignment(
            own["tokens"].float(), other["tokens"].float(), present, there
        )
        return value, torch.minimum(present.sum(1), there.sum(1))


class Imitation(nn.Module):
    """All terms on states of a training, with their teachers.

    `watch` captures the student's states for a group of texts. `compare` returns the terms' values,
    which are added to the group's representations; `means` takes them out again.
    """

    def __init__(self, student: Any, terms: Sequence[Term]) -> None:
        super().__init__()
        of_states = [term for term in terms if term.kind == "states"]
        self.of_pairs = [term for term in of_states if term.name == "feature_imitation"]
        self.terms = [term for term in of_states if term not in self.of_pairs]
        self.teachers = {
            spec: StateTeacher(spec, student, [t for t in self.terms if t.teacher == spec])
            for spec in dict.fromkeys(term.teacher for term in self.terms)
        }
        self.pair_teachers = {
            term.teacher: PairTeacher(term.teacher, student) for term in self.of_pairs
        }
        every = [*self.teachers.values(), *self.pair_teachers.values()]
        self._teachers = nn.ModuleList(every)  # moves them to the device of the loss

    def watch(self, student: Any) -> Any:
        """Capture the states that the terms compare in a forward pass of the student."""
        return watched(student, {term.name for term in self.terms})

    def compare(
        self,
        student: Any,
        seen: Seen,
        features: Mapping[str, Any],
        texts: Sequence[str] = (),
        side: str = "document",
    ) -> dict[str, Tensor]:
        """Return (n, 2) by a term's label: each text's share of the sum, and its weight."""
        found = {}
        for teacher in self.teachers.values():
            other = teacher(features, texts, side, student.max_seq_length)
            mask = features["attention_mask"].bool()  # (n, L)
            for term in teacher.terms:
                value, counts = teacher.compare(term, seen[term.name], other[term.name], mask)
                counts = counts.to(value)  # (n,)
                found[term.label] = torch.stack([value * counts, counts], dim=1)  # (n, 2)
        return found

    def means(self, represented: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Take the terms out of the representations; return each term's mean over all tokens."""
        groups, found = list(represented), {}
        for term in self.terms:
            share, counts = torch.cat([group.pop(term.label) for group in groups]).sum(0)
            found[term.label] = share / counts.detach().clamp(min=1)
        return found

    def of_slates(
        self,
        student: Any,
        queries: dict[str, Tensor],
        groups: Sequence[dict[str, Tensor]],
        labels: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        """Return the values of terms on the features of an interaction `student` for each slate."""
        found = {}
        for term in self.of_pairs:
            documents = {"vector": torch.cat([group["vector"] for group in groups])}  # (M, D)
            own = student.features(queries, documents, labels["columns"])  # (B, N, K)
            length = student.model.max_seq_length
            other = self.pair_teachers[term.teacher](labels["texts"], labels, length)  # (B, N, E)
            found[term.label] = term.function(own, other, labels["mask"], **term.parameters)
        return found


@contextmanager
def watched(model: Any, names: Iterable[str], layer: int = -1) -> Iterator[Seen]:
    """Capture the states that the objectives of these names compare in a forward pass."""
    ways: dict[str, Any] = {
        "hidden_states": lambda: all_states(model),
        "relations": lambda: attention_states(model, layer),
        "token_alignment": lambda: token_states(model),
    }
    with ExitStack() as stack:
        yield {name: stack.enter_context(ways[name]()) for name in sorted(names)}


@contextmanager
def token_states(model: Any) -> Iterator[dict[str, Tensor]]:
    """Capture the output `tokens` (n, L, D) and the mask `present` (n, L) of a forward pass.

    For a multi-vector model these are the vectors it scores with, for a dense one the last layer's
    states.
    """
    states: dict[str, Tensor] = {}

    def after(module: nn.Module, inputs: Any, output: dict[str, Any]) -> None:
        states["tokens"] = output["token_embeddings"]
        states["present"] = output["attention_mask"].bool()

    handle = model.register_forward_hook(after)
    try:
        yield states
    finally:
        handle.remove()


def token_width(model: Any) -> int:
    """Return the number of dimensions of a token's vector.

    Raises:
        InputError: the model is sparse and has no token vectors.
    """
    if isinstance(model, SparseEncoder):
        raise InputError(
            "token_alignment compares vectors of tokens, which a sparse model does not have",
            remedy="use hidden_states or relations, or a dense or multi_vector model",
        )
    whole = isinstance(model, MultiVectorEncoder)
    return int((model if whole else model[0]).get_embedding_dimension())


def _heads(term: Term) -> int:
    return int(term.parameters.get("heads", 1))
