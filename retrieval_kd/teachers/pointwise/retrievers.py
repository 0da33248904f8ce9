"""First-stage retrievers as teachers: BM25, dense, sparse and multi-vector models.

They are weak teachers alone, but strong ones when fused with each other or with a cross-encoder,
and they cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import vstack
from sentence_transformers import SentenceTransformer

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.models.encode import (
    document_vectors,
    encode_queries,
    finish,
    is_encoded,
    normalises,
)
from retrieval_kd.models.encode_texts import encode_document_texts
from retrieval_kd.models.graphs import chosen_backend, precision
from retrieval_kd.models.load import (
    document_digest,
    kind_of,
    load_encoder,
    load_retriever,
    may_be_splade,
    model_digest,
)
from retrieval_kd.models.modules.asymmetric import document_side
from retrieval_kd.models.vectors import maxsim_scores, sparse_rows, token_rows, warn_of_zeros
from retrieval_kd.retrieval.analysis import VERSION
from retrieval_kd.retrieval.bm25 import DEFAULT, LUCENE, BM25Parameters, bm25_scores
from retrieval_kd.store.key import TeacherKey

MOST_CACHED = 20_000  # most documents whose representations are kept for the next queries
WHOLE = 20_000  # most documents of a collection that is encoded as a whole, for later searches


class BM25Teacher:
    """BM25 over one collection. Its scores depend on the whole corpus, so its key does too."""

    def __init__(self, collection: Collection, *, lucene: bool = False) -> None:
        self.collection = collection
        self.name = "bm25-lucene" if lucene else "bm25"
        self.parameters: BM25Parameters = LUCENE if lucene else DEFAULT

    @property
    def key(self) -> TeacherKey:
        parameters = self.parameters.model_dump_json()
        digest = digest_text(str(VERSION), parameters, self.collection.documents.digest)
        return TeacherKey(kind="pointwise", model=self.name, digest=digest)

    def score(self, queries: Sequence[str], documents: Sequence[Document]) -> np.ndarray:
        """BM25 scores (n,) float32 of n pairs; 0 where no term is shared."""
        ids: dict[str, list[str]] = {}
        for query, document in zip(queries, documents, strict=True):
            ids.setdefault(query, []).append(document.id)
        scores = bm25_scores(self.collection, {q: q for q in ids}, ids, parameters=self.parameters)
        pairs = zip(queries, documents, strict=True)
        return np.array([scores[q][d.id] for q, d in pairs], dtype=np.float32)


class DenseTeacher:
    """A Sentence Transformers bi-encoder: the similarity of the two vectors.

    In a collection of more than 20,000 documents only those to be scored are encoded, unless all
    vectors are cached.
    """

    def __init__(
        self, collection: Collection, model_spec: str, *, max_length: int | None = None
    ) -> None:
        self.collection, self.model_spec, self.max_length = collection, model_spec, max_length
        self._digest = model_digest(model_spec)
        self._model: SentenceTransformer | None = None
        self._cache = RepresentationCache(self._encode)
        self._whole: np.memmap | None = None  # vectors of all documents, verified once

    @property
    def key(self) -> TeacherKey:
        return TeacherKey(
            kind="pointwise",
            model=f"dense:{self.model_spec}",
            digest=digest_text("dense", self._digest),
            max_length=self.max_length,
            dtype=precision(chosen_backend(), fast_dtype()),
        )

    def score(self, queries: Sequence[str], documents: Sequence[Document]) -> np.ndarray:
        """Cosine or dot product (n,) float32 of n pairs, whichever the model was trained for."""
        if self._model is None:
            self._model = load_encoder(self.model_spec, max_length=self.max_length)
        distinct = list(dict.fromkeys(queries))
        row = {query: i for i, query in enumerate(distinct)}
        encoded = encode_queries(self._model, distinct)  # (queries, D)
        left = encoded[[row[q] for q in queries]]  # (n, D)
        return np.einsum("nd,nd->n", left, self._vectors(documents)).astype(np.float32)

    def _vectors(self, documents: Sequence[Document]) -> np.ndarray:
        """A vector per document, (n, D)."""
        texts, length = self.collection.documents, self.max_length
        if self._whole is None:
            if len(texts) > WHOLE and not is_encoded(self.model_spec, texts, max_length=length):
                cached = self._cache.of([document.full for document in documents])
                return np.stack([cached[document.full] for document in documents])
            self._whole = document_vectors(self.model_spec, texts, max_length=length)
        return self._whole[np.array([texts.position(d.id) for d in documents], dtype=np.int64)]

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        assert self._model is not None
        model = document_side(self._model)
        vectors = encode_document_texts(model, texts, None, document_digest(self.model_spec))
        warn_of_zeros(self._model, ~vectors.any(axis=1), "document")
        return finish(vectors, normalises(self._model))


class RepresentationCache:
    """A cache of document representations: the next queries share many documents."""

    def __init__(self, encode: Callable[[Sequence[str]], Iterable[Any]]) -> None:
        self._encode = encode
        self._of_text: dict[str, Any] = {}

    def of(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return a mapping of text → representation that contains these texts."""
        if len(self._of_text) > MOST_CACHED:
            self._of_text.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._of_text]
        if new:
            self._of_text |= zip(new, self._encode(new), strict=True)
        return self._of_text


class RetrieverTeacher:
    """A sparse or a multi-vector model: the dot product of word weights, or MaxSim over tokens.

    Only the documents to be scored are encoded. A plain transformer with its word head, named as
    sparse, is a SPLADE model: the maximum over a text's tokens.

    Args:
        kind: "sparse" or "multi_vector".
        max_length: tokens of a text; the model's own by default.

    Raises:
        InputError: the model is of a different kind; loaded as this kind it would have
            random weights.
    """

    def __init__(self, kind: str, model_spec: str, *, max_length: int | None = None) -> None:
        self.kind, self.model_spec, self.max_length = kind, model_spec, max_length
        splade = kind == "sparse" and may_be_splade(model_spec)
        if (saved := kind_of(model_spec)) != kind and not splade:
            raise InputError(
                f"this model is not {kind} but {saved}",
                id=model_spec,
                remedy=f"score with {saved}:MODEL",
            )
        self._digest = model_digest(model_spec)
        self._model: Any = None
        self._cache = RepresentationCache(lambda texts: self._encode(texts, "document"))

    @property
    def key(self) -> TeacherKey:
        return TeacherKey(
            kind="pointwise",
            model=f"{self.kind}:{self.model_spec}",
            digest=digest_text(self.kind, self._digest),
            max_length=self.max_length,
            dtype=dtype_name(fast_dtype()),
        )

    def score(self, queries: Sequence[str], documents: Sequence[Document]) -> np.ndarray:
        """Scores (n,) float32 of n pairs."""
        encoded = dict(zip(dict.fromkeys(queries), self._encode(queries, "query"), strict=True))
        cached = self._cache.of([document.full for document in documents])
        scores = np.empty(len(queries), dtype=np.float32)
        for query, own in encoded.items():
            rows = [row for row, other in enumerate(queries) if other == query]
            representations = [cached[documents[row].full] for row in rows]
            if self.kind == "sparse":
                scores[rows] = (own @ vstack(representations).T).toarray()[0]
            else:
                scores[rows] = maxsim_scores([own], representations)[0]
        return scores

    def _encode(self, texts: Sequence[str], side: str) -> Any:
        """A row of weights (1, V), or vectors (tokens, D), of each distinct text."""
        distinct = list(dict.fromkeys(texts))
        if self._model is None:
            length = self.max_length
            self._model = load_retriever(self.model_spec, max_length=length, kind=self.kind)
        rows = sparse_rows if self.kind == "sparse" else token_rows
        return rows(self._model, distinct, side)
