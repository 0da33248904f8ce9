"""The asymmetric student: queries without a transformer, over another model's document vectors.

Documents stay as they are: their vectors come from the cache, and an index that exists is searched
as it is. A query is the weighted sum of its tokens' vectors, which start so that the sum of a
document's tokens is close to its vector. KALE (https://arxiv.org/abs/2304.01016) also trains a
smaller query side over documents that are not encoded again.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.models.encode import document_vectors
from retrieval_kd.models.load import load_encoder, model_digest
from retrieval_kd.models.modules.asymmetric import AsymmetricEncoder
from retrieval_kd.models.modules.residual import ResidualEncoder
from retrieval_kd.models.modules.token_table import TokenBags
from retrieval_kd.students.dense import Representations, prompts_of, similarity_of
from retrieval_kd.students.fit_tokens import drawn, fit_tokens
from retrieval_kd.students.static import (
    inverse_frequencies,
    split_rows,
    token_vectors,
    tokenizer_of,
    usual_length,
)
from retrieval_kd.students.tables import FrozenModel, Halves

WORDS, TEXTS = 16, 1_000  # words of a text, and texts, that stand for queries
DOCUMENT = ("document", "passage", "corpus")  # names of a document's prompt, the first is taken


def make_asymmetric(
    model_spec: str, documents: Texts, *, max_length: int | None = None
) -> AsymmetricEncoder:
    """Put a table of token vectors for queries before a model, or load an asymmetric student.

    A token's vector is fitted to the documents' (`fit_tokens`), from the encoder's vector of the
    token alone, behind the query's prompt. Its weight is idf: not √idf as in `make_static`, since
    documents are not weighted. Over a residual student it has that student's w_t E_t beside it, so
    the sketch of a query's words is exact and only the encoder's half is approximated: it is scaled
    so that the first words of a document have about the length s that it has there.

    Args:
        model_spec: a dense encoder or a residual student, which stays as it is, or a saved
            asymmetric student.
        documents: the texts in which tokens are counted, and whose vectors are fitted.
        max_length: tokens of a document that those vectors read; None: the model's own.
    """
    base = load_encoder(model_spec, dtype=torch.float32)
    if isinstance(base, AsymmetricEncoder):
        return base
    similarity = similarity_of(base)
    words = base.embedding if isinstance(base, ResidualEncoder) else None
    encoder = base if words is None else words.encoder
    digest, prompts = model_digest(model_spec), prompts_of(base)
    default = prompts.get(base.default_prompt_name or "", "")
    tokenizer = tokenizer_of(encoder, model_spec)
    vectors = token_vectors(
        encoder,
        model_spec,
        digest=digest if words is None else words.base_digest,
        prompt=prompts.get("query", default),
    )
    bags = TokenBags.of_texts(tokenizer, (document.full for document in documents.iterate()))
    idf = inverse_frequencies(bags, len(vectors))  # (V,)
    targets = document_vectors(model_spec, documents, max_length=max_length)
    width = min(vectors.shape[1], targets.shape[1])  # a base may keep only its first dimensions
    at = drawn(len(bags))
    fitted = fit_tokens(vectors[:, :width], idf, bags, at, targets[at, :width])
    rows = fitted * idf[:, None]  # (V, D')
    if words is not None:
        exact = words.table.folded().numpy()  # (V, D)
        texts = (" ".join(d.full.split()[:WORDS]) for d in islice(documents.iterate(), TEXTS))
        short = TokenBags.of_texts(tokenizer, texts)
        scale = words.log_scale.exp().item() / usual_length(rows, short)
        rows = np.concatenate([scale * rows, exact], axis=1)
    modules: list[Any] = list(base.requires_grad_(False).children())
    table: Any = StaticEmbedding(tokenizer, embedding_weights=rows.astype(np.float32))
    document = next((prompts[name] for name in DOCUMENT if name in prompts), default)
    return AsymmetricEncoder(
        modules=[
            Router.for_query_document(
                query_modules=[table],
                document_modules=modules,
            )
        ],
        similarity_fn_name=similarity,
        prompts={"query": "", "document": document},  # the table has read the query's
        truncate_dim=base.truncate_dim,
        device=str(base.device),
        document_digest=digest,
        base_spec=model_spec,
    ).eval()


class AsymmetricStudent:
    """Scores are the base's, of its document vectors and the sums of a query's token vectors.

    `table` has the vectors and weights that stand for the encoder. Over a residual student `words`
    is its table beside them, of which only the weights are trained.
    """

    def __init__(self, model: AsymmetricEncoder) -> None:
        self.model, self.module = model, model.queries
        self.similarity = similarity_of(model)
        self.temperature = {"cosine": 0.05, "dot": 1.0}[self.similarity]
        rows = self.module.embedding.weight.detach().float()  # (V, D) or (V, D' + D)
        base, self.words = model.residual, None
        self.frozen = FrozenModel(model.base_spec, of_queries=False)
        self.halves: Halves | None = None
        width = rows.shape[1]
        if base is not None:
            width -= base.table.vectors.shape[1]
            self.words = split_rows(rows[:, width:])
            self.words.vectors.requires_grad_(False)
        self.table = split_rows(rows[:, :width])
        if self.words is not None:
            weights = self.table.log_weights, self.words.log_weights
            self.halves = Halves(rows.shape[1] - width, weights, sides=("query",))

    @property
    def vectors(self) -> list[nn.Parameter]:
        """The parameters trained with the common learning rate."""
        return [self.table.vectors]

    @property
    def weights(self) -> list[nn.Parameter]:
        """The parameters trained with the learning rate of heads."""
        own = [self.table.log_weights]
        return own if self.words is None else [*own, self.words.log_weights]

    def bags(self, texts: Iterable[str], side: str) -> TokenBags | None:
        """Return the tokens of queries; of documents none are read."""
        return TokenBags.of_texts(self.module.tokenizer, texts) if side == "query" else None

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """`vector (n, D)`; of documents, `features` has only the base's vectors as "base"."""
        if side == "document":
            vectors = features["base"]
            if self.similarity == "cosine":
                vectors = nn.functional.normalize(vectors, dim=-1)
            return {"vector": vectors}
        tables = [self.table] if self.words is None else [self.table, self.words]
        return {"vector": torch.cat([table(features) for table in tables], dim=1)}

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """`score (B, M)`. Documents are never cut, so `dimensions` are refused."""
        if dimensions is not None:
            raise InputError(
                "an asymmetric student's vector cannot be cut: its documents are another model's",
                remedy="leave the dimensions out",
            )
        vectors = queries["vector"]
        if self.similarity == "cosine":  # a document's has unit length, and may be on disk
            vectors = nn.functional.normalize(vectors, dim=-1)
        return {"score": vectors @ documents["vector"].T}

    def settle(self) -> None:
        """Write the trained vectors, times their weights, into the model."""
        rows = [self.table.folded(), *([] if self.words is None else [self.words.folded()])]
        self.module.embedding.weight.data = torch.cat(rows, dim=1)
