"""What the commands do with a folder that holds an index, be it of one model or a hybrid one.

`index_in` says which of the two it is. Both have the same verbs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from retrieval_kd.cli.options import one_model, part_models
from retrieval_kd.errors import InputError

if TYPE_CHECKING:
    from retrieval_kd.data.rows import Row
    from retrieval_kd.indexing.change import Change

Missing = Literal["error", "skip"]


class IndexFolder(Protocol):
    """An index on disk. No verb loads torch before the command's own options are checked."""

    folder: Path

    def add(self, documents: Iterable[Row], models: list[str] | None) -> Change:
        """Add documents; `models` is what `--model` names."""

    def delete(self, ids: Sequence[str], missing: Missing) -> Change:
        """Delete documents by ID."""

    def compact(self) -> Change:
        """Write the index in one piece."""

    def verify(self) -> list[str]:
        """Read every byte; return the problems."""

    def open(self, models: list[str] | None, parameters: str | None) -> Any:
        """Open it to search, with the parameters that `--search` gives."""


class OneModelFolder:
    """An index of one model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, documents: Iterable[Row], models: list[str] | None) -> Change:
        only = one_model(models)
        from retrieval_kd.indexing.change import add_documents

        return add_documents(self.folder, documents, model_spec=only)

    def delete(self, ids: Sequence[str], missing: Missing) -> Change:
        from retrieval_kd.indexing.change import delete_documents

        return delete_documents(self.folder, ids, missing=missing)

    def compact(self) -> Change:
        from retrieval_kd.indexing.change import compact_index

        return compact_index(self.folder)

    def verify(self) -> list[str]:
        from retrieval_kd.indexing.verify import verify_index

        return verify_index(self.folder)

    def open(self, models: list[str] | None, parameters: str | None) -> Any:
        only = one_model(models)
        from retrieval_kd.indexing.shards import Shards

        return Shards.open([self.folder], only, search=parameters)


class HybridFolder:
    """A hybrid index, which `rkd index combine` made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, documents: Iterable[Row], models: list[str] | None) -> Change:
        named = part_models(models)
        from retrieval_kd.retrieval.change_hybrid import add_to_hybrid

        return add_to_hybrid(self.folder, documents, models=named)

    def delete(self, ids: Sequence[str], missing: Missing) -> Change:
        from retrieval_kd.retrieval.change_hybrid import delete_from_hybrid

        return delete_from_hybrid(self.folder, ids, missing=missing)

    def compact(self) -> Change:
        from retrieval_kd.retrieval.change_hybrid import compact_hybrid

        return compact_hybrid(self.folder)

    def verify(self) -> list[str]:
        from retrieval_kd.retrieval.hybrid import verify_hybrid

        return verify_hybrid(self.folder)

    def open(self, models: list[str] | None, parameters: str | None) -> Any:
        if parameters is not None:
            problem = "--search is for an index of one model"
            remedy = "leave it out, and combine indexes that have these parameters"
            raise InputError(problem, file=self.folder, remedy=remedy)
        named = part_models(models)
        from retrieval_kd.retrieval.hybrid import HybridIndex

        return HybridIndex.open(self.folder, models=named)


def index_in(folder: Path) -> IndexFolder:
    """Return the index in a folder.

    Raises:
        InputError: there is none.
    """
    from retrieval_kd.retrieval.hybrid_folder import MANIFEST, is_hybrid

    if not (folder / MANIFEST).is_file():
        raise InputError("no finished index here", file=folder, remedy="build it with rkd index")
    return HybridFolder(folder) if is_hybrid(folder) else OneModelFolder(folder)


def open_indexes(
    folders: Sequence[IndexFolder], models: list[str] | None, parameters: str | None
) -> Any:
    """Open an index, or several of one model as one.

    Raises:
        InputError: one of several is a hybrid index.
    """
    if len(folders) == 1:
        return folders[0].open(models, parameters)
    for one in folders:
        if isinstance(one, HybridFolder):
            problem = "a hybrid index is not searched with others"
            raise InputError(problem, file=one.folder, remedy="give it alone")
    only = one_model(models)
    from retrieval_kd.indexing.shards import Shards

    return Shards.open([one.folder for one in folders], only, search=parameters)
