"""Searches several indexes of one model as one, each with the documents of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from retrieval_kd.data.runs import Run, ranked
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.index import Hits, Index, run_of
from retrieval_kd.indexing.segments import positions

WORDS = {"model_digest": "model", "max_length": "maximum length", "query_prompt": "query prompt",
         "document_prompt": "document prompt", "dimensions": "number of dimensions"}  # fmt: skip
SAME = ("model_digest", "max_length", "dtype", "query_prompt", "document_prompt", "dimensions",
        "metric", "normalised")  # fmt: skip


def check_distinct(folders: Sequence[str | Path]) -> None:
    """Refuse a folder that is given twice, under two names too."""
    seen: set[Path] = set()
    for folder in map(Path, folders):
        if folder.resolve() in seen:
            raise InputError("an index is given twice", file=folder, remedy="give each once")
        seen.add(folder.resolve())


class Shards:
    """Several indexes of one model. Where they are exact, so is what they find together.

    Example:
        >>> Shards.open(["news-2023", "news-2024"]).search(["tides"], 10)    # doctest: +SKIP
        [[('n24-17', 0.71), ('n23-4', 0.66)]]
    """

    def __init__(self, indexes: Sequence[Index]) -> None:
        self.indexes = indexes
        first = indexes[0]
        for other in indexes[1:]:
            names = [n for n in SAME if first.manifest.get(n) != other.manifest.get(n)]
            if names:
                of, to = (index.manifest.get(names[0]) for index in (first, other))
                if names[0] == "model_digest":
                    of, to = first.manifest["model"], other.manifest["model"]
                raise InputError(
                    f"its {WORDS.get(names[0], names[0])} is {to}, and that of {first.folder} "
                    f"{of}: their scores do not compare",
                    file=other.folder,
                    remedy="search them one by one, or build them with the same settings",
                )

    @classmethod
    def open(
        cls,
        folders: Sequence[str | Path],
        model_spec: str | None = None,
        *,
        search: str | None = None,
    ) -> Shards:
        """Open index folders, each as `Index.open` does.

        Raises:
            InputError: their models or settings differ, so that their scores do not compare, or
                one is given twice.
        """
        check_distinct(folders)
        return cls([Index.open(folder, model_spec, search=search) for folder in folders])

    def __len__(self) -> int:
        return sum(map(len, self.indexes))

    def search(self, texts: Sequence[str], depth: int = 10) -> list[Hits]:
        """Return the `depth` best hits of all for each query text, in the order of a `Run`.

        Raises:
            InputError: two indexes have a document with the same ID among their hits.
        """
        vectors = self.indexes[0].encode(texts)
        found = [index.search_vectors(vectors, depth) for index in self.indexes]
        return [self._merged(lists, depth) for lists in zip(*found, strict=True)]

    def _merged(self, lists: Sequence[Hits], depth: int) -> Hits:
        hits = {id: score for one in lists for id, score in one}
        if len(hits) < sum(map(len, lists)):
            owners: dict[str, Path] = {}
            for index, one in zip(self.indexes, lists, strict=True):
                for id, _ in one:
                    if id in owners:
                        problem = f"a document with this ID is in {owners[id]} too"
                        remedy = "delete it from one of them: rkd index delete"
                        raise InputError(problem, file=index.folder, id=id, remedy=remedy)
                    owners[id] = index.folder
        return list(ranked(hits).items())[:depth]

    def search_run(
        self, queries: Mapping[str, str], depth: int = 100, *, exclude_self: bool = True
    ) -> Run:
        """Search for queries by ID and return a run."""
        name = "+".join(index.folder.name for index in self.indexes)
        return run_of(self.search, queries, depth, exclude_self, name)

    def texts(self) -> ShardTexts:
        """Titles and texts by ID, of all indexes."""
        return ShardTexts(self.indexes)


class ShardTexts:
    """Titles and texts of the documents of several indexes."""

    def __init__(self, indexes: Sequence[Index]) -> None:
        self._parts = [(index, index.texts()) for index in indexes]

    def __getitem__(self, id: str) -> Document:
        for index, texts in self._parts[:-1]:
            if positions(index.ids, [id], index.deleted):
                return texts[id]
        return self._parts[-1][1][id]
