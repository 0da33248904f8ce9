"""The folder of a hybrid index: several indexes of the same documents, and how they are fused.

    I/manifest.json                 fusion, weights, where they come from, the parts' digests
    I/content-000000/documents/     IDs, titles and texts (`data/texts.py`)
    I/content-000000/bm25/          an index of BM25 (`bm25.py`)
    I/content-000000/NAME/          an index of a model (`indexing/index.py`)

A change writes the next `content-NNNNNN`, and then the manifest that names it. The manifest has the
digest of each part's own manifest or seal, and these have the digests of its files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import SEAL, DamagedFile, damage, digest_file, read_sealed
from retrieval_kd.retrieval.analysis import VERSION
from retrieval_kd.retrieval.bm25 import BM25, BM25Parameters
from retrieval_kd.schema import validate

MANIFEST, DOCUMENTS, HYBRID, LEXICAL = "manifest.json", "documents", "hybrid", "bm25"
ENTRIES = {"content", "count", "documents", "collection", "parts", "fusion"}
CONTENT = re.compile(r"content-\d{6}")
RESTORE = "restore the folder, or delete it and combine the parts again"
SHOWN = 3  # example IDs in an error


class Part(NamedTuple):
    """One of a hybrid's indexes, as its manifest has it.

    Attributes:
        kind: `bm25`, `dense`, `sparse` or `multi_vector`.
        digest: of its manifest or seal.
        parameters: of BM25.
        analysis: version of BM25's text analysis.
    """

    name: str
    kind: str
    digest: str
    parameters: dict[str, Any] | None = None
    analysis: int | None = None

    @property
    def by_words(self) -> bool:
        """Whether it lists only documents that share a word with the query."""
        return self.kind in (LEXICAL, "sparse")

    @property
    def mark(self) -> str:
        """The file that has the digests of the part's files."""
        return SEAL if self.kind == LEXICAL else MANIFEST


def is_hybrid(folder: Path) -> bool:
    """Whether a folder holds a hybrid index; one with a damaged manifest is none."""
    try:
        return bool(read_sealed(folder / MANIFEST).get("kind") == HYBRID)
    except (OSError, InputError):
        return False


def read_hybrid(folder: Path) -> dict[str, Any]:
    """Read the manifest of a hybrid index.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        manifest = read_sealed(folder / MANIFEST)
    except OSError as error:
        remedy = "make it with rkd index combine"
        raise InputError("no finished hybrid index here", file=folder, remedy=remedy) from error
    if manifest.get("kind") != HYBRID or not manifest.keys() >= ENTRIES:
        problem = "not the manifest of a hybrid index"
        raise DamagedFile(problem, file=folder / MANIFEST, remedy=RESTORE)
    return manifest


def parts_of(manifest: dict[str, Any]) -> list[Part]:
    return [Part(**fields) for fields in manifest["parts"]]


def weights_of(manifest: dict[str, Any]) -> dict[str, float]:
    """The weights by part, in the parts' order."""
    return {part.name: float(manifest["fusion"]["weights"][part.name])
            for part in parts_of(manifest)}  # fmt: skip


def check_parts(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse parts that are missing, or other ones than were combined; reads no large file."""
    content = folder / manifest["content"]
    marks = {part.name: (part.mark, part.digest) for part in parts_of(manifest)}
    for name, (mark, digest) in {**marks, DOCUMENTS: (SEAL, manifest["documents"])}.items():
        path = content / name / mark
        if not path.is_file():
            raise InputError("the hybrid index lacks this part", file=path.parent, remedy=RESTORE)
        if digest_file(path) != digest:
            problem = f"the part {name} is not the one that was combined"
            raise InputError(problem, file=path, remedy=RESTORE)


def open_texts(folder: Path, manifest: dict[str, Any]) -> Texts:
    """The documents' texts. Raises `InputError` if they are damaged."""
    with restorable():
        return Texts(folder / manifest["content"] / DOCUMENTS)


@contextlib.contextmanager
def restorable() -> Iterator[None]:
    """Give errors of a part's files the remedy of a hybrid index: no part is built again alone."""
    try:
        yield
    except InputError as error:
        raise InputError(error.problem, file=error.file, remedy=RESTORE) from error


def check_models(folder: Path, manifest: dict[str, Any], models: Iterable[str]) -> None:
    """Refuse a model for what is no part, or for one that has no model."""
    with_model = [part.name for part in parts_of(manifest) if part.kind != LEXICAL]
    for name in models:
        if name not in with_model:
            problem = f"no part with a model is called {name}"
            remedy = f"name one of: {', '.join(with_model)}" if with_model else "name no model"
            raise InputError(problem, file=folder, remedy=remedy)


def open_bm25(folder: Path, texts: Texts, part: Part, *, verify: bool = True) -> BM25:
    """Open a part that is BM25.

    Args:
        folder: of the part.

    Raises:
        InputError: its files are damaged, or another version of the text analysis made them.
    """
    problem = damage(folder) if verify else ""
    if problem:
        raise InputError(f"the part {part.name} is damaged: {problem}", file=folder, remedy=RESTORE)
    if part.analysis != VERSION:
        problem = f"{part.name} was made with version {part.analysis} of the text analysis, and "
        problem += f"this is version {VERSION}: queries would not match"
        raise InputError(problem, file=folder, remedy="combine the parts again")
    return BM25(folder, texts, validate(BM25Parameters, part.parameters, folder))


def check_same(first: str, known: set[str], other: str, ids: Iterable[str], folder: Path) -> None:
    """Refuse a part that has other documents than another one has."""
    own = set(ids)
    if own == known:
        return
    told = [
        f"{len(some):,} {where} (such as {', '.join(sorted(some)[:SHOWN])})"
        for some, where in ((known - own, f"only in {first}"), (own - known, f"only in {other}"))
        if some
    ]
    raise InputError(
        f"{first} has {len(known):,} documents and {other} {len(own):,}; of these, "
        f"{' and '.join(told)}",
        file=folder,
        remedy="combine indexes of the same documents: add or delete what differs, or build one "
        "of them again",
    )


def link_tree(source: Path, target: Path, names: Iterable[str] | None = None) -> None:
    """Give a folder's files, or those named, a second name below `target`; copy where links fail.

    Safe where files are replaced and never changed, as those of an index are.
    """
    files = (p.relative_to(source) for p in source.rglob("*") if p.is_file())
    for name in names if names is not None else (f for f in files if not _hidden(f)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copy2(source / name, target / name)


def copy_tree(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy the named files of a folder."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
