"""The dense student: one vector per text, and optionally one more per exit layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Router
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models.layers import check_survives_saving, keep_layers, layer_stack
from retrieval_kd.models.load import load_encoder

Representations = dict[str, Tensor]  # name → (n, …), n texts


def make_dense(
    model_spec: str,
    layers: Sequence[int] | None = None,
    *,
    max_length: int | None = None,
    dimensions: int | None = None,
    seed: int = 0,
) -> SentenceTransformer:
    """Make a float32 student from some layers of an encoder, by default all.

    `layers=[0, 2, 5]` of a 6-layer model keeps its first, third and last layer, with their weights,
    the embeddings and the pooling: the usual start of a shallow student (DistilBERT,
    https://arxiv.org/abs/1910.01108, section 3).

    Args:
        dimensions: size of the vectors, by default the encoder's. Another one adds y = W h + b
            after the pooling (LEAF, https://arxiv.org/abs/2509.12539), which is saved with the
            student, so that it can have the width of a teacher's vectors and search its index.
        seed: for W.

    Raises:
        InputError: the model has no such layer, or its layers cannot be found.
    """
    model = load_encoder(model_spec, max_length=max_length, dtype=torch.float32)
    if dimensions not in (None, model.get_embedding_dimension()):
        model = _projected(model, dimensions, seed)
    return shallow(model, layers)


def _projected(model: SentenceTransformer, dimensions: int, seed: int) -> SentenceTransformer:
    """Put a linear map to so many dimensions behind the pooling, in place.

    W starts with orthonormal columns, or rows if it makes vectors shorter: no cosine changes in the
    former case, as little as by any random map in the latter.
    """
    model.truncate_dim = None  # the map reads, and makes, whole vectors
    width = int(model.get_embedding_dimension() or 0)
    start = torch.empty(dimensions, width)  # (E, D)
    nn.init.orthogonal_(start, generator=torch.Generator().manual_seed(seed))
    dense = Dense(width, dimensions, activation_function=nn.Identity(), init_weight=start)
    nn.init.zeros_(dense.linear.bias)
    last = len(model) - isinstance(model[-1], Normalize)
    model.insert(last, dense.to(model.device))
    return model


def shallow(model: Any, layers: Sequence[int] | None) -> Any:
    """Return the model with only these layers, by default all. The model is changed in place."""
    if layers is not None:
        keep_layers(model, list(layers))
        check_survives_saving(model, list(layers))
    return model


class DenseStudent:
    """Scores are cosines or dot products of one vector per text, as the model declares.

    With `exits`, numbers of layers below the last, a text also has a vector pooled from each of
    these layers: `exit0` after the first. An exit becomes a student of its own by dropping the
    layers above it: `make_dense(FOLDER, range(number + 1))`.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        self.exits: tuple[int, ...] = ()
        self.similarity = similarity_of(model)
        self.temperature = {"cosine": 0.05, "dot": 1.0}[self.similarity]

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """`vector (n, D)`, and `exitK (n, D)` of each exit."""
        if not self.exits:
            return {"vector": embed(self.model, dict(features))}
        with watched(self.model, self.exits) as states:
            vectors = {"vector": embed(self.model, dict(features))}
        for number in self.exits:
            vectors[f"exit{number}"] = pooled(self.model, features, states[number])
        return vectors

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """`score (B, M)`, and `exitK (B, M)` of each exit."""
        return {
            "score" if name == "vector" else name: score_matrix(
                queries[name][:, :dimensions], documents[name][:, :dimensions], self.similarity
            )  # (B, M)
            for name in queries
        }


def embed(model: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """Sentence embeddings (n, D) of a tokenised batch, in float32."""
    return model(features)["sentence_embedding"].float()


def score_matrix(queries: Tensor, documents: Tensor, similarity: str) -> Tensor:
    """Scores (B, M) of every query with every document, by "cosine" or "dot".

    Example:
        >>> score_matrix(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0]]), "cosine").item()
        1.0
    """
    if similarity == "cosine":
        queries = nn.functional.normalize(queries, dim=-1)  # (B, D)
        documents = nn.functional.normalize(documents, dim=-1)  # (M, D)
    return queries @ documents.T  # (B, M)


def describe_student(model: Any) -> dict[str, int | str | None]:
    """Return a student's layers, parameters, dimensions and similarity, for the report."""
    first: Any = model[0]
    if isinstance(model, SparseEncoder) and isinstance(first, Router):
        routes: Any = first.sub_modules
        first = routes["document"][0]  # queries are a table
    transformer = getattr(first, "auto_model", None)  # none: static embeddings, a router
    similarity = None  # a cross-encoder has no vectors to compare
    if isinstance(model, SentenceTransformer):
        similarity = similarity_of(model)
    elif not isinstance(model, CrossEncoder):
        similarity = str(model.similarity_fn_name)
    return {
        "layers": transformer.config.num_hidden_layers if transformer is not None else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dimensions": model.get_embedding_dimension() if similarity else None,
        "similarity": similarity,
    }


def similarity_of(model: SentenceTransformer) -> str:
    """Return the similarity that the model declares, "cosine" or "dot"."""
    name = str(model.similarity_fn_name)
    if name not in ("cosine", "dot"):
        raise InputError(
            f"students compare vectors by cosine or dot product, this one by {name}",
            remedy="set similarity_fn_name of the model and save it again",
        )
    return name


def prompts_of(model: SentenceTransformer) -> dict[str, str]:
    """Return the model's prompts that are not empty."""
    return {name: text for name, text in (model.prompts or {}).items() if text}


@contextmanager
def watched(model: Any, exits: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the output states (n, L, D) of the exits' layers during forward passes, by number."""
    parent, name = layer_stack(model)
    stack = getattr(parent, name)
    if max(exits) >= len(stack) - 1:
        raise InputError(
            f"exit{max(exits)} is not below the last of {len(stack)} layers",
            remedy=f"name exits from exit0 to exit{len(stack) - 2}; the last is `score`",
        )
    states: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for number in exits:

            def keep(module: nn.Module, inputs: Any, output: Any, number: int = number) -> None:
                states[number] = output[0] if isinstance(output, tuple) else output  # (n, L, D)

            hooks.enter_context(stack[number].register_forward_hook(keep))
        yield states


def pooled(model: Any, features: dict[str, Tensor], states: Tensor) -> Tensor:
    """Pass a layer's states (n, L, D) through the modules after the transformer: vectors (n, D)."""
    state = {**features, "token_embeddings": states}
    for module in list(model)[1:]:
        state = module(state)
    return state["sentence_embedding"].float()
