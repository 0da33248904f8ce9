"""BM25 with bm25s: a cached index, runs, and exact scores of given pairs.

The index is NumPy arrays and JSON, cached under a key of the texts' digest and all parameters.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import bm25s
import numpy as np
from bm25s.tokenization import Tokenized
from pydantic import BaseModel, ConfigDict, Field

from retrieval_kd.data.runs import Run
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import cache_dir, cached, digest_json, seal
from retrieval_kd.indexing.topk import Ranking, top_k
from retrieval_kd.progress import bar
from retrieval_kd.retrieval.analysis import VERSION, Analysis, Analyzer

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection


class BM25Parameters(BaseModel):
    """Everything but the texts that decides a BM25 score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k1: float = Field(default=1.5, ge=0, description="how slowly repeated terms saturate (no unit)")
    b: float = Field(default=0.75, ge=0, le=1, description="length normalisation: 0 none, 1 full")
    method: Literal["lucene", "robertson", "atire"] = Field(
        default="lucene", description="the variant of BM25, by bm25s's name"
    )
    analysis: Analysis = Field(default=Analysis(), description="how texts become terms")

    def key(self) -> list[Any]:
        """Return all that decides a score of given texts, for digests."""
        return [VERSION, bm25s.__version__, self.model_dump()]


DEFAULT = BM25Parameters()
"""The defaults of bm25s: k1 1.5, b 0.75, its English stop words, Snowball's English stemmer."""

LUCENE = BM25Parameters(
    k1=0.9, b=0.4, analysis=Analysis(stemmer="porter", stop_words="lucene", words="standard")
)
"""Anserini's for BEIR: k1 0.9, b 0.4, Lucene's 33 stop words, Porter's stemmer."""


def for_language(language: str, parameters: BM25Parameters = DEFAULT) -> BM25Parameters:
    """Use a different language's stemmer and stop words; "none" uses neither.

    Example:
        >>> for_language("german").analysis.stemmer
        'german'
    """
    stop_words: Literal["bm25s", "none"] = "none" if language == "none" else "bm25s"
    analysis = parameters.analysis.model_copy(
        update={"stemmer": language, "stop_words": stop_words}
    )
    return parameters.model_copy(update={"analysis": analysis})


class BM25:
    """A memory-mapped BM25 index of one collection's documents."""

    def __init__(self, folder: Path, texts: Texts, parameters: BM25Parameters) -> None:
        self.folder, self.texts, self.parameters = folder, texts, parameters
        self._index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        self._analyzer = Analyzer(parameters.analysis, self._index.vocab_dict)

    @classmethod
    def open(cls, texts: Texts, parameters: BM25Parameters = DEFAULT) -> BM25:
        """Open the cached index; build it first if it is missing."""
        return cls(_ensure(texts, parameters), texts, parameters)

    def search(self, query: str, depth: int, *, exclude: str | None = None) -> Ranking:
        """Return the best `depth` documents that share a term with the query, or fewer."""
        terms = self._analyzer.query(query)
        if not terms:
            return {}
        scores = self._index.get_scores_from_ids(terms)  # (documents,)
        matching = np.flatnonzero(scores > 0)
        return top_k(scores[matching], depth, self.texts.id_at, positions=matching, exclude=exclude)

    def search_all(self, queries: Sequence[str], depth: int) -> list[list[tuple[str, float]]]:
        """Search for several queries, as `Index.search` does."""
        found = []
        with bar("bm25: searching", len(queries)) as progress:
            for query in queries:
                found.append(list(self.search(query, depth).items()))
                progress.advance()
        return found

    def scores_at(self, query: str, positions: np.ndarray) -> np.ndarray:
        """Score the documents at `positions (n,)`, exactly as `search` does. Returns `(n,)`."""
        columns = self._index.scores
        scores = np.zeros(len(positions), dtype=np.float32)
        for term in self._analyzer.query(query):
            start, stop = columns["indptr"][term], columns["indptr"][term + 1]
            postings = columns["indices"][start:stop]  # ascending positions of documents
            at = np.searchsorted(postings, positions)
            at = np.minimum(at, len(postings) - 1)
            scores += np.where(postings[at] == positions, columns["data"][start:stop][at], 0)
        return scores


def bm25_run(
    collection: Collection,
    queries: Mapping[str, str],
    depth: int = 100,
    *,
    parameters: BM25Parameters = DEFAULT,
    exclude_self: bool = True,
    name: str = "bm25",
) -> Run:
    """Rank all documents for each query (ID → text) and keep the best `depth`.

    A ranking has only documents that share a term with the query, so it may be empty.

    Example:
        >>> collection = open_collection("scifact.zip")                      # doctest: +SKIP
        >>> run = bm25_run(collection, {"1": "0-dimensional biomaterials"})  # doctest: +SKIP
        >>> max(run.results["1"], key=run.results["1"].get)                  # doctest: +SKIP
        '31715818'
    """
    index = BM25.open(collection.documents, parameters)
    results = {}
    with bar(f"{name}: searching", len(queries)) as progress:
        for query_id, text in queries.items():
            exclude = query_id if exclude_self else None
            results[query_id] = index.search(text, depth, exclude=exclude)
            progress.advance()
    return Run(name, results)


def bm25_scores(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
    *,
    parameters: BM25Parameters = DEFAULT,
) -> dict[str, dict[str, float]]:
    """Score given documents exactly: query ID → document ID → score (0: no shared term).

    Raises:
        InputError: a candidate is not in the collection, or its query has no text.
    """
    index = BM25.open(collection.documents, parameters)
    results = {}
    for query_id, ids in candidates.items():
        text, positions = locate(collection.documents, queries, query_id, ids)
        results[query_id] = dict(zip(ids, index.scores_at(text, positions).tolist(), strict=True))
    return results


def locate(
    texts: Texts, queries: Mapping[str, str], query_id: str, ids: Sequence[str]
) -> tuple[str, np.ndarray]:
    """Look up a query's text and its candidates' positions `(n,)`; unknown IDs are errors."""
    if query_id not in queries:
        raise InputError("candidates for a query without text", id=query_id)
    return queries[query_id], np.array([texts.position(id) for id in ids], dtype=np.int64)


def write_bm25(texts: Texts, parameters: BM25Parameters, folder: Path) -> None:
    """Build the index of these texts in a folder, and seal it."""
    _build(texts, parameters).save(folder, show_progress=False)
    seal(folder)


def _ensure(texts: Texts, parameters: BM25Parameters) -> Path:
    """Return the folder of the cached index; build the index if it is missing or damaged."""
    key = digest_json([1, texts.digest, *parameters.key()])

    def build(folder: Path) -> None:
        _build(texts, parameters).save(folder, show_progress=False)

    return cached(cache_dir() / "bm25" / key, build)


def _build(texts: Texts, parameters: BM25Parameters) -> bm25s.BM25:
    analyzer = Analyzer(parameters.analysis)
    terms = []
    with bar("bm25: indexing", len(texts)) as progress:
        for ids in analyzer.documents(document.full for document in texts.iterate()):
            terms.append(array("i", ids))  # 4 bytes a term; the texts are not kept
            progress.advance()
    if not analyzer.vocabulary:
        raise InputError(
            "no document has a word that BM25 could search for",
            remedy="check the documents' texts and the language",
        )
    index = bm25s.BM25(k1=parameters.k1, b=parameters.b, method=parameters.method)
    index.index(
        Tokenized(ids=terms, vocab=analyzer.vocabulary),
        create_empty_token=False,
        show_progress=False,
    )
    return index
