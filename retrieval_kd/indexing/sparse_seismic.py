"""The approximate index of a sparse model, for collections where the exact one is slow: Seismic.

Seismic ([2404.18812](https://arxiv.org/abs/2404.18812), the package `pyseismic-lsr`) groups each
word's documents into blocks with a summary, and a query reads only the blocks that can hold a hit.
The folder has one file in its binary format, in which weights have 16 bits. The same rows give the
same bytes. Documents that were added are compared with every query until the index is compacted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_matrix

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_path
from retrieval_kd.indexing import sparse
from retrieval_kd.indexing.segments import Layout
from retrieval_kd.indexing.spec import SEISMIC_BUILD, SEISMIC_SEARCH, seismic_parameters
from retrieval_kd.models.encode import Shard, encode_shards, read_arrays
from retrieval_kd.models.vectors import sparse_rows, sparse_scores, sparse_width

INDEX = "index.seismic"
FILES = (INDEX,)
CHUNK = 4_096  # documents read back at a time
SHORT = 2**16  # words of a vocabulary whose numbers have 16 bits


def write(model: Any, texts: Texts, out: Path, prompt: str | None, inputs: Any) -> dict[str, Any]:
    """Encode all documents and write the index. Returns manifest entries."""
    width = sparse_width(model)
    shards = {**inputs, "spec": "sparse"}  # other settings of Seismic need no other shards
    paths = encode_shards(sparse.encoder(model, prompt), texts, out, shards)
    rows = (sparse.matrix(read_arrays(path), width) for path in paths)
    words = write_rows(rows, width, inputs["spec"]["build"], out)
    return {
        "metric": "dot",
        "dimensions": width,
        "words_per_document": round(words / len(texts), 1),
    }


def write_rows(rows: Iterable[csr_matrix], width: int, build: str, out: Path) -> int:
    """Write the index of word weights `(n, V)`, given in parts. Returns the number of weights.

    Seismic reads them from a file, which is written beside the index and removed.
    """
    settings = seismic_parameters(build, SEISMIC_BUILD)
    kept = settings.pop("kept")
    count = words = 0
    with (
        atomic_path(out / INDEX) as temporary,
        tempfile.NamedTemporaryFile(dir=out, prefix=f".{INDEX}.", suffix=".part") as file,
    ):
        file.write(bytes(4))
        for part in rows:
            file.write(_packed(part).tobytes())
            count, words = count + part.shape[0], words + part.nnz
        file.seek(0)
        file.write(np.array(count, "<u4").tobytes())
        file.flush()
        postings = max(1, round(kept * words / width))  # of a word, on average
        with _quiet(), _named(out / INDEX, "write"):
            made = _kind(width).build(file.name, n_postings=postings, **settings)
            made.save(str(temporary))
    return words


def _packed(rows: csr_matrix) -> np.ndarray:
    """Lay out documents as Seismic reads them: for each its length, its words, their weights.

    Example:
        >>> _packed(csr_matrix(np.array([[0, 2], [0, 0]], np.float32))).tolist()
        [1, 1, 1073741824, 0]
    """
    lengths = np.diff(rows.indptr)
    block = np.zeros(len(lengths) + 2 * rows.nnz, "<u4")
    block[np.arange(len(lengths)) + 2 * rows.indptr[:-1]] = lengths
    row = np.repeat(np.arange(len(lengths)), lengths)
    words = np.arange(rows.nnz) + row + 1 + rows.indptr[row]
    block[words] = rows.indices
    block[words + lengths[row]] = rows.data.astype("<f4").view("<u4")
    return block


class SeismicVectors:
    """The opened index, in memory."""

    def __init__(self, folder: Path, manifest: dict[str, Any], search: str | None) -> None:
        spec = manifest["spec"]
        try:
            chosen = seismic_parameters(f"{spec['search']},{search or ''}", SEISMIC_SEARCH)
        except ValueError as error:
            raise InputError(
                f"search parameters {search!r} do not fit this index: {error}",
                remedy="write them as query_cut=10,heap_factor=0.8",
            ) from error
        self.query_cut, self.heap_factor = int(chosen["query_cut"]), chosen["heap_factor"]
        self.prompt, self.build = manifest["query_prompt"], spec["build"]
        self.dimensions, self.rows = int(manifest["dimensions"]), Layout.of(manifest).rows
        with _quiet(), _named(folder / INDEX, "read"):
            self.index = _kind(self.dimensions).load(str(folder / INDEX))
        if int(self.index.len) != self.rows:  # zeros are read as an index of some other size
            raise InputError(
                f"this index has {int(self.index.len)} documents, its manifest {self.rows}",
                file=folder / INDEX,
                remedy="build it again with rkd index",
            )
        self.count = self.rows
        self.added: list[csr_matrix] = []  # (V, n) each
        self.live = np.ones(self.count, dtype=bool)

    def extend(self, shard: Shard) -> None:
        """Append documents, with weights of 16 bits as all have."""
        halves = shard["weights"].astype(np.float16).astype(np.float32)
        self.added.append(sparse.matrix({**shard, "weights": halves}, self.dimensions).T.tocsr())
        self.count += len(shard["lengths"])
        self.live = np.ones(self.count, dtype=bool)

    def hide(self, deleted: np.ndarray) -> None:
        """Leave these rows out of all results."""
        self.live[deleted] = False

    def rewrite(self, live: np.ndarray, out: Path) -> None:
        """Write the index of the rows that are `live`."""
        write_rows(self._rows(live), self.dimensions, self.build, out)

    def _rows(self, live: np.ndarray) -> Iterator[csr_matrix]:
        """Yield the documents that are `live`, read back from the index."""
        kept = np.flatnonzero(live[: self.rows])
        for start in range(0, len(kept), CHUNK):
            found = [self.index.get(int(row)) for row in kept[start : start + CHUNK]]
            words = np.concatenate([np.array(words, np.int32) for words, _ in found])
            weights = np.concatenate([np.array(weights, np.float32) for _, weights in found])
            lengths = np.array([len(words) for words, _ in found])
            shard = {"lengths": lengths, "words": words, "weights": weights}
            yield sparse.matrix(shard, self.dimensions)
        first = self.rows
        for part in self.added:
            yield part.T.tocsr()[live[first : first + part.shape[1]]]
            first += part.shape[1]

    def encode(self, model: Any, texts: Sequence[str]) -> csr_matrix:
        """Query weights `(Q, V)`."""
        return sparse_rows(model, texts, "query", prompt=self.prompt)

    def search(self, queries: csr_matrix, depth: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return positions and scores of the hits that are found for each query.

        Of the base at most `depth`, and of added documents all that share a word with the query.
        """
        results = []
        for row in range(queries.shape[0]):
            own = slice(queries.indptr[row], queries.indptr[row + 1])
            positions, scores = self._base(queries.indices[own], queries.data[own], depth)
            first = self.rows
            for part in self.added:
                added = sparse_scores(queries[row], part)[0]
                added[~self.live[first : first + len(added)]] = 0
                hits = np.flatnonzero(added)
                positions = np.concatenate([positions, first + hits])
                scores = np.concatenate([scores, added[hits]])
                first += len(added)
            results.append((positions, scores))
        return results

    def _base(
        self, words: np.ndarray, weights: np.ndarray, depth: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search the base, for more hits where too many of them were deleted."""
        known = words < self.index.dim  # a word that no document has is an error to Seismic
        words, weights = words[known].astype(np.int32), weights[known].astype(np.float32)
        most = depth + int((~self.live[: self.rows]).sum())
        wanted = min(2 * depth, most)
        while True:
            found = self.index.search(
                words, weights, wanted, self.query_cut, self.heap_factor, 0, True
            )
            positions = np.array([position for _, position in found], np.int64)
            scores = np.array([score for score, _ in found], np.float32)
            kept = self.live[positions]
            if kept.sum() >= depth or len(found) < wanted or wanted == most:
                return positions[kept], scores[kept]
            wanted = min(2 * wanted, most)


def need_seismic() -> Any:
    """Import Seismic.

    Raises:
        InputError: it is not installed.
    """
    try:
        import seismic
    except ImportError as error:
        raise InputError(
            "engine: seismic needs the package pyseismic-lsr",
            remedy="pip install 'retrieval_kd[seismic]', or use indexes/sparse.yaml, which is "
            "exact",
        ) from error
    return seismic


def _kind(width: int) -> Any:
    """The class of an index over a vocabulary of so many words."""
    seismic = need_seismic()
    return seismic.SeismicIndexRaw if width <= SHORT else seismic.SeismicIndexRawLV


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what Seismic prints of its progress: on standard output, where results belong."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _named(path: Path, verb: Literal["read", "write"]) -> Iterator[None]:
    """Report a file that Seismic cannot read, and a panic, which is no `Exception`."""
    try:
        yield
    except BaseException as error:
        unreadable = verb == "read" and isinstance(error, OSError)
        if not unreadable and type(error).__name__ != "PanicException":
            raise
        raise InputError(
            f"Seismic cannot {verb} this index: {error}",
            file=path,
            remedy="build it again with rkd index, or use indexes/sparse.yaml",
        ) from error
