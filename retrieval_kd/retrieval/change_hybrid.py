"""Changes a hybrid index: each change is made to all of its parts, or to none.

It is made to a second `content-NNNNNN`, whose files are those of the first under another name, and
then the manifest names this one. So a kill at any moment leaves the old index or the new one; what
it left besides is removed by the next change. BM25 is built anew, from the texts in the folder.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from retrieval_kd.data.rows import Row
from retrieval_kd.data.texts import Document, Texts, build_texts
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.files import SEAL, atomic_folder, digest_file, sealed, sweep, write_json
from retrieval_kd.indexing.change import (
    Change,
    add_documents,
    change_lock,
    check_encoder,
    compact_index,
    delete_documents,
    new_rows,
    unknown_ids,
)
from retrieval_kd.indexing.index import check_files, read_manifest
from retrieval_kd.retrieval.analysis import VERSION
from retrieval_kd.retrieval.bm25 import BM25Parameters, write_bm25
from retrieval_kd.retrieval.hybrid_folder import (
    CONTENT,
    DOCUMENTS,
    LEXICAL,
    MANIFEST,
    Part,
    check_models,
    check_parts,
    link_tree,
    open_texts,
    parts_of,
    read_hybrid,
    restorable,
)
from retrieval_kd.schema import validate

NEW = ".new"  # the texts of an addition, while it is at work
MakeChange = Callable[[str, Path], Change]
"""Changes a part, by its name and folder."""


def add_to_hybrid(
    folder: str | Path,
    documents: Iterable[Document | Row],
    *,
    models: Mapping[str, str] | None = None,
) -> Change:
    """Add documents to all parts; one whose ID is in the index replaces what was there.

    The weights stay. A killed call changes nothing, and encodes again when it is repeated.

    Args:
        models: MODEL by part's name, for models that were moved.

    Raises:
        InputError: as `add_documents` does for a part; then no part is changed.

    Example:
        >>> add_to_hybrid("my-hybrid", [Document("d9", "Tides", "The moon.")])  # doctest: +SKIP
        Change(documents=61, loose=0.016, added=1, replaced=0, deleted=0, missing=0)
    """
    folder, models, drops = Path(folder), models or {}, Drops()
    with _changing(folder) as manifest:
        check_models(folder, manifest, models)
        for part in _indexes(manifest):  # before anything is encoded
            place = folder / manifest["content"] / part.name
            own = read_manifest(place)
            check_encoder(place, own, models.get(part.name, own["model"]))
        old, new = (
            open_texts(folder, manifest),
            build_texts(new_rows(documents, drops), folder / NEW),
        )
        replaced = sum(id in old for id in new.ids())

        def add(name: str, place: Path) -> Change:
            return add_documents(place, new.iterate(), model_spec=models.get(name))

        def live() -> Iterator[Row]:
            yield from (Row(*one) for one in old.iterate() if one.id not in new)
            yield from (Row(*one) for one in new.iterate())

        count, loose = _change(folder, manifest, add, live)
    drops.warn(str(folder))
    return Change(count, loose, added=len(new) - replaced, replaced=replaced)


def delete_from_hybrid(
    folder: str | Path, ids: Iterable[str], *, missing: Literal["error", "skip"] = "error"
) -> Change:
    """Delete documents from all parts by ID.

    Raises:
        InputError: as `delete_documents` does, or no document would be left.
    """
    if isinstance(ids, str):  # its letters would be taken for IDs
        remedy = f"give a list: [{ids!r}]"
        raise InputError("IDs to delete are one string", file=folder, remedy=remedy)
    folder, wanted = Path(folder), list(dict.fromkeys(ids))
    with _changing(folder) as manifest:
        old = open_texts(folder, manifest)
        found = {id for id in wanted if id in old}
        unknown = [id for id in wanted if id not in found]
        if unknown and missing == "error":
            raise unknown_ids(folder, unknown, len(wanted))
        if len(found) == len(old):
            remedy = "keep one, or delete the folder"
            raise InputError("no document would be left", file=folder, remedy=remedy)

        def delete(name: str, place: Path) -> Change:
            return delete_documents(place, found)

        def live() -> Iterator[Row]:
            return (Row(*one) for one in old.iterate() if one.id not in found)

        done = _change(folder, manifest, delete, live) if found else (len(old), 0.0)
    return Change(*done, deleted=len(found), missing=len(unknown))


def compact_hybrid(folder: str | Path) -> Change:
    """Write the parts that were changed anew, in one piece and without deleted rows.

    Raises:
        InputError: as `compact_index` does for a part; then no part is changed.
    """
    folder = Path(folder)
    with _changing(folder) as manifest:
        return Change(*_change(folder, manifest, lambda name, place: compact_index(place), None))


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[dict[str, Any]]:
    """Lock a hybrid index, remove what a killed change left, and yield the manifest."""
    read_hybrid(folder)  # before a lock is left in some other folder
    with change_lock(folder):
        manifest = read_hybrid(folder)
        check_parts(folder, manifest)
        for part in _indexes(manifest):
            place = folder / manifest["content"] / part.name
            with restorable():
                check_files(place, read_manifest(place)["files"], verify=False)
        sweep(folder)
        _remove_others(folder, manifest)
        try:
            yield manifest
        finally:
            shutil.rmtree(folder / NEW, ignore_errors=True)


def _change(
    folder: Path,
    manifest: dict[str, Any],
    change: MakeChange,
    live: Callable[[], Iterator[Row]] | None,
) -> tuple[int, float]:
    """Change all indexes, and write texts and BM25 anew from the `live` documents, if given.

    Returns the documents and the largest loose share of an index.
    """
    name = f"content-{int(manifest['content'][-6:]) + 1:06d}"
    with atomic_folder(folder / name) as content:
        link_tree(folder / manifest["content"], content)
        done = []
        for part in _indexes(manifest):
            done.append(change(part.name, content / part.name))
            (content / part.name / ".lock").unlink(missing_ok=True)
        texts = Texts(content / DOCUMENTS)
        if live is not None:
            texts = build_texts(live(), content / DOCUMENTS)
            for part in parts_of(manifest):
                if part.kind == LEXICAL:
                    with atomic_folder(content / part.name) as fresh:
                        write_bm25(texts, validate(BM25Parameters, part.parameters), fresh)
        if {one.documents for one in done} - {len(texts)}:
            problem = "the parts do not have the same documents"
            raise InputError(problem, file=folder, remedy="rkd index verify says more")
        marks = {p.name: digest_file(content / p.name / p.mark) for p in parts_of(manifest)}
        parts = [part._replace(digest=marks[part.name]) for part in parts_of(manifest)]
        if live is not None:  # BM25 is new
            parts = [p._replace(analysis=VERSION) if p.kind == LEXICAL else p for p in parts]
        changed = {
            "content": name,
            "count": len(texts),
            "documents": digest_file(content / DOCUMENTS / SEAL),
            "parts": [part._asdict() for part in parts],
        }
    write_json(folder / MANIFEST, sealed({**manifest, **changed}))
    _remove_others(folder, changed)
    return len(texts), max((one.loose for one in done), default=0.0)


def _remove_others(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Remove contents that the manifest does not name."""
    for path in folder.iterdir():
        if path.name == NEW or (CONTENT.fullmatch(path.name) and path.name != manifest["content"]):
            shutil.rmtree(path)


def _indexes(manifest: dict[str, Any]) -> list[Part]:
    return [part for part in parts_of(manifest) if part.kind != LEXICAL]
