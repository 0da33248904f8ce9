"""Makes an empty FAISS index from a specification; finds its mistakes before any encoding."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from retrieval_kd.errors import InputError, log
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.spec import IndexSpec

POINTS_PER_CENTRE = 39  # FAISS's k-means warns below this
OPQ_CENTRES = 256  # OPQ trains 8-bit codes, whatever codes follow it


def make_index(spec: IndexSpec, dimensions: int, documents: int) -> Any:
    """Make an empty, untrained inner-product index of vectors with `dimensions` components.

    Raises:
        InputError: FAISS cannot read the factory string or a parameter, the codes do not
            divide the dimensions, or there are fewer documents than centres to train.

    Example:
        >>> make_index(IndexSpec(factory="PQ5"), 32, 1000)
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: factory 'PQ5': 5 codes do not divide the model's 32 \
dimensions. To fix: use PQ4 or PQ8.
    """
    try:
        index = faiss.index_factory(dimensions, spec.factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise _unreadable(spec.factory, dimensions, error) from error
    set_parameters(index, spec.build, "build")
    set_parameters(index, spec.search, "search")
    centres = centres_to_train(index)
    sample = min(documents, spec.train_documents)
    if sample < centres:
        fewer = max(1, sample // POINTS_PER_CENTRE)
        raise InputError(
            f"factory {spec.factory!r} trains {centres} centres, but there are {sample} documents "
            "to train on",
            remedy="use indexes/flat.yaml or hnsw.yaml, or a smaller factory"
            + (f", such as IVF{fewer},Flat" if "IVF" in spec.factory else ""),
        )
    if sample < POINTS_PER_CENTRE * centres:
        log.warning(
            "factory %s trains %d centres on %d documents; FAISS advises at least %d",
            spec.factory, centres, sample, POINTS_PER_CENTRE * centres,
        )  # fmt: skip
    return index


def set_parameters(index: Any, parameters: str, what: str) -> None:
    """Set `name=value,…` in the syntax of `faiss.ParameterSpace`."""
    if not parameters.strip():
        return
    try:
        space: Any = faiss.ParameterSpace()  # its type stub has one of two overloads
        space.set_index_parameters(index, parameters.replace(" ", ""))
    except RuntimeError as error:
        raise InputError(
            f"{what} parameters {parameters!r} do not fit this index: {_reason(error)}",
            remedy="nprobe=… is for IVF, efSearch=… and efConstruction=… for HNSW, "
            "k_factor_rf=… for RFlat, quantizer_… for what finds the cells",
        ) from error


def centres_to_train(index: Any) -> int:
    """Largest number of k-means centres in the index: training needs at least as many documents."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain  # a C++ vector, which the type stubs declare as a list
        steps = [faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())]
        rotation = OPQ_CENTRES if any(isinstance(s, faiss.OPQMatrix) for s in steps) else 0
        return max(rotation, centres_to_train(index.index))
    if isinstance(index, faiss.IndexRefine):
        return centres_to_train(index.base_index)
    if isinstance(index, faiss.IndexHNSW):
        return centres_to_train(index.storage)
    cells = index.nlist if isinstance(index, faiss.IndexIVF) else 0
    coded = (faiss.IndexPQ, faiss.IndexIVFPQ, faiss.IndexPQFastScan, faiss.IndexIVFPQFastScan)
    return max(cells, index.pq.ksub if isinstance(index, coded) else 0)


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


def _unreadable(factory: str, dimensions: int, error: RuntimeError) -> InputError:
    codes = re.search(r"PQ(\d+)", factory)
    if codes and int(codes[1]) and dimensions % int(codes[1]):
        count = int(codes[1])
        fitting = [m for m in range(1, dimensions + 1) if dimensions % m == 0]
        near = [max(m for m in fitting if m < count), *[m for m in fitting if m > count][:1]]
        return InputError(
            f"factory {factory!r}: {count} codes do not divide the model's {dimensions} dimensions",
            remedy="use " + " or ".join(f"PQ{m}" for m in near),
        )
    return InputError(
        f"FAISS cannot make an inner-product index of factory {factory!r}: {_reason(error)}",
        remedy="write it as Flat, HNSW32, IVF256,Flat, IVF256,PQ48, SQ8 or OPQ16,IVF256,PQ16",
    )


def _reason(error: RuntimeError) -> str:
    """FAISS's message without the C++ source location."""
    return re.sub(r"^Error in .*? at [^ ]+\.(cpp|h):\d+: ", "", str(error)).strip()
