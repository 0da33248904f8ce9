"""The FAISS index of a dense model, of any factory string: written once, opened and searched."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.errors import InputError, log
from retrieval_kd.files import atomic_path
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.selection import Selection, without
from retrieval_kd.indexing.spec import IndexSpec, check_parameters
from retrieval_kd.models.encode import (
    Shard,
    encode_queries,
    encode_uncached,
    finish,
)

FAISS = "index.faiss"
FILES = (FAISS,)
CHUNK = 65_536  # documents added at a time
BLOCK = 1_024  # queries searched at a time
POINTS_PER_CENTRE = 39  # FAISS's k-means warns below this
OPQ_CENTRES = 256  # OPQ trains 8-bit codes, whatever codes follow it


def encoder(model: Any, manifest: dict[str, Any]) -> Callable[[list[str], int], Shard]:
    """Return what encodes documents for `encode_shards`, as those of an index were."""
    width, normalised = manifest["dimensions"], manifest["normalised"]
    prompt = manifest["document_prompt"]

    def encode(documents: list[str], start: int) -> Shard:
        vectors = encode_uncached(model, documents, prompt=prompt)
        return {"vectors": finish(vectors[:, :width], normalised)}

    return encode


def copied(index: Any) -> Any:
    """Copy an index, as `faiss.clone_index` does, which cannot copy `L2norm`."""
    return faiss.deserialize_index(faiss.serialize_index(index))


def write_index(index: Any, path: Path) -> None:
    """Write the index, whole or not at all.

    FAISS's own writer of files only prints it if the last part cannot be written.
    """
    failed: list[OSError] = []
    with atomic_path(path) as temporary, open(temporary, "wb") as file:

        def write(part: bytes) -> None:  # FAISS would raise an error without a reason
            try:
                if not failed:
                    file.write(part)
            except OSError as error:
                failed.append(error)

        faiss.write_index(index, faiss.PyCallbackIOWriter(write))  # type: ignore[attr-defined]
        if failed:
            raise failed[0]


class FaissVectors:
    """The opened index."""

    def __init__(self, folder: Path, manifest: dict[str, Any], search: str | None) -> None:
        try:
            self.index = faiss.read_index(str(folder / FAISS))
        except RuntimeError as error:  # such as a file that was removed after it was checked
            raise InputError(
                f"FAISS cannot read this index: {_reason(error)}",
                file=folder / FAISS,
                remedy="open it again, or build it again with rkd index",
            ) from error
        self.dimensions, self.count = self.index.d, self.index.ntotal
        self.prompt, self.normalised = manifest["query_prompt"], manifest["normalised"]
        self.threads = manifest["spec"].get("threads", 0)
        self.selection: Selection | None = None
        set_parameters(self.index, search or manifest["spec"]["search"], "search")

    def extend(self, shard: Shard) -> None:
        """Append documents, with the quantisers that the index has."""
        with faiss_threads(self.threads):
            self.index.add(shard["vectors"])
        self.count = self.index.ntotal

    def hide(self, deleted: np.ndarray) -> None:
        """Leave these rows out of all results."""
        self.selection = Selection(self.index, deleted)

    def rewrite(self, live: np.ndarray, out: Path) -> None:
        """Write the index of the rows that are `live`; this one is then of no use any more."""
        try:
            with faiss_threads(self.threads):
                written = self.index if live.all() else without(self.index, live)
        except (RuntimeError, MemoryError) as error:
            raise InputError(
                f"FAISS cannot remove rows from this index: {_reason(error)}",
                remedy="build the index again with rkd index",
            ) from error
        write_index(written, out / FAISS)

    def encode(self, model: Any, texts: Sequence[str]) -> np.ndarray:
        """Encode queries as `(len(texts), dimensions)`, truncated and normalised like the index."""
        whole = encode_queries(model, texts, prompt=self.prompt)
        return finish(whole[:, : self.dimensions], self.normalised)

    def search(self, queries: np.ndarray, depth: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the positions and scores that FAISS finds for each query, at most `depth`."""
        results = []
        for start in range(0, len(queries), BLOCK):
            find = (self.selection or self.index).search
            scores, positions = find(queries[start : start + BLOCK], depth)
            for row, at in zip(scores, positions, strict=True):
                results.append((at[at >= 0], row[at >= 0]))
        return results


def scaled(spec: IndexSpec, model_normalises: bool) -> bool:
    """Return whether vectors are scaled to unit length."""
    if spec.metric == "dot" and model_normalises:
        raise InputError(
            "metric dot does not fit: the model's own similarity is cosine",
            remedy="use metric: auto",
        )
    return model_normalises or spec.metric == "cosine"


def indexed_dimensions(spec: IndexSpec, whole: int, model_spec: str) -> int:
    """Return how many of the model's dimensions are indexed."""
    if spec.dimensions is not None and spec.dimensions > whole:
        raise InputError(
            f"the specification indexes {spec.dimensions} dimensions, but the vectors of "
            f"{model_spec} have {whole}",
            remedy=f"give at most {whole}",
        )
    return spec.dimensions or whole


def train_index(index: Any, spec: IndexSpec, vectors: np.ndarray, normalised: bool) -> int:
    """Train the index on a random sample if it needs training. Returns the sample's size."""
    if index.is_trained:
        return 0
    size = min(len(vectors), spec.train_documents)
    rows = np.random.default_rng(spec.seed).choice(len(vectors), size, replace=False)
    try:
        index.train(finish(vectors[np.sort(rows)], normalised))
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"FAISS could not train {spec.factory!r} on {size} documents: {error}",
            remedy="use a smaller factory, or indexes/flat.yaml",
        ) from error
    return size


def add_rows(
    index: Any,
    spec: IndexSpec,
    vectors: np.ndarray,
    normalised: bool,
    added: Callable[[int], None] = lambda rows: None,
) -> None:
    """Add vectors (n, dimensions) chunk by chunk; `added` is called with the rows of each."""
    for start in range(0, len(vectors), CHUNK):
        chunk = finish(vectors[start : start + CHUNK], normalised)
        with _adding(spec):
            index.add(chunk)
        added(len(chunk))


def make_index(spec: IndexSpec, dimensions: int, documents: int) -> Any:
    """Make an empty, untrained inner-product index of vectors with `dimensions` components.

    Raises:
        InputError: FAISS cannot read the factory string or a parameter, the codes do not
            divide the dimensions, or there are fewer documents than centres to train.

    Example:
        >>> make_index(IndexSpec(factory="PQ5"), 32, 1000)
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: factory 'PQ5': 5 codes do not divide 32 dimensions. \
To fix: use PQ4 or PQ8.
    """
    sample = min(documents, spec.train_documents)
    _check_centres(spec, sample, max(map(int, re.findall(r"IVF(\d+)", spec.factory)), default=0))
    try:
        index = from_factory(spec.factory, dimensions)
    except (RuntimeError, MemoryError) as error:
        raise _unreadable(spec.factory, dimensions, error) from error
    set_parameters(index, spec.build, "build")
    set_parameters(index, spec.search, "search")
    for step in _steps(index):
        if isinstance(step, faiss.PCAMatrix | faiss.OPQMatrix) and step.d_out > step.d_in:
            raise InputError(
                f"factory {spec.factory!r} makes {step.d_out} dimensions of {step.d_in}",
                remedy=f"give at most {step.d_in}",
            )
    centres = centres_to_train(index)
    _check_centres(spec, sample, centres)
    if sample < POINTS_PER_CENTRE * centres:
        log.warning(
            "factory %s trains %d centres on %d documents; FAISS advises at least %d",
            spec.factory, centres, sample, POINTS_PER_CENTRE * centres,
        )  # fmt: skip
    if index.is_trained:  # a trial, as some indexes can be made but not filled
        with _adding(spec):
            copied(index).add(np.zeros((1, dimensions), np.float32))
    return index


def from_factory(factory: str, dimensions: int) -> Any:
    """Make the empty inner-product index of a factory string: FAISS's, and `FirstN,…`.

    `First96,SQ8,Refine(SQ8)` finds candidates by the first 96 dimensions (Matryoshka) and puts them
    in order by all. FAISS can do it, and has no word for it.

    Raises:
        InputError: more first dimensions than there are.
        RuntimeError: FAISS cannot read the string.

    Example:
        >>> index = from_factory("First8,L2norm,Flat,Refine(SQ8)", 32)
        >>> index.d, faiss.downcast_index(index.base_index).index.d
        (32, 8)
    """
    first = re.fullmatch(r"First(\d+),(.+?)(?:,RFlat|,Refine\((.+)\))?", factory)
    if first is None:
        return faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)
    width = int(first[1])
    if width > dimensions:
        raise InputError(
            f"factory {factory!r} takes {width} dimensions of {dimensions}",
            remedy=f"give at most {dimensions}",
        )
    base = faiss.index_factory(width, first[2], faiss.METRIC_INNER_PRODUCT)
    cut = faiss.RemapDimensionsTransform(dimensions, width, False)  # type: ignore[arg-type]
    index: Any = faiss.IndexPreTransform(cut, base)
    if first.end(2) < len(factory):
        whole = faiss.index_factory(dimensions, first[3] or "Flat", faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexRefine(index, whole)
    return copied(index)  # which owns its parts


@contextlib.contextmanager
def _adding(spec: IndexSpec) -> Iterator[None]:
    """Report that FAISS cannot add documents as wrong input."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"FAISS cannot add documents to factory {spec.factory!r}: {_reason(error)}",
            remedy="use a smaller factory, or indexes/flat.yaml",
        ) from error


def _check_centres(spec: IndexSpec, sample: int, centres: int) -> None:
    """Refuse to train more centres than there are documents to train on."""
    if sample < centres:
        fewer = max(1, sample // POINTS_PER_CENTRE)
        raise InputError(
            f"factory {spec.factory!r} trains {centres} centres, but there are {sample} documents "
            "to train on",
            remedy="use indexes/flat.yaml or hnsw.yaml, or a smaller factory"
            + (f", such as IVF{fewer},Flat" if "IVF" in spec.factory else ""),
        )


def set_parameters(index: Any, parameters: str, what: str) -> None:
    """Set `name=value,…` in the syntax of `faiss.ParameterSpace`."""
    if not parameters.strip():
        return
    try:
        check_parameters(parameters)
        space: Any = faiss.ParameterSpace()  # its type stub has one of two overloads
        space.set_index_parameters(index, parameters.replace(" ", ""))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{what} parameters {parameters!r} do not fit this index: {_reason(error)}",
            remedy="nprobe=… is for IVF, efSearch=… and efConstruction=… for HNSW, "
            "k_factor_rf=… for RFlat and Refine, quantizer_… for what finds the cells",
        ) from error


def centres_to_train(index: Any) -> int:
    """Largest number of k-means centres in the index: training needs at least as many documents."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        rotation = OPQ_CENTRES if any(isinstance(s, faiss.OPQMatrix) for s in _steps(index)) else 0
        return max(rotation, centres_to_train(index.index))
    if isinstance(index, faiss.IndexRefine):
        return centres_to_train(index.base_index)
    if isinstance(index, faiss.IndexHNSW):
        return centres_to_train(index.storage)
    cells = index.nlist if isinstance(index, faiss.IndexIVF) else 0
    coded = (faiss.IndexPQ, faiss.IndexIVFPQ, faiss.IndexPQFastScan, faiss.IndexIVFPQFastScan)
    return max(cells, index.pq.ksub if isinstance(index, coded) else 0)


def _steps(index: Any) -> list[Any]:
    """The transformations before an index: rotations, projections."""
    index = faiss.downcast_index(index)
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    chain: Any = index.chain  # a C++ vector, which the type stubs declare as a list
    return [faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())]


@contextlib.contextmanager
def faiss_threads(threads: int) -> Iterator[None]:
    """Set FAISS's number of threads within the block; 0 leaves it unchanged."""
    before = faiss.omp_get_max_threads()
    try:
        if threads:
            faiss.omp_set_num_threads(threads)
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _unreadable(factory: str, dimensions: int, error: Exception) -> InputError:
    first = re.match(r"First(\d+),", factory)
    dimensions = int(first[1]) if first else dimensions  # which the codes are of
    codes = re.search(r"PQ(\d+)", factory)
    if codes and int(codes[1]) and dimensions % int(codes[1]):
        count = int(codes[1])
        fitting = [m for m in range(1, dimensions + 1) if dimensions % m == 0]
        near = [max(m for m in fitting if m < count), *[m for m in fitting if m > count][:1]]
        return InputError(
            f"factory {factory!r}: {count} codes do not divide {dimensions} dimensions",
            remedy="use " + " or ".join(f"PQ{m}" for m in near),
        )
    return InputError(
        f"FAISS cannot make an inner-product index of factory {factory!r}: {_reason(error)}",
        remedy="write it as Flat, HNSW32, IVF256,Flat, IVF256,PQ48, SQ8 or OPQ16,IVF256,PQ16",
    )


def _reason(error: Exception) -> str:
    """FAISS's message without the C++ source location."""
    return re.sub(r"^Error in .*? at [^ ]+\.(cpp|h):\d+: ", "", str(error)).strip()
