"""Objectives on states: a student's layers or tokens are compared with those of a frozen model.

A term is computed for each group of texts as the group is encoded. Its value becomes one more of
the texts' representations, so that cached gradients work for it as for the others: each text holds
its share of the sum, and its weight in the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models.load import load_cross_encoder, load_retriever
from retrieval_kd.models.modules.interaction import InteractionEncoder
from retrieval_kd.objectives import states as objectives
from retrieval_kd.training.live_models import at_most, read_texts, slate_pairs
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.states.hooks import (
    KINDS,
    Seen,
    attention_maps,
    before_answer,
    token_states,
    watched,
)

OWN_TOKENS = ("token_alignment",)  # here the teacher tokenises the texts itself


class StateTeacher(nn.Module):
    """A frozen encoder whose states are the targets of a student.

    Args:
        model_spec: the MODEL.
        student: the model to train; its first module must be a transformer.
        terms: the terms on states whose `teacher` it is.
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
                f"{model_spec} and the student have different vocabularies: their tokens' states "
                "cannot be compared",
                remedy="use the model that the student was made from as the teacher",
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
                    remedy="use a teacher with as many, or set student.dimensions to match",
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
    """All terms on states of a training run, with their teachers.

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
        compared = {}
        for teacher in self.teachers.values():
            other = teacher(features, texts, side, student.max_seq_length)
            mask = features["attention_mask"].bool()  # (n, L)
            for term in teacher.terms:
                value, counts = teacher.compare(term, seen[term.name], other[term.name], mask)
                counts = counts.to(value)  # (n,)
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
        for term in self.of_pairs:
            documents = {"vector": torch.cat([group["vector"] for group in groups])}  # (M, D)
            own = student.features(queries, documents, labels["columns"])  # (B, N, K)
            length = student.model.max_seq_length
            other = self.pair_teachers[term.teacher](labels["texts"], labels, length)  # (B, N, E)
            losses[term.label] = term.function(own, other, labels["mask"], **term.parameters)
        return losses


class PairTeacher(nn.Module):
    """A frozen cross-encoder that returns the states its logits are computed from.

    A student with an interaction head reads two vectors, this teacher both texts. The features of a
    query's candidates are trained to be as similar to each other for the student as for the teacher
    (D2LLM, Liao et al. 2024, https://arxiv.org/abs/2406.17262, "Feature Imitation").

    Args:
        model_spec: the MODEL, a cross-encoder with one logit.
        student: the model to train, with an interaction head.
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
        """Return states (B, N, E) of each query's slate; zeros where a slate is shorter.

        Args:
            length: maximum number of tokens of a pair.
        """
        with at_most(self.model, length), before_answer(self.model) as states:
            rows, places, groups = slate_pairs(self.model, texts, labels)
            for group in groups:
                self.model(group)
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


def check_width(student: Any, teacher: Any, model_spec: str) -> tuple[int, int]:
    """Return the numbers of layers of two models whose states have the same width."""
    own, other = (model[0].auto_model.config for model in (student, teacher))
    if own.hidden_size != other.hidden_size:
        raise InputError(
            f"the states of {model_spec} have {other.hidden_size} dimensions, the student's "
            f"{own.hidden_size}",
            remedy="make the student from this model, with fewer layers, or use relations",
        )
    return own.num_hidden_layers, other.num_hidden_layers


def check_heads(model: Any, heads: int, layer: int, whose: str) -> None:
    """Refuse a number of relation heads that does not divide a layer's width."""
    for kind, linear in attention_maps(model, layer).items():
        if heads < 1 or linear.out_features % heads:
            raise InputError(
                f"{kind} of {whose} have {linear.out_features} dimensions, which cannot be split "
                f"into {heads} relation heads",
                remedy="give `heads`, a number that divides the widths of student and teacher",
            )


def token_width(model: Any) -> int:
    """Return the number of dimensions of a token's vector."""
    if isinstance(model, SparseEncoder):
        raise InputError(
            "token_alignment compares vectors of tokens, which a sparse model does not have",
            remedy="use hidden_states or relations, or a dense or multi_vector model",
        )
    whole = isinstance(model, MultiVectorEncoder)
    return int((model if whole else model[0]).get_embedding_dimension())


def _heads(term: Term) -> int:
    return int(term.parameters.get("heads", 1))
