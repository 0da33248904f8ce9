"""The multi-vector student: one vector per token (ColBERT, https://arxiv.org/abs/2004.12832)."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Normalize
from sentence_transformers.util import maxsim
from torch import Tensor, nn
from torch.nn.functional import normalize

from retrieval_kd.errors import InputError
from retrieval_kd.models.load import load_encoder
from retrieval_kd.students.dense import Representations, prompts_of

DIMENSIONS = 128  # of a token's vector, as in ColBERT


def make_multi_vector(
    model_spec: str,
    *,
    dimensions: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
) -> MultiVectorEncoder:
    """Make a float32 multi-vector student from a dense encoder: projected tokens of unit length.

    The projection starts as random orthonormal rows, which keep angles between tokens as well as a
    random map can, and exactly if no dimension is lost. The pooling is dropped; prompts and the
    maximum length stay.

    Args:
        dimensions: size of each token's vector; by default 128, or the encoder's if it has fewer.
        seed: for the projection.

    Raises:
        InputError: more dimensions than the encoder has.
    """
    encoder = load_encoder(model_spec, max_length=max_length, dtype=torch.float32)
    transformer: Any = encoder[0]
    hidden = int(transformer.get_embedding_dimension())
    wanted = dimensions or min(DIMENSIONS, hidden)
    if wanted > hidden:
        raise InputError(
            f"{wanted} dimensions cannot be projected from the {hidden} of {model_spec}",
            remedy=f"set student.dimensions to at most {hidden}",
        )
    start = torch.empty(wanted, hidden)  # (D, H)
    nn.init.orthogonal_(start, generator=torch.Generator().manual_seed(seed))
    projection = Dense(
        hidden,
        wanted,
        bias=False,
        activation_function=nn.Identity(),
        init_weight=start,
        module_input_name="token_embeddings",
    )
    made = MultiVectorEncoder(
        modules=[
            transformer,
            projection,
            MultiVectorMask(),
            Normalize(module_input_name="token_embeddings"),
        ],
        device=str(encoder.device),
        prompts=prompts_of(encoder),
        similarity_fn_name="maxsim",
    )
    return made.eval()


class MultiVectorStudent:
    """A score is the sum, over a query's tokens, of the best similarity with a document's token.

    It grows with the query's length, so its softmax needs no small temperature.
    """

    temperature = 1.0

    def __init__(self, model: MultiVectorEncoder) -> None:
        self.model = model

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """`tokens (n, L, D)` and `present (n, L)`, true where a token counts in the score."""
        return tokens_of(self.model(dict(features), task=side))

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """`score (B, M)`."""
        return {"score": max_similarity(queries, documents, dimensions)}


def tokens_of(output: dict[str, Tensor]) -> Representations:
    """Name the parts of a multi-vector model's output as students represent them."""
    return {
        "tokens": output["token_embeddings"].float(),  # (n, L, D)
        "present": output["attention_mask"].bool(),  # (n, L)
    }


def max_similarity(
    queries: Representations,
    documents: Representations,
    dimensions: int | None = None,
    *,
    mean: bool = False,
) -> Tensor:
    """Sum or mean over a query's tokens of the best cosine with a document's token, (B, M).

    Args:
        queries, documents: unit vectors `tokens (n, L, d)`; those that are `present (n, L)` count.

    Example:
        >>> query = {"tokens": torch.eye(2)[None], "present": torch.tensor([[True, True]])}
        >>> document = {"tokens": torch.eye(2)[None], "present": torch.tensor([[True, False]])}
        >>> max_similarity(query, document, mean=True).item()
        0.5
    """
    query, document = queries["tokens"], documents["tokens"]
    if dimensions is not None:
        query = normalize(query[..., :dimensions], dim=-1)  # (B, L, d)
        document = normalize(document[..., :dimensions], dim=-1)  # (M, L', d)
    return maxsim(
        query,
        document,
        a_mask=queries["present"],
        b_mask=documents["present"],
        length_normalize=mean,
    )
