"""What a query is searched with: an index with its model, BM25, and all of them fused.

A tokenizer may be used by one thread at a time, so each model has a lock around its encoding.
Searching encoded queries needs none.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from retrieval_kd.data.texts import Texts
from retrieval_kd.indexing.index import Hits, Index, read_manifest
from retrieval_kd.retrieval.bm25 import BM25
from retrieval_kd.retrieval.fuse import fuse_lists
from retrieval_kd.retrieval.hybrid_folder import Part, open_bm25
from retrieval_kd.serving.marks import Matched, sparse_matches, token_matches

BM25_NAME, HYBRID = "bm25", "hybrid"
FUSED = 100  # documents of each list that are fused
Lists = Mapping[str, Mapping[str, float]]
Fuse = Callable[[Lists, int], dict[str, float]]
"""Fuses a query's lists, by system, of at most so many documents each."""
MOST_LOOKED = 10_000  # best documents among which those with a prefix are looked for


@dataclass(frozen=True)
class Found:
    """A system's best documents and what they cost in milliseconds.

    `complete` is False if documents with the prefix may be missing: only the best `MOST_LOOKED`
    were looked through, or an approximate index did not give more.
    """

    hits: Hits
    encode_ms: float
    search_ms: float
    complete: bool = True


class Filter(NamedTuple):
    """A beginning of document IDs, how many have it, and how many documents there are."""

    prefix: str
    matching: int
    documents: int


class Identifiers:
    """The documents' IDs, to count those with a prefix."""

    def __init__(self, texts: Texts) -> None:
        self._ids = pa.array(texts.ids(), pa.large_string())

    def with_prefix(self, prefix: str) -> Filter | None:
        """Return the filter; None for the empty prefix, which all IDs have."""
        if not prefix:
            return None
        matching = pc.sum(pc.starts_with(self._ids, prefix)).as_py() or 0
        return Filter(prefix, matching, len(self._ids))


class IndexSystem:
    """An index folder under its name. Its kind and description are known before it is loaded."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.manifest = read_manifest(folder)
        kind = self.manifest["spec"].get("kind", "faiss")
        self.kind = "dense" if kind == "faiss" else str(kind)
        self._lock = threading.Lock()

    @property
    def about(self) -> str:
        """Its model and its index."""
        spec = self.manifest["spec"]
        how = spec.get("factory") or spec.get("engine", "exact")
        if spec.get("bits"):
            how = f"{spec['bits']} bits, pool {spec['pool']:g}"
        return f"{self.kind}, {how}: {Path(str(self.manifest['model'])).name}"

    @property
    def exact(self) -> bool:
        """Whether a search compares the query with every document."""
        spec = self.manifest["spec"]
        if self.kind == "dense":
            return re.fullmatch(r"Flat|SQ\w+", spec["factory"]) is not None
        return not (spec.get("bits") or spec.get("engine"))

    def load(self) -> None:
        """Open the index, load its model, and search once, so that nothing is left to load."""
        self.index = Index.open(self.folder)
        self.search("a first query", 1, None)

    def search(self, query: str, depth: int, filter: Filter | None) -> Found:
        """Return the best documents; without a filter those of `Index.search`."""
        with self._lock:
            start = time.perf_counter()  # not the wait for other queries
            encoded = self.index.encode([query])
            middle = time.perf_counter()
        hits, complete = _filtered(
            lambda depth: self.index.search_vectors(encoded, depth)[0], depth, filter, self.exact
        )
        return Found(hits, *_milliseconds(start, middle), complete)

    def matches(self, query: str, texts: Sequence[str]) -> list[Matched] | None:
        """Return what matched in each text; None for a dense model, which compares no words."""
        prompts = self.manifest["query_prompt"], self.manifest.get("document_prompt")
        model: Any = self.index.model
        if self.kind == "sparse":
            with self._lock:
                encoded = self.index.encode([query])
                return [sparse_matches(model, encoded, text, prompts[1]) for text in texts]
        if self.kind == "multi_vector":
            with self._lock:
                return [token_matches(model, query, text, *prompts) for text in texts]
        return None


class BM25System:
    """BM25 over the documents of the indexes: the part of a hybrid index, or one in the cache."""

    kind = BM25_NAME
    about = "words, stemmed"

    def __init__(self, part: Part | None = None, folder: Path | None = None) -> None:
        self.name, self._part, self._folder = part.name if part else BM25_NAME, part, folder

    def load(self, texts: Texts) -> None:
        """Open the index; one in the cache is built if it is missing."""
        if self._part is None or self._folder is None:
            self.index = BM25.open(texts)
        else:
            self.index = open_bm25(self._folder, texts, self._part)

    def search(self, query: str, depth: int, filter: Filter | None) -> Found:
        """Return the best documents that share a term with the query."""
        start = time.perf_counter()
        hits, complete = _filtered(
            lambda depth: list(self.index.search(query, depth).items()), depth, filter, True
        )
        return Found(hits, *_milliseconds(start, start), complete)


def by_rank(lists: Lists, asked: int) -> dict[str, float]:
    """Fuse lists by reciprocal rank."""
    return fuse_lists(list(lists.values()), [1.0] * len(lists), "ranks")


def fused(found: dict[str, Found], depth: int, asked: int, fuse: Fuse = by_rank) -> Found:
    """Fuse lists of at most `asked` documents; its time is theirs together, and the fusion's."""
    start = time.perf_counter()
    lists = {name: dict(one.hits) for name, one in found.items()}
    hits = list(fuse(lists, asked).items())[:depth]
    spent = 1000 * (time.perf_counter() - start)
    encode = sum(one.encode_ms for one in found.values())
    search = sum(one.search_ms for one in found.values()) + spent
    return Found(hits, encode, search, all(one.complete for one in found.values()))


def _filtered(
    find: Callable[[int], Hits], depth: int, filter: Filter | None, exact: bool
) -> tuple[Hits, bool]:
    """Find the best `depth` documents with a prefix by looking through more and more of the best.

    Returns them, and whether no document that should be among them is missing.
    """
    if filter is None:
        return find(depth), True
    wanted = min(depth, filter.matching)
    if not wanted:
        return [], True
    share = filter.matching / filter.documents
    looked = max(depth, math.ceil(1.5 * wanted / share))  # enough if they are spread evenly
    while True:
        looked = min(looked, MOST_LOOKED, filter.documents)
        hits = find(looked)
        kept = [hit for hit in hits if hit[0].startswith(filter.prefix)][:wanted]
        if len(kept) == wanted:
            return kept, True
        if len(hits) < looked or looked == filter.documents:
            return kept, exact  # an approximate index does not find the others
        if looked == MOST_LOOKED:
            return kept, False
        looked *= 8


def _milliseconds(start: float, middle: float) -> tuple[float, float]:
    return 1000 * (middle - start), 1000 * (time.perf_counter() - middle)
