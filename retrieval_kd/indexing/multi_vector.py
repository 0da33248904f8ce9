"""The exact index of a multi-vector model: all token vectors, and where each document begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.data.texts import Texts
from retrieval_kd.models.encode import (
    Shard,
    encode_shards,
    merge_arrays,
    read_arrays,
    save_array,
)
from retrieval_kd.models.vectors import Tokens, maxsim_scores, token_rows

TOKENS, OFFSETS = "tokens.npy", "offsets.npy"
FILES = (TOKENS, OFFSETS)
CHUNK = 2_048  # documents read at a time
QUERIES = 32  # queries compared at a time


def write(model: Any, texts: Texts, out: Path, prompt: str | None, inputs: Any) -> dict[str, Any]:
    """Encode all documents and write the index. Returns manifest entries.

    Vectors are stored in float16. Their components are at most 1, so an error is at most 2⁻¹².
    """
    width = int(model.get_embedding_dimension())
    paths = encode_shards(encoder(model, prompt), texts, out, inputs)
    lengths = np.concatenate([read_arrays(path)["lengths"] for path in paths])
    _save(lengths, (read_arrays(path)["tokens"] for path in paths), width, out)
    return {
        "metric": str(model.similarity_fn_name),
        "dimensions": width,
        "tokens_per_document": round(int(lengths.sum()) / len(texts), 1),
    }


def encoder(model: Any, prompt: str | None) -> Callable[[list[str], int], Shard]:
    """Return what encodes documents for `encode_shards`."""

    def encode(documents: list[str], start: int) -> Shard:
        rows = token_rows(model, documents, "document", prompt=prompt)
        return {
            "lengths": np.array([len(row) for row in rows], dtype=np.int32),
            "tokens": np.concatenate(rows).astype(np.float16),
        }

    return encode


def _save(lengths: np.ndarray, tokens: Iterator[np.ndarray], width: int, out: Path) -> None:
    """Write the index of documents with so many tokens each."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    merge_arrays(out / TOKENS, tokens, (int(offsets[-1]), width), np.float16)
    save_array(out / OFFSETS, offsets)


class TokenVectors:
    """The opened index; token vectors are mapped from disk."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.tokens = np.load(folder / TOKENS, mmap_mode="r", allow_pickle=False)
        self.offsets = np.load(folder / OFFSETS, allow_pickle=False)
        self.prompt = manifest["query_prompt"]
        self.dimensions, self.count = int(self.tokens.shape[1]), len(self.offsets) - 1
        self.rows, self.added = self.count, Tokens()
        self.live = np.ones(self.count, dtype=bool)

    def extend(self, shard: Shard) -> None:
        """Append documents."""
        self.added += np.split(shard["tokens"], np.cumsum(shard["lengths"])[:-1])
        self.count = self.rows + len(self.added)
        self.live = np.ones(self.count, dtype=bool)

    def hide(self, deleted: np.ndarray) -> None:
        """Leave these rows out of all results."""
        self.live[deleted] = False

    def rewrite(self, live: np.ndarray, out: Path) -> None:
        """Write the index of the rows that are `live`."""

        def parts() -> Iterator[np.ndarray]:
            for start in range(0, self.count, CHUNK):
                documents = self.documents(start, min(start + CHUNK, self.count))
                kept = [d for d, keep in zip(documents, live[start:], strict=False) if keep]
                if kept:
                    yield np.concatenate(kept)

        lengths = [*np.diff(self.offsets), *map(len, self.added)]
        _save(np.array(lengths)[live], parts(), self.dimensions, out)

    def encode(self, model: Any, texts: Sequence[str]) -> Tokens:
        """Token vectors of each query."""
        return token_rows(model, texts, "query", prompt=self.prompt)

    def documents(self, start: int, stop: int) -> Tokens:
        """Token vectors of documents `start` up to but without `stop`, in float32."""
        added = self.added[max(0, start - self.rows) : max(0, stop - self.rows)]
        start, stop = min(start, self.rows), min(stop, self.rows)
        offsets = self.offsets[start : stop + 1]
        tokens = np.asarray(self.tokens[offsets[0] : offsets[-1]], dtype=np.float32)
        base = np.split(tokens, offsets[1:-1] - offsets[0]) if start < stop else []
        return [*base, *(document.astype(np.float32) for document in added)]

    def search(self, queries: Tokens, depth: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the positions and scores of all documents for each query."""
        results = []
        for start in range(0, len(queries), QUERIES):
            block = queries[start : start + QUERIES]
            scores = np.concatenate(
                [
                    maxsim_scores(block, self.documents(at, min(at + CHUNK, self.count)))
                    for at in range(0, self.count, CHUNK)
                ],
                axis=1,
            )  # (Q, n)
            rows = np.flatnonzero(self.live)
            results += [(rows, row[rows]) for row in scores]
        return results
