"""Encodes texts with dense models, in shards that survive a kill and a cache all stages share.

If the model's similarity is cosine, vectors are scaled to unit length; if it is the dot product,
they stay as they are. Either way, the inner product of two vectors is their score.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from sentence_transformers import SentenceTransformer

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import (
    SEAL,
    atomic_path,
    cache_dir,
    digest_json,
    is_whole,
    new_array,
    read_json,
    seal,
    sweep,
    write_json,
)
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.models.encode_texts import encode_document_texts
from retrieval_kd.models.graphs import chosen_backend, precision
from retrieval_kd.models.load import document_digest, load_encoder
from retrieval_kd.models.modules.adapter import AdapterEncoder
from retrieval_kd.models.modules.asymmetric import document_side
from retrieval_kd.models.modules.residual import ResidualEncoder
from retrieval_kd.models.vectors import say_zeros, warn_of_zeros
from retrieval_kd.progress import bar

VECTORS, MANIFEST = "vectors.npy", "manifest.json"
SHARD = 1_024  # documents
FINITE = "try RETRIEVAL_KD_DTYPE=float32, and check the model's weights for NaN"

Shard = dict[str, np.ndarray]


def normalises(model: SentenceTransformer) -> bool:
    """Whether the model's similarity is cosine (True) or the dot product (False)."""
    similarity = str(model.similarity_fn_name)
    if similarity not in ("cosine", "dot"):
        raise InputError(
            f"the model's similarity is {similarity!r}; cosine and dot product are supported",
            remedy="set similarity_fn_name in its config_sentence_transformers.json",
        )
    return similarity == "cosine"


def finish(vectors: np.ndarray, normalise: bool) -> np.ndarray:
    """Make `vectors (n, d)` contiguous float32, of unit length if `normalise`."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if normalise:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


def encode_queries(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    prompt: str | None = None,
) -> np.ndarray:
    """Return vectors `(len(texts), d)` in float32; default prompt: the model's query prompt."""
    normalise = normalises(model)
    if not texts:
        return np.zeros((0, model.get_embedding_dimension() or 0), np.float32)
    vectors = model.encode_query(
        list(texts),
        prompt=prompt,
        batch_size=_batch_size(),
        show_progress_bar=False,
    )
    warn_of_zeros(model, ~vectors.any(axis=1), "query")
    return finish(vectors, normalise)


def encode_uncached(
    model: SentenceTransformer, texts: list[str], *, prompt: str | None = None
) -> np.ndarray:
    """Return vectors `(len(texts), D)` of a few documents, as `document_vectors` has them."""
    model = document_side(model)
    vectors = encode_document_texts(model, texts, prompt)
    if not np.isfinite(vectors).all():
        raise InputError("the model gave vectors that are not finite", remedy=FINITE)
    return finish(vectors, normalises(model))


def encode_documents(
    model: SentenceTransformer,
    texts: Texts,
    folder: Path,
    *,
    digest: str,
    shard_size: int | None = None,
    prompt: str | None = None,
    base: np.ndarray | None = None,
) -> np.memmap:
    """Encode all documents into `folder`, continuing where an earlier call was stopped.

    At the end its shards are merged into `vectors.npy` and the folder is sealed. What is damaged,
    or of other settings, is encoded again. A second process with the same folder waits.

    Args:
        digest: `model_digest` of the model, to compare with the manifest.
        shard_size: documents per shard; default 1,024, on a GPU 16,384. Batches have texts of
            similar length from one shard.
        prompt: put before every document in place of the model's own document prompt.
        base: of a residual model or an adapter, its frozen encoder's vectors (documents, D'), which
            are then not computed again.

    Returns:
        A read-only memory-mapped array `(documents, dimensions)`, float32.

    Raises:
        InputError: there is no document, or a vector is not finite.
    """
    normalise, joins = normalises(model), _on_frozen(model)
    settings: dict[str, Any] = {
        "model_digest": digest,
        "texts_digest": texts.digest,
        "documents": len(texts),
        "max_length": None if model.max_seq_length == float("inf") else model.max_seq_length,
        "dtype": precision(chosen_backend(), next(model.parameters()).dtype),
        "prompt": prompt,
        "normalised": normalise,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if _is_complete(folder) and read_json(folder / MANIFEST).items() >= settings.items():
            return _open(folder)
        sweep(folder)
        if not len(texts):
            raise InputError("the collection has no documents, so there is nothing to encode")

        def encode(batch: list[str], start: int) -> Shard:
            if base is not None and joins is not None:
                vectors = joins.join_documents(base[start : start + len(batch)], batch)
            else:
                vectors = encode_document_texts(model, batch, prompt, digest)
            _check_finite(vectors, texts, start)
            return {"vectors": finish(vectors, normalise)}

        paths = encode_shards(encode, texts, folder, settings, shard_size or _shard_size())
        parts = (read_arrays(path)["vectors"] for path in paths)
        dimensions = read_arrays(paths[0])["vectors"].shape[1]
        merge_arrays(folder / VECTORS, parts, (len(texts), dimensions), np.float32)
        zeros = sum(int((~read_arrays(path)["vectors"].any(axis=1)).sum()) for path in paths)
        write_json(folder / MANIFEST, settings | {"zeros": zeros})
        seal(folder)
    return _open(folder)


def encode_shards(
    encode: Callable[[list[str], int], Shard],
    texts: Texts,
    out: Path,
    inputs: Any,
    size: int | None = None,
) -> list[Path]:
    """Encode all documents into shards in a hidden folder of `out`. Returns the shards' paths.

    Shards of an earlier, killed call with the same `inputs` are kept if they are undamaged; all
    others are removed.

    Args:
        encode: the texts of some documents, and the position of the first → their arrays.
        size: documents per shard; 1,024 by default.
    """
    size = size or SHARD
    folder = out / f".shards-{digest_json([inputs, size])}"
    for other in out.glob(".shards-*"):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(exist_ok=True)
    sweep(folder)
    paths = []
    with bar("encoding documents", len(texts)) as progress:
        for number, start in enumerate(range(0, len(texts), size)):
            stop = min(start + size, len(texts))
            path = folder / f"{number:06d}.npz"
            if not is_readable(path):
                batch = [document.full for document in texts.iterate(start, stop)]
                save_arrays(path, **encode(batch, start))
            paths.append(path)
            progress.advance(stop - start)
    return paths


def document_vectors(
    model_spec: str,
    texts: Texts,
    *,
    max_length: int | None = None,
    dtype: torch.dtype | None = None,
    prompt: str | None = None,
    model: SentenceTransformer | None = None,
    digest: str | None = None,
) -> np.memmap:
    """Return all documents' vectors `(documents, dimensions)`; encode them if not yet cached.

    The cache key is the model's digest, the texts' digest, `max_length` (None: the model's own),
    dtype and prompt, so retrieval, indexing and evaluation with one model encode once. Without
    `model`, the model is loaded only if something has to be encoded. A residual model and an
    adapter take their encoder's vectors from the cache, an asymmetric one has those of its base.

    Args:
        digest: identifies the model in the key; by default its `document_digest`.
    """
    dtype, digest = dtype or fast_dtype(), digest or document_digest(model_spec)
    folder = _folder(digest, texts, max_length, dtype, prompt)
    if _is_complete(folder):
        return _open(folder)
    if model is None:
        model = load_encoder(model_spec, max_length=max_length, dtype=dtype)
    model, base = document_side(model), None
    own = _on_frozen(model)
    if own is not None:
        base = document_vectors(
            own.base_spec, texts, max_length=max_length or own.encoder.max_seq_length,
            dtype=dtype, prompt=prompt, model=own.encoder, digest=own.base_digest,
        )  # fmt: skip
    return encode_documents(model, texts, folder, digest=digest, prompt=prompt, base=base)


def _on_frozen(model: SentenceTransformer) -> Any:
    """Return the part of a model that makes its vectors from a frozen encoder's; None without."""
    if isinstance(model, ResidualEncoder):
        return model.embedding
    return model if isinstance(model, AdapterEncoder) else None


def is_encoded(model_spec: str, texts: Texts, *, max_length: int | None = None) -> bool:
    """Whether `document_vectors` would find all vectors in the cache."""
    return _is_complete(_folder(document_digest(model_spec), texts, max_length, fast_dtype(), None))


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, array, allow_pickle=False)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write a `.npz` file without pickles atomically; it has a checksum of each array."""
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a file that `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def is_readable(path: Path) -> bool:
    """Whether a file of `save_arrays` exists and is undamaged."""
    try:
        return bool(read_arrays(path))
    except Exception:  # a damaged zip file can raise nearly anything
        return False


def merge_arrays(
    path: Path, parts: Iterable[np.ndarray], shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    """Write arrays `(n, width)` or `(n,)` one below the other into one `.npy` file, atomically.

    One of `parts` is in memory at a time.
    """
    with atomic_path(path) as temporary:
        whole = new_array(temporary, shape, dtype)
        row = 0
        for part in parts:
            whole[row : row + len(part)] = part
            row += len(part)
        whole.flush()
        del whole


def _folder(
    digest: str, texts: Texts, max_length: int | None, dtype: torch.dtype, prompt: str | None
) -> Path:
    """The cache folder of a collection's vectors, existing or not."""
    key = [1, digest, texts.digest, max_length, precision(chosen_backend(), dtype), prompt]
    return cache_dir() / "vectors" / digest_json(key)


def _is_complete(folder: Path) -> bool:
    return (folder / SEAL).exists() and is_whole(folder)


def _check_finite(vectors: np.ndarray, texts: Texts, start: int) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise InputError(
            f"the model gave {len(bad)} vectors that are not finite",
            id=texts.id_at(start + int(bad[0])),
            remedy=FINITE,
        )


def _open(folder: Path) -> np.memmap:
    """Open a sealed folder's vectors, and delete the shards that they were merged from."""
    for shards in folder.glob(".shards-*"):  # also those of a command killed after the seal
        shutil.rmtree(shards, ignore_errors=True)
    if zeros := read_json(folder / MANIFEST).get("zeros"):
        say_zeros(zeros, read_json(folder / MANIFEST)["documents"], "document")
    vectors = np.load(folder / VECTORS, mmap_mode="r")
    assert isinstance(vectors, np.memmap)
    return vectors


def _shard_size() -> int:
    return 16_384 if torch.cuda.is_available() else SHARD


def _batch_size() -> int:
    return 256 if torch.cuda.is_available() else 32
