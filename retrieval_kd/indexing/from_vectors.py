"""Builds an index of vectors that are there already, in a .npy file, for the queries of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_kd.errors import InputError, shown
from retrieval_kd.files import digest_json
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.indexing import dense
from retrieval_kd.indexing.build import building, check_kind, complete, portable, write_vectors
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.segments import IDS, write_ids
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models.encode import normalises
from retrieval_kd.models.load import document_digest, load_encoder
from retrieval_kd.progress import bar

TYPES = ("float16", "float32")
BLOCK = 65_536  # vectors read at a time


def index_vectors(
    vectors: str | Path,
    model_spec: str,
    spec: IndexSpec,
    out: str | Path,
    *,
    ids: str | Path | None = None,
    max_length: int | None = None,
    replacing: Callable[[dict[str, Any]], None] = lambda manifest: None,
) -> Index:
    """Build the index of a file of vectors in folder `out`, or open the existing one.

    The file is mapped, so that it may be larger than memory. Queries are encoded with the model,
    and so must be what the vectors were made with; only its dimensions can be checked. The index
    has no texts.

    Args:
        vectors: a .npy file (documents, dimensions) of float16 or float32.
        ids: a file with one document ID a line, in the order of the rows. None: numbers from 0.
        max_length: tokens a query is cut to; None: the model's own.
        replacing: called with the manifest of an index before it is replaced.

    Raises:
        InputError: the file holds something else, a row is zeros or not finite, an ID is missing,
            empty or there twice; all before anything is trained.

    Example:
        >>> index_vectors("vectors.npy", "org/model", load_spec("indexes/ivf.yaml"), "my-index",
        ...               ids="ids.txt")                                          # doctest: +SKIP
    """
    vectors, out = Path(vectors), Path(out)
    if spec.kind != "faiss":
        raise InputError(
            f"a file of vectors has one for each document, and this specification is {spec.kind}",
            remedy="use a dense one, such as indexes/ivf.yaml",
        )
    check_kind(model_spec, spec)
    rows = open_vectors_file(vectors)
    named = None if ids is None else read_id_file(Path(ids), len(rows))
    model = load_encoder(model_spec, max_length=max_length, dtype=fast_dtype())
    width = int(model.get_embedding_dimension() or 0)
    if rows.shape[1] != width:
        raise InputError(
            f"vectors of {rows.shape[1]} dimensions; those of {model_spec} have {width}",
            file=vectors,
            remedy="name the model that made them",
        )
    digest = check_rows(rows, vectors)
    inputs: dict[str, Any] = {
        "model_digest": document_digest(model_spec),
        "documents_digest": digest_json([digest, None if named is None else _digest_ids(named)]),
        "max_length": max_length,
        "dtype": dtype_name(fast_dtype()),
        "query_prompt": None,
        "document_prompt": None,
        "spec": spec.as_dict(),
    }
    with building(out, inputs, model_spec, replacing) as finished:
        if finished is not None:
            return finished
        normalised = dense.scaled(spec, normalises(model))
        dimensions = dense.indexed_dimensions(spec, width, model_spec)
        index = dense.make_index(spec, dimensions, len(rows))
        entries = write_vectors(index, spec, rows[:, :dimensions], normalised, out, inputs)
        write_ids(_names(named, len(rows)), out / IDS)
        source = {
            "name": vectors.stem,
            "spec": portable(str(vectors)),
            "documents_digest": inputs["documents_digest"],
            "has_texts": False,
        }
        model_entries = {"model": portable(model_spec), **inputs}
        counted = {"count": len(rows), "collection": source}
        complete(out, {**model_entries, **counted, **entries}, dense.FILES)
    opened = Index.open(out, verify=False)
    opened.model_spec, opened.model = model_spec, model  # already loaded
    return opened


def open_vectors_file(path: Path) -> np.ndarray:
    """Map a .npy file of vectors (documents, dimensions)."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        problem = "no such file" if not path.exists() else f"no whole .npy file: {error}"
        raise InputError(problem, file=path, remedy="write it with numpy.save") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.name not in TYPES:
        found = f"{rows.dtype} of shape {rows.shape}" if isinstance(rows, np.ndarray) else "a .npz"
        raise InputError(
            f"this holds {found}, not float16 or float32 of shape (documents, dimensions)",
            file=path,
            remedy="write numpy.save(FILE, vectors.astype('float32'))",
        )
    if not rows.size:
        raise InputError("this has no vectors", file=path)
    return rows


def check_rows(rows: np.ndarray, path: Path) -> str:
    """Refuse rows of zeros and numbers that are not finite; return the digest of all rows."""
    digest = hashlib.blake2b(digest_size=16)
    with bar("reading vectors", len(rows)) as progress:
        for start in range(0, len(rows), BLOCK):
            block = np.ascontiguousarray(rows[start : start + BLOCK])
            lengths = np.linalg.norm(block.astype(np.float32), axis=1)
            bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
            if len(bad):
                zero = lengths[bad[0]] == 0
                raise InputError(
                    f"row {start + int(bad[0])} (from 0) is "
                    + ("zeros alone" if zero else "not finite"),
                    file=path,
                    remedy="leave that document out, or encode it again",
                )
            digest.update(block.data)
            progress.advance(len(block))
    return digest.hexdigest()


def read_id_file(path: Path, count: int) -> pa.ChunkedArray:
    """Read one document ID a line; as many as there are vectors, none empty, none twice."""
    if not path.is_file():
        raise InputError("no such file of document IDs", file=path, remedy="check the path")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: {error}", file=path, remedy="write it in UTF-8") from error
    if lines[-1] == "":
        lines.pop()
    ids = pa.chunked_array([pa.array([line.rstrip("\r") for line in lines], pa.large_string())])
    if len(ids) != count:
        raise InputError(
            f"{len(ids):,} document IDs for {count:,} vectors",
            file=path,
            remedy="give one ID a line for each row, in the same order",
        )
    empty = pc.index(ids, pa.scalar("", pa.large_string())).as_py()
    if empty >= 0:
        raise InputError("an empty document ID", file=path, line=empty + 1)
    if pc.count_distinct(ids).as_py() < count:
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
        first = pc.index(ids, twice).as_py()
        again = pc.index(ids.slice(first + 1), twice).as_py() + first + 1
        raise InputError(
            f"the document ID is in line {first + 1} too",
            file=path,
            line=again + 1,
            id=shown(twice.as_py()),
            remedy="give each row an ID of its own",
        )
    return ids


def _digest_ids(ids: pa.ChunkedArray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in ids:
        digest.update(f"{value.as_py()}\n".encode())
    return digest.hexdigest()


def _names(ids: pa.ChunkedArray | None, count: int) -> Iterator[str]:
    if ids is None:
        return map(str, range(count))
    return (str(value.as_py()) for value in ids)
