"""Trains a FAISS index and adds documents, in parts that survive a kill where there are many.

An index of cells (IVF) is the same whether documents are added at once or in parts that are joined,
to the last byte. So each part of a million documents is written as it is done, and a killed build
continues after the last one. Other kinds, and the fast-scan ones, are filled at once.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.files import digest_file, digest_json
from retrieval_kd.indexing.dense import add_rows, copied, faiss_threads, train_index, write_index
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.progress import bar

PART = 1_000_000  # documents
TRAINED = "trained"


def fill(
    index: Any, spec: IndexSpec, vectors: np.ndarray, normalised: bool, out: Path, inputs: Any
) -> tuple[Any, dict[str, Any]]:
    """Train an empty index, add all vectors, and return it with entries for the manifest.

    In memory are the finished index, one part, and 65,536 vectors.

    Args:
        vectors: (documents, dimensions), which may be mapped from disk.
        out: the index's folder, which holds the parts in a hidden folder. They stay there until the
            caller has written the index, and then calls `remove_parts`.
        inputs: what decides the index; parts of other inputs are removed.
    """
    start = time.monotonic()
    if len(vectors) <= PART or not joins(index):
        with faiss_threads(spec.threads):
            trained_on = train_index(index, spec, vectors, normalised)
            trained = time.monotonic()
            with bar("adding documents", len(vectors)) as progress:
                add_rows(index, spec, vectors, normalised, progress.advance)
        return index, _entries(trained_on, start, trained)
    folder = _folder(out, [inputs, spec.as_dict(), len(vectors), PART])
    with faiss_threads(spec.threads):
        kept = _kept(folder, TRAINED)
        if kept is None:
            train_index(index, spec, vectors, normalised)
            kept = _keep(index, folder, TRAINED)
        index = faiss.read_index(str(kept))
        trained, parts = time.monotonic(), []
        with bar("adding documents", len(vectors)) as progress:
            for number, first in enumerate(range(0, len(vectors), PART)):
                rows, name = vectors[first : first + PART], f"{number:06d}"
                kept = _kept(folder, name)
                if kept is None:
                    part = copied(index)
                    add_rows(part, spec, rows, normalised, progress.advance)
                    kept = _keep(part, folder, name)
                else:
                    progress.advance(len(rows))
                parts.append(kept)
        for path in parts:
            part = faiss.read_index(str(path))
            index.merge_from(part, index.ntotal)
    return index, _entries(min(len(vectors), spec.train_documents), start, trained)


def joins(index: Any) -> bool:
    """Whether parts of this index can be joined to just what adding at once makes.

    Example:
        >>> joins(faiss.index_factory(8, "IVF4,SQ8")), joins(faiss.index_factory(8, "HNSW8"))
        (True, False)
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return joins(index.index)
    return isinstance(index, faiss.IndexIVF) and "FastScan" not in type(index).__name__


def _kept(folder: Path, name: str) -> Path | None:
    """Find a part that is written and undamaged: its file's name has its digest."""
    for path in folder.glob(f"{name}-*.faiss"):
        if digest_file(path) == path.stem.partition("-")[2]:
            return path
        path.unlink()
    return None


def _keep(part: Any, folder: Path, name: str) -> Path:
    """Write a part."""
    path = folder / f"{name}.writing"
    write_index(part, path)
    return path.rename(folder / f"{name}-{digest_file(path)}.faiss")


def remove_parts(out: Path, keep: Path | None = None) -> None:
    """Remove the parts in an index's folder, of this build and of others that were given up."""
    for folder in out.glob(".parts-*"):
        if folder != keep:
            shutil.rmtree(folder)


def _folder(out: Path, inputs: Any) -> Path:
    """Return the folder of the parts of these inputs; those of others are removed."""
    folder = out / f".parts-{digest_json(inputs)}"
    remove_parts(out, keep=folder)
    folder.mkdir(exist_ok=True)
    return folder


def _entries(trained_on: int, start: float, trained: float) -> dict[str, Any]:
    seconds = {"train": trained - start, "add": time.monotonic() - trained}
    return {
        "trained_on": trained_on,
        "seconds": {name: round(took, 3) for name, took in seconds.items()},
    }
