"""The dense student with an interaction head: a trained score of two pre-computed vectors.

An index of the vectors is searched by cosine or dot product. `score_vectors` then re-scores the
vectors of the retrieved documents with the head, without reading texts or running the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models.modules.interaction import (
    AttentionPooling,
    InteractionEncoder,
    InteractionHead,
)
from retrieval_kd.students.dense import (
    Representations,
    embed,
    make_dense,
    prompts_of,
    score_matrix,
    similarity_of,
)

SCALE = {"cosine": 20.0, "dot": 1.0}  # logits of a cosine: divided by the usual temperature 0.05


def make_interaction(
    model_spec: str,
    layers: Sequence[int] | None = None,
    *,
    head: str = "dse",
    hidden: int = 256,
    attention_heads: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
) -> InteractionEncoder:
    """Make a float32 dense student with a head that scores pairs of vectors.

    The head "dse" starts as the vectors' similarity: two of its hidden units are ± the scaled dot
    product, the others have no effect yet. "iem" has no product of two vectors and starts at
    random, so it needs more training.

    Args:
        layers: numbers of the layers to keep, counted from 0; by default all.
        head: "dse" or "iem", see `InteractionHead`.
        hidden: width of the head's layers.
        attention_heads: number of heads of `AttentionPooling`; by default pool as the encoder does.
        seed: for the weights that the encoder does not have.

    Raises:
        InputError: no such head, or the dimensions cannot be divided among the attention heads.
    """
    if head not in ("dse", "iem"):
        raise InputError(f"no interaction head {head!r}", remedy="choose dse or iem")
    encoder = make_dense(model_spec, layers, max_length=max_length)
    if isinstance(encoder, InteractionEncoder):
        return encoder
    line = list(encoder.children())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if attention_heads is not None:
            line = _pooled_by_attention(line, attention_heads)
        made = InteractionHead(int(encoder.get_embedding_dimension() or 0), hidden, head)
    if head == "dse":
        start_as_similarity(made, SCALE[similarity_of(encoder)])
    student = InteractionEncoder(
        modules=line,
        heads=made,
        device=str(encoder.device),
        prompts=prompts_of(encoder),
        default_prompt_name=encoder.default_prompt_name,
        similarity_fn_name=similarity_of(encoder),  # type: ignore[arg-type]
    )
    return student.eval()


@torch.no_grad()
def start_as_similarity(head: InteractionHead, scale: float) -> None:
    """Make the score `scale` · (u · v): ReLU(x) − ReLU(−x) = x, in two hidden units."""
    nn.init.zeros_(head.outer.weight)
    nn.init.zeros_(head.outer.bias)
    product = slice(2 * head.width, 3 * head.width)
    for unit, sign in enumerate((1.0, -1.0)):
        head.inner.weight[unit] = 0.0
        head.inner.weight[unit, product] = sign * scale
        head.inner.bias[unit] = 0.0
        head.outer.weight[0, unit] = sign


def _pooled_by_attention(line: list[nn.Module], attention_heads: int) -> list[nn.Module]:
    places = [at for at, module in enumerate(line) if isinstance(module, Pooling)]
    width: Any = line[places[0]].get_embedding_dimension() if len(places) == 1 else 0  # type: ignore[operator]
    states: Any = line[0].get_embedding_dimension()  # type: ignore[operator]
    if width != states or attention_heads < 1 or width % attention_heads:
        raise InputError(
            f"{attention_heads} attention heads cannot share {width or 'no'} pooled dimensions",
            remedy="choose a divisor of the dimensions, or leave `attention_heads` out",
        )
    line[places[0]] = AttentionPooling(width, attention_heads)
    return line


class InteractionStudent:
    """`score` is the head's logit of two vectors, `vector` their cosine or dot product."""

    temperature = 1.0  # of the logits

    def __init__(self, model: InteractionEncoder) -> None:
        self.model = model
        self.similarity = similarity_of(model)

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """`vector (n, D)`, of unit length where the similarity is cosine, as an index holds it."""
        vector = embed(self.model, dict(features))
        unit = self.similarity == "cosine"
        return {"vector": nn.functional.normalize(vector, dim=-1) if unit else vector}

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """`score` and `vector` (B, M); with `dimensions` only the latter: the head needs all."""
        query, document = queries["vector"], documents["vector"]
        plain = score_matrix(query[:, :dimensions], document[:, :dimensions], self.similarity)
        if dimensions is not None:
            return {"vector": plain}
        return {"score": self.model.heads.score(query, document), "vector": plain}

    def features(
        self, queries: Representations, documents: Representations, columns: Tensor
    ) -> Tensor:
        """Return the input (B, N, K) of the head's logit for each query's own candidates.

        Args:
            columns: rows of `documents` that are each query's candidates, (B, N).
        """
        slates = documents["vector"][columns]  # (B, N, D)
        return self.model.heads.features(queries["vector"][:, None], slates).float()


@torch.no_grad()
def score_vectors(
    model: InteractionEncoder, queries: np.ndarray, documents: np.ndarray
) -> np.ndarray:
    """Score pre-computed vectors (Q, D) and (M, D), as from `encode`, with the head: (Q, M).

    Example:
        >>> model = InteractionEncoder("my-student")                         # doctest: +SKIP
        >>> ids = run["q1"][:100]                # found by the vectors alone  # doctest: +SKIP
        >>> score_vectors(model, query[None], vectors[ids])[0].argsort()[::-1]  # doctest: +SKIP
    """
    tensors = [
        torch.as_tensor(v, dtype=model.dtype, device=model.device) for v in (queries, documents)
    ]
    if similarity_of(model) == "cosine":
        tensors = [nn.functional.normalize(vectors, dim=-1) for vectors in tensors]
    return model.heads.score(*tensors).cpu().numpy()
