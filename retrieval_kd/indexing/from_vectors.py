"""Builds an index of vectors that are there already, in a .npy file, for the queries of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.data.rows import Reading, check_id
from retrieval_kd.data.sources import file_lines
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_json
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.indexing import dense
from retrieval_kd.indexing.build import (
    building,
    check_kind,
    complete,
    inputs_of,
    opened_with,
    portable,
    write_vectors,
)
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.segments import IDS, write_ids
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models.encode import normalises
from retrieval_kd.models.load import load_encoder
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
    documents_digest = digest_json([digest, None if named is None else _digest_ids(named)])
    inputs = inputs_of(model_spec, spec, documents_digest, max_length)
    with building(out, inputs, model_spec, replacing) as finished:
        if finished is not None:
            return finished
        normalised = dense.scaled(spec, normalises(model))
        dimensions = dense.indexed_dimensions(spec, width, model_spec)
        index = dense.make_index(spec, dimensions, len(rows))
        entries = write_vectors(index, spec, rows[:, :dimensions], normalised, out, inputs)
        write_ids(iter(named or map(str, range(len(rows)))), out / IDS)
        source = {
            "name": vectors.stem,
            "spec": portable(str(vectors)),
            "documents_digest": documents_digest,
            "has_texts": False,
        }
        model_entries = {"model": portable(model_spec), **inputs}
        counted = {"count": len(rows), "collection": source}
        complete(out, {**model_entries, **counted, **entries}, dense.FILES)
    return opened_with(out, model_spec, model)


def open_vectors_file(path: Path) -> np.ndarray:
    """Map a .npy file of vectors (documents, dimensions)."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        problem = "no whole .npy file of numbers" if path.exists() else "no such file"
        raise InputError(problem, file=path, remedy="write it with numpy.save") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.name not in TYPES:
        found = f"{rows.dtype} of shape {rows.shape}" if isinstance(rows, np.ndarray) else "a .npz"
        raise InputError(
            f"this holds {found}, not float16 or float32 of shape (documents, dimensions)",
            file=path,
            remedy="write numpy.save(FILE, vectors.astype('float32'))",
        )
    if not rows.size:
        raise InputError("this has no vectors", file=path, remedy="give at least one")
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


def read_id_file(path: Path, count: int) -> list[str]:
    """Read one document ID a line, plain or gzipped: as many as there are vectors, none twice.

    Blank lines count as none, so that the number of IDs tells that one is missing. An ID with
    whitespace is refused, as in a collection.
    """
    reading = Reading()
    lines, ids = [], []
    for line, text in file_lines(path, reading):
        lines.append(line)
        ids.append(text.strip())
        check_id(ids[-1], "document", str(path), line)
    if len(ids) != count:
        raise InputError(
            f"{len(ids):,} document IDs for {count:,} vectors",
            file=path,
            remedy="give one ID a line for each row, in the same order",
        )
    if len(set(ids)) < count:
        first: dict[str, int] = {}
        for line, id in zip(lines, ids, strict=True):
            if id in first:
                raise InputError(
                    f"the document ID is in line {first[id]} too",
                    file=path,
                    line=line,
                    id=id,
                    remedy="give each row an ID of its own",
                )
            first[id] = line
    return ids


def _digest_ids(ids: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for id in ids:
        digest.update(f"{id}\n".encode())
    return digest.hexdigest()
