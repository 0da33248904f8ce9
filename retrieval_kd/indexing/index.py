"""A built index: opened, checked against its manifest, searched and timed.

Every index folder holds `ids.arrow` (document IDs in row order) and `manifest.json` (model,
collection, settings and versions). The vectors are in the files that `dense.py` (one FAISS file,
which plain FAISS can read), `sparse.py`, `multi_vector.py` or their smaller and faster kinds write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.rows import Row
from retrieval_kd.data.runs import Run
from retrieval_kd.data.texts import Texts, build_texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import DamagedFile, digest_file, read_sealed
from retrieval_kd.indexing.dense import FaissVectors
from retrieval_kd.indexing.multi_vector import TokenVectors
from retrieval_kd.indexing.multi_vector_coded import CodedTokens
from retrieval_kd.indexing.segments import (
    IDS,
    MANIFEST,
    TEXTS,
    VECTORS,
    IndexedTexts,
    Layout,
    WithoutTexts,
    read_deleted,
    read_ids,
    text_folders,
)
from retrieval_kd.indexing.sparse import SparseVectors
from retrieval_kd.indexing.sparse_seismic import SeismicVectors
from retrieval_kd.indexing.topk import top_k
from retrieval_kd.models.encode import read_arrays
from retrieval_kd.models.facts import imitated_digests
from retrieval_kd.models.load import document_digest, load_retriever

ENTRIES = {"model", "model_digest", "max_length", "dtype", "spec", "count", "dimensions",
           "collection", "query_prompt"}  # fmt: skip
RESTORE = "restore the file, or delete the folder and build the index again"

Vectors = FaissVectors | SparseVectors | SeismicVectors | TokenVectors | CodedTokens

Hits = list[tuple[str, float]]
"""(document ID, score), best first; a larger score is better in every index."""


@dataclass(frozen=True)
class Timing:
    """What a search costs. Latencies are milliseconds per query, one query at a time."""

    queries: int
    encode_ms_p50: float
    encode_ms_p95: float
    search_ms_p50: float
    search_ms_p95: float
    queries_per_second: float
    """With all queries in one call, encoding included."""
    index_bytes: int


class Index:
    """A collection's documents, searchable with one model; from `build_index` or `Index.open`."""

    def __init__(
        self, folder: Path, manifest: dict[str, Any], vectors: Vectors, model_spec: str
    ) -> None:
        self.folder, self.manifest, self.vectors = folder, manifest, vectors
        self.model_spec = model_spec
        self.layout = Layout.of(manifest)
        self.ids = read_ids(folder, self.layout)
        self.deleted = read_deleted(folder, self.layout)
        if len(self.deleted):
            vectors.hide(self.deleted)

    def __len__(self) -> int:
        """The documents that can be found; the deleted ones do not count."""
        return self.vectors.count - len(self.deleted)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        model_spec: str | None = None,
        *,
        search: str | None = None,
        verify: bool = True,
    ) -> Index:
        """Open an index folder and check it against its manifest.

        Args:
            model_spec: the model to search with; it must be the one that encoded the documents, an
                asymmetric student of it, or one whose last training imitated its vectors. None: the
                one the manifest names, which is checked when it is first used.
            search: search parameters in place of the specification's, such as `nprobe=64`.
            verify: compare the files' digests too (reads every byte once).

        Raises:
            InputError: no finished index, or its files or model differ from the manifest.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        try:
            check_files(folder, manifest["files"], verify)
            if model_spec is not None:
                _check_model(folder, manifest, model_spec)
            vectors = open_vectors(folder, manifest, search)
            opened = cls(folder, manifest, vectors, model_spec or manifest["model"])
        except (InputError, OSError):
            if read_manifest(folder) == manifest:
                raise
            # it was changed at this moment, and files that it had before were removed
            return cls.open(folder, model_spec, search=search, verify=verify)
        if len(opened.ids) != vectors.count or len(opened) != manifest["count"]:
            raise _differs(folder / opened.layout.base / IDS, "number of documents")
        return opened

    @cached_property
    def model(self) -> Any:
        """The encoder, loaded on first use with the dtype and length that encoded the documents."""
        _check_model(self.folder, self.manifest, self.model_spec)
        return load_retriever(
            self.model_spec,
            max_length=self.manifest["max_length"],
            dtype=getattr(torch, self.manifest["dtype"]),
        )

    def encode(self, texts: Sequence[str]) -> Any:
        """Encode queries for `search_vectors`: `(len(texts), dimensions)` with a dense model."""
        return self.vectors.encode(self.model, texts)

    def search_vectors(self, vectors: Any, depth: int) -> list[Hits]:
        """Return the `depth` best hits for each encoded query, in the order of a `Run`.

        There may be fewer: with a sparse model, documents that share no word with the query are
        not hits.
        """
        found = self.vectors.search(vectors, max(1, min(depth, len(self))))
        return [
            list(top_k(scores, depth, self._id_at, positions=positions).items())
            for positions, scores in found
        ]

    def live_ids(self) -> list[str]:
        """The IDs of all documents that can be found, in row order."""
        return [str(id) for id in np.delete(np.array(self.ids.to_pylist(), object), self.deleted)]

    def _id_at(self, position: int) -> str:
        return str(self.ids[position].as_py())

    def search(self, texts: Sequence[str], depth: int = 10) -> list[Hits]:
        """Return the `depth` best hits for each query text, in the order of a `Run`.

        Example:
            >>> Index.open("my-index").search(["why is the sky blue"], 1)    # doctest: +SKIP
            [[('d42', 0.71)]]
        """
        return self.search_vectors(self.encode(texts), depth)

    def search_run(
        self,
        queries: Mapping[str, str],
        depth: int = 100,
        *,
        exclude_self: bool = True,
        name: str | None = None,
    ) -> Run:
        """Search for queries by ID and return a run."""
        return run_of(self.search, queries, depth, exclude_self, name or self.folder.name)

    def collection(self) -> Collection:
        """Open the indexed collection, for titles and texts.

        Raises:
            InputError: its documents have changed since they were indexed.
        """
        source = self.manifest["collection"]
        if not source.get("has_texts", True):
            raise InputError(
                "this index was built from a file of vectors and has no texts",
                file=self.folder,
                remedy="look up its document IDs where the texts are",
            )
        collection = open_collection(source["spec"])
        if collection.documents.digest != source["documents_digest"]:
            raise InputError(
                f"the documents of {source['spec']} changed after this index was built",
                file=self.folder,
                remedy="build the index again",
            )
        return collection

    def texts(self) -> IndexedTexts:
        """Titles and texts by ID, those of documents that were added too."""
        folders = text_folders(self.folder, self.layout)
        if not self.manifest["collection"].get("has_texts", True):
            return IndexedTexts(folders, WithoutTexts)
        return IndexedTexts(folders, lambda: self.collection().documents)

    def live_texts(self, folder: Path) -> Texts:
        """Write the titles and texts of all documents that can be found, in row order."""
        texts = self.texts()
        return build_texts((Row(*texts[id]) for id in self.live_ids()), folder)

    def measure(self, queries: Sequence[str], depth: int = 10) -> Timing:
        """Time these queries one at a time, then all in one call, after an untimed first query."""
        if not queries:
            raise InputError("no queries to time")
        self.search(queries[:1], depth)
        encoding, searching = [], []
        for text in queries:
            start = time.perf_counter()
            vector = self.encode([text])
            middle = time.perf_counter()
            self.search_vectors(vector, depth)
            encoding.append(middle - start)
            searching.append(time.perf_counter() - middle)
        start = time.perf_counter()
        self.search(queries, depth)
        seconds = time.perf_counter() - start
        return Timing(
            queries=len(queries),
            encode_ms_p50=_milliseconds(encoding, 0.5),
            encode_ms_p95=_milliseconds(encoding, 0.95),
            search_ms_p50=_milliseconds(searching, 0.5),
            search_ms_p95=_milliseconds(searching, 0.95),
            queries_per_second=round(len(queries) / seconds, 1),
            index_bytes=sum(
                int(file["bytes"])
                for name, file in self.manifest["files"].items()
                if Path(name).name != IDS and TEXTS not in Path(name).parts
            ),
        )


def run_of(
    search: Callable[[Sequence[str], int], list[Hits]],
    queries: Mapping[str, str],
    depth: int,
    exclude_self: bool,
    name: str,
) -> Run:
    """Search for queries by ID and return a run."""
    rankings = search(list(queries.values()), depth + exclude_self)
    results = {}
    for query_id, hits in zip(queries, rankings, strict=True):
        kept = [hit for hit in hits if not exclude_self or hit[0] != query_id]
        results[query_id] = dict(kept[:depth])
    return Run(name, results)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read an index's manifest."""
    try:
        manifest = read_sealed(folder / MANIFEST)
    except OSError as error:
        raise InputError(
            "no finished index here", file=folder, remedy="build it with rkd index"
        ) from error
    if manifest.get("kind") == "hybrid":
        problem = "this folder holds several indexes that are searched as one, and not one of them"
        raise InputError(problem, file=folder, remedy="open it with HybridIndex.open")
    if not isinstance(manifest.get("files"), dict) or not manifest.keys() >= ENTRIES:
        raise DamagedFile("not the manifest of an index", file=folder / MANIFEST, remedy=RESTORE)
    return manifest


def open_vectors(folder: Path, manifest: dict[str, Any], search: str | None = None) -> Vectors:
    """Open an index's base, and append its segments."""
    layout = Layout.of(manifest)
    vectors = _open_base(folder / layout.base, manifest, search)
    for name in layout.segments:
        vectors.extend(read_arrays(folder / name / VECTORS))
    if (vectors.count, vectors.dimensions) != (layout.total, manifest["dimensions"]):
        raise _differs(folder / next(iter(manifest["files"])), "documents or dimensions")
    return vectors


def _open_base(folder: Path, manifest: dict[str, Any], search: str | None) -> Vectors:
    kind = manifest["spec"].get("kind", "faiss")
    if kind == "faiss":
        return FaissVectors(folder, manifest, search)
    if manifest["spec"].get("bits"):
        return CodedTokens(folder, manifest, search)
    if manifest["spec"].get("engine"):
        return SeismicVectors(folder, manifest, search)
    if search:
        raise InputError(
            f"search parameters {search!r} are FAISS's, and this index is {kind}",
            file=folder,
            remedy="leave them out: this search is exact",
        )
    return (SparseVectors if kind == "sparse" else TokenVectors)(folder, manifest)


def _milliseconds(seconds: Sequence[float], quantile: float) -> float:
    return round(1000 * float(np.quantile(seconds, quantile)), 3)


def describe_files(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Sizes and digests of an index's files, for the manifest."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "digest": digest_file(folder / name)}
        for name in names
    }


def check_files(folder: Path, files: dict[str, Any], verify: bool) -> None:
    """Refuse files that differ from the manifest in size, or in digest if `verify`."""
    for name, recorded in files.items():
        path = folder / name
        if not path.exists():
            raise InputError("the index lacks this file", file=path, remedy=RESTORE)
        if path.stat().st_size != recorded["bytes"]:
            raise _differs(path, "size")
        if verify and digest_file(path) != recorded["digest"]:
            raise _differs(path, "digest")


def _check_model(folder: Path, manifest: dict[str, Any], model_spec: str) -> None:
    """Refuse to search with a model that did not encode these documents, and was not trained to
    imitate the vectors of the one that did.
    """
    built_by = manifest["model_digest"]
    if document_digest(model_spec) != built_by and built_by not in imitated_digests(model_spec):
        changed = " (its files have changed since)" if model_spec == manifest["model"] else ""
        raise InputError(
            f"this index was built with model {manifest['model']}, not with {model_spec}{changed}: "
            "their vectors do not compare",
            file=folder,
            remedy="search with the model it was built with, or build it again",
        )


def _differs(path: Path, what: str) -> InputError:
    """The error for a file that is not as the manifest says."""
    return InputError(
        f"{what} differs from what the index's manifest says",
        file=path,
        remedy=RESTORE,
    )
