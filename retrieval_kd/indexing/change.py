"""Changes a built index: adds, replaces and deletes documents by ID, and compacts it.

A change writes new files, and last the manifest that names them. So a kill at any moment leaves the
old index or the new one; what it left besides is removed by the next change.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout

from retrieval_kd.data.rows import Row
from retrieval_kd.data.texts import Document, Texts, build_texts
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.files import atomic_folder, digest_text, sealed, sweep, write_json
from retrieval_kd.indexing import dense, multi_vector, multi_vector_coded, sparse
from retrieval_kd.indexing.build import NAMES
from retrieval_kd.indexing.index import check_files, describe_files, open_vectors, read_manifest
from retrieval_kd.indexing.segments import (
    IDS,
    MANIFEST,
    OF_CHANGES,
    TEXTS,
    VECTORS,
    Layout,
    joined,
    positions,
    read_deleted,
    read_ids,
    remove_unlisted,
    rows_of,
    write_ids,
)
from retrieval_kd.models.encode import Shard, encode_shards, read_arrays, save_array, save_arrays
from retrieval_kd.models.load import document_digest, load_retriever

NEW = "new"  # the texts of an addition, until they are joined with those of earlier ones


@dataclass(frozen=True)
class Change:
    """What a change did.

    Attributes:
        missing: IDs to delete that were not in the index.
        documents: in the index now.
        loose: the share of rows that are deleted, or in segments; compacting makes it 0.
    """

    documents: int
    loose: float
    added: int = 0
    replaced: int = 0
    deleted: int = 0
    missing: int = 0


def add_documents(
    folder: str | Path, documents: Iterable[Document | Row], *, model_spec: str | None = None
) -> Change:
    """Add documents to an index; one whose ID is in the index replaces what was there.

    They are encoded as the others were, and get the codes of quantisers that were trained on those.
    A killed call continues from the vectors that it had encoded. An `Index` that is open stays as
    it is: open it again.

    Args:
        model_spec: the model that encoded the index, if it was moved.

    Raises:
        InputError: two documents with one ID, or another model (found before it is loaded), or
            another change is at work.

    Example:
        >>> add_documents("my-index", [Document("d9", "Tides", "The moon.")])  # doctest: +SKIP
        Change(documents=61, loose=0.016, added=1, replaced=0, deleted=0, missing=0)
    """
    folder, drops = Path(folder), Drops()
    with _changing(folder) as manifest:
        layout, spec = Layout.of(manifest), model_spec or manifest["model"]
        name, deleted = layout.name("segment"), read_deleted(folder, layout)
        with atomic_folder(folder / name) as part:
            new = build_texts(new_rows(documents, drops), part / NEW)
            check_encoder(folder, manifest, spec)
            found = positions(read_ids(folder, layout), list(new.ids()), deleted)
            shard = _encode(folder, manifest, spec, new)
            deleted = np.union1d(deleted, np.array(list(found.values()), np.int64))
            stay, joins = layout.split(len(new))
            first = layout.rows + sum(stay.values())  # of the rows that are written anew
            parts = list(_live_parts(folder, joins, first, deleted))
            shards = [rows_of(read_arrays(path.parent / VECTORS), live) for path, live in parts]
            save_arrays(part / VECTORS, **joined([*shards, shard]))
            parts.append((part / NEW, np.ones(len(new), dtype=bool)))
            build_texts(_live_rows(parts), part / TEXTS)
            shutil.rmtree(part / NEW)
        rows = sum(int(live.sum()) for _, live in parts)
        after = layout.next(segments={**stay, name: rows})
        digest = digest_text(manifest["documents_digest"], "added", new.digest)
        done = _publish(folder, manifest, after, deleted[deleted < first], digest)
    drops.warn(str(folder))
    return Change(*done, added=len(new) - len(found), replaced=len(found))


def delete_documents(
    folder: str | Path, ids: Iterable[str], *, missing: Literal["error", "skip"] = "error"
) -> Change:
    """Delete documents from an index by ID; no search shows them any more.

    Args:
        missing: what to do about IDs that are not in the index: refuse all, or skip these.

    Raises:
        InputError: an ID is not in the index, or another change is at work.
    """
    if isinstance(ids, str):  # its letters would be taken for IDs
        remedy = f"give a list: [{ids!r}]"
        raise InputError("IDs to delete are one string", file=folder, remedy=remedy)
    folder, wanted = Path(folder), list(dict.fromkeys(ids))
    with _changing(folder) as manifest:
        layout = Layout.of(manifest)
        deleted = read_deleted(folder, layout)
        found = positions(read_ids(folder, layout), wanted, deleted)
        unknown = [id for id in wanted if id not in found]
        if unknown and missing == "error":
            raise unknown_ids(folder, unknown, len(wanted))
        done = manifest["count"], _loose(layout, deleted)
        if found:
            deleted = np.union1d(deleted, np.array(list(found.values()), np.int64))
            digest = digest_text(manifest["documents_digest"], "deleted", *sorted(found))
            done = _publish(folder, manifest, layout.next(), deleted, digest)
    return Change(*done, deleted=len(found), missing=len(unknown))


def compact_index(folder: str | Path) -> Change:
    """Write an index's base anew, with the documents of all segments and without deleted rows.

    Vectors keep their codes, and quantisers what they were trained on; a graph is built anew.

    Raises:
        InputError: a file is damaged, no document is left, or FAISS cannot remove rows from this
            kind of index.
    """
    folder = Path(folder)
    with _changing(folder) as manifest:
        layout = Layout.of(manifest)
        deleted = read_deleted(folder, layout)
        if not len(deleted) and not layout.segments:
            return Change(manifest["count"], 0.0)
        if not manifest["count"]:
            remedy = "add some, or delete the folder"
            raise InputError("this index has no document left", file=folder, remedy=remedy)
        check_files(folder, manifest["files"], verify=True)
        live = np.ones(layout.total, dtype=bool)
        live[deleted] = False
        name, ids = layout.name("base"), read_ids(folder, layout)
        with atomic_folder(folder / name) as part:
            open_vectors(folder, manifest).rewrite(live, part)
            write_ids((str(ids[at].as_py()) for at in np.flatnonzero(live)), part / IDS)
            texts = [*_base_texts(folder, layout, deleted),
                     *_live_parts(folder, layout.segments, layout.rows, deleted)]  # fmt: skip
            has_texts = any(own.any() for _, own in texts)
            if has_texts:
                build_texts(_live_rows(texts), part / TEXTS)
        after = Layout(layout.number + 1, name, int(live.sum()), {}, texts=has_texts)
        digest = manifest["documents_digest"]
        return Change(*_publish(folder, manifest, after, deleted[:0], digest))


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[dict[str, Any]]:
    """Lock an index, remove what a killed change left, and yield the manifest."""
    read_manifest(folder)  # before a lock is left in some other folder
    with change_lock(folder):
        manifest = read_manifest(folder)
        files = manifest["files"]
        check_files(folder, files, verify=False)
        read = {n: files[n] for n in files if (own := Path(n).name) == IDS or own not in NAMES}
        check_files(folder, read, verify=True)
        sweep(folder)
        remove_unlisted(folder, files, NAMES)
        yield manifest


@contextlib.contextmanager
def change_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder's changes, or raise that another command has it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            "another command is changing this index", file=folder, remedy="wait until it has ended"
        ) from error
    try:
        yield
    finally:
        lock.release()


def unknown_ids(folder: Path, unknown: Sequence[str], wanted: int) -> InputError:
    """The error for IDs to delete that are not there."""
    return InputError(
        f"{len(unknown)} of {wanted} IDs to delete are not in this index: "
        f"{', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}",
        file=folder,
        remedy="check the IDs, or leave them out with --missing skip",
    )


def _publish(
    folder: Path, manifest: dict[str, Any], layout: Layout, deleted: np.ndarray, digest: str
) -> tuple[int, float]:
    """Write what is deleted, then the manifest. Returns the documents and the loose share."""
    before = Layout.of(manifest)
    name = before.deleted
    if not np.array_equal(deleted, read_deleted(folder, before)):
        name = f"deleted-{layout.number:06d}.npy" if len(deleted) else ""
        if name:
            save_array(folder / name, deleted)
    layout = replace(layout, deleted=name)
    files = _files(folder, manifest["files"], layout)
    count = layout.total - len(deleted)
    changed = {
        "documents_digest": digest,
        "count": count,
        "changes": asdict(layout),
        "files": files,
        "bytes": sum(file["bytes"] for file in files.values()),
    }
    write_json(folder / MANIFEST, sealed({**manifest, **changed}))
    remove_unlisted(folder, files, NAMES)
    for shards in folder.glob(".shards-*"):
        shutil.rmtree(shards)
    return count, _loose(layout, deleted)


def _files(folder: Path, known: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """Sizes and digests of the files of a layout; what was written before is not read again."""
    tops = {layout.base, *layout.segments, layout.deleted} - {""}
    kept = {
        name: file
        for name, file in known.items()
        if (top := Path(name).parts[0]) in tops or not (OF_CHANGES.fullmatch(top) or layout.base)
    }
    new = tops - {Path(name).parts[0] for name in kept}
    paths = [path for top in sorted(new) for path in (folder / top, *(folder / top).rglob("*"))]
    names = sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())
    return {**kept, **describe_files(folder, names)}


def _loose(layout: Layout, deleted: np.ndarray) -> float:
    of_base = int((deleted < layout.rows).sum())  # those of segments count as rows of segments
    return round((of_base + layout.total - layout.rows) / max(1, layout.total), 3)


def new_rows(documents: Iterable[Document | Row], drops: Drops) -> Iterator[Row]:
    """Yield documents as rows, and count the empty ones."""
    for number, document in enumerate(documents, start=1):
        if not document.title.strip() and not document.text.strip():
            drops.add("empty document kept", document.id)
        is_row = isinstance(document, Row)
        yield document if is_row else Row(*document[:3], "documents", number)  # type: ignore[misc]


def check_encoder(folder: Path, manifest: dict[str, Any], model_spec: str) -> None:
    """Refuse a model that would give the documents other vectors."""
    if document_digest(model_spec) != manifest["model_digest"]:
        changed = " (its files have changed since)" if model_spec == manifest["model"] else ""
        raise InputError(
            f"the documents of this index are encoded by {manifest['model']}, not by "
            f"{model_spec}{changed}",
            file=folder,
            remedy="add them with the model it was built with, or build it again",
        )


def _encode(folder: Path, manifest: dict[str, Any], model_spec: str, texts: Texts) -> Shard:
    """Encode documents as those of an index were."""
    settings = {name: manifest.get(name) for name in ("max_length", "dtype", "document_prompt")}
    dtype = getattr(torch, manifest["dtype"])
    model = load_retriever(model_spec, max_length=manifest["max_length"], dtype=dtype)
    kind = manifest["spec"].get("kind", "faiss")
    encode: Callable[[list[str], int], Shard]
    if kind == "faiss":
        encode = dense.encoder(model, manifest)
    elif manifest["spec"].get("bits"):
        prompt, pool = settings["document_prompt"], manifest["spec"]["pool"]
        encode = multi_vector_coded.encoder(model, prompt, pool)
    else:
        encode = (sparse if kind == "sparse" else multi_vector).encoder(
            model, settings["document_prompt"]
        )
    inputs = [manifest["model_digest"], settings, manifest["spec"], texts.digest]
    return joined([read_arrays(path) for path in encode_shards(encode, texts, folder, inputs)])


Part = tuple[Path, np.ndarray]  # a folder of texts, and which of its documents are live


def _live_parts(
    folder: Path, segments: dict[str, int], first: int, deleted: np.ndarray
) -> Iterator[Part]:
    """Yield segments, of which the first one's rows begin at `first`, with their live rows."""
    for name, rows in segments.items():
        yield folder / name / TEXTS, ~np.isin(np.arange(first, first + rows), deleted)
        first += rows


def _base_texts(folder: Path, layout: Layout, deleted: np.ndarray) -> Iterator[Part]:
    """Yield the base, if it has texts, with those whose document is still its own."""
    if layout.texts:
        path = folder / layout.base / TEXTS
        own = list(Texts(path).ids())
        found = positions(read_ids(folder, replace(layout, segments={})), own, deleted)
        yield path, np.array([id in found for id in own], dtype=bool)


def _live_rows(parts: Sequence[Part]) -> Iterator[Row]:
    for path, live in parts:
        for document, keep in zip(Texts(path).iterate(), live, strict=True):
            if keep:
                yield Row(*document)
