"""The residual student: a frozen encoder, and a table of token vectors for what it misses.

A dense encoder blurs rare words, names and numbers, which BM25 gets right. Here each token has a
random vector, and the sum of a document's, with BM25's weights, is a sketch of its BM25 vector: the
inner product with a query's sum is the BM25 score up to noise of order 1/√D. Training weighs the
words and the two halves. Nothing is encoded again, and one FAISS index holds both halves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.models.load import load_encoder, model_digest
from retrieval_kd.models.modules.residual import ResidualEncoder
from retrieval_kd.models.modules.token_table import (
    ResidualEmbedding,
    TokenBags,
    TokenTable,
    words_of,
)
from retrieval_kd.students.dense import Representations, prompts_of
from retrieval_kd.students.static import inverse_frequencies, random_vectors, tokenizer_of
from retrieval_kd.students.tables import FrozenModel, Halves

DIMENSIONS = 1024
COSINE, WORDS = 20.0, 0.2  # weights of the cosine and of the BM25 score at the start


def make_residual(
    model_spec: str,
    documents: Texts,
    *,
    dimensions: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
    train_vectors: bool = False,
) -> ResidualEncoder:
    """Put a table of token vectors beside an encoder, or load a residual student.

    Args:
        model_spec: a dense encoder, which stays as it is, or a saved residual student.
        documents: the texts in which tokens are counted, for their first weights.
        dimensions: of the token vectors; by default 1,024. They are added to the encoder's.
        max_length: tokens that the encoder reads; the table reads all.
        seed: for the vectors.
        train_vectors: train the vectors too, not only their weights and the scale. It did not
            help (docs/experiments/adaptation.md).
    """
    model = load_encoder(model_spec, max_length=max_length, dtype=torch.float32)
    made = model if isinstance(model, ResidualEncoder) else None
    if made is None:
        made = _new(model, model_spec, documents, dimensions or DIMENSIONS, seed)
    made.embedding.table.vectors.requires_grad_(train_vectors)
    return made


def _new(
    encoder: Any, model_spec: str, documents: Texts, dimensions: int, seed: int
) -> ResidualEncoder:
    tokenizer = tokenizer_of(encoder, model_spec)
    vectors = random_vectors(words_of(tokenizer), dimensions, seed)
    bags = TokenBags.of_texts(tokenizer, (document.full for document in documents.iterate()))
    weights = np.sqrt(WORDS * inverse_frequencies(bags, len(vectors)))
    module = ResidualEmbedding(
        encoder,
        tokenizer,
        TokenTable(torch.from_numpy(vectors), torch.from_numpy(weights)),
        scale=COSINE**0.5,
        mean_length=float(bags.lengths.mean()),
        base_digest=model_digest(model_spec),
    )
    module.base_spec = model_spec
    return ResidualEncoder(
        modules=[module],
        similarity_fn_name="dot",
        prompts=prompts_of(encoder),
        default_prompt_name=encoder.default_prompt_name,
        device=str(encoder.device),
    ).eval()


class ResidualStudent:
    """Scores are inner products: scale² · cosine of the encoder + Σ over tokens of the table."""

    temperature = 1.0

    def __init__(self, model: ResidualEncoder) -> None:
        self.model, self.words = model, model.embedding
        words = self.words
        self.frozen = FrozenModel(
            words.base_spec, words.base_digest, max_length=words.encoder.max_seq_length
        )
        self.halves = Halves(
            words.table.vectors.shape[1], (words.log_scale, words.table.log_weights)
        )

    @property
    def vectors(self) -> list[nn.Parameter]:
        """The parameters trained with the common learning rate."""
        return [p for p in [self.words.table.vectors] if p.requires_grad]

    @property
    def weights(self) -> list[nn.Parameter]:
        """The parameters trained with the learning rate of heads."""
        return [self.words.table.log_weights, self.words.log_scale]

    def bags(self, texts: Any, side: str) -> TokenBags:
        """Return the tokens of texts; a document's are weighted as BM25 weighs them."""
        return self.words.bags(texts, side)

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """`vector (n, D' + D)`; `features` has the encoder's vectors as "base"."""
        return {"vector": self.words.join(features["base"], features)}

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """`score (B, M)`. The first `dimensions` alone would be a part of the encoder: refused."""
        if dimensions is not None:
            raise InputError(
                "a residual student's vector cannot be cut to its first dimensions",
                remedy="leave the dimensions out",
            )
        return {"score": queries["vector"] @ documents["vector"].T}

    def settle(self) -> None:
        """Do nothing: the model's own weights are the trained ones."""
