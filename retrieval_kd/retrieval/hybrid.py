"""A hybrid index: BM25 and indexes of models over the same documents, fused with fixed weights.

`combine.py` makes its folder, `change_hybrid.py` changes it, `hybrid_folder.py` says what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.data.runs import Run
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.index import Hits, Index, check_files, read_manifest, run_of
from retrieval_kd.indexing.verify import verify_index
from retrieval_kd.retrieval.bm25 import BM25
from retrieval_kd.retrieval.fuse import floor, fuse_lists
from retrieval_kd.retrieval.hybrid_folder import (
    LEXICAL,
    Part,
    check_models,
    check_parts,
    check_same,
    open_bm25,
    open_texts,
    parts_of,
    read_hybrid,
    restorable,
    weights_of,
)


class HybridIndex:
    """Several indexes of the same documents, searched as one; from `combine_indexes` or `open`.

    Attributes:
        parts: `Index` or `BM25` by name.
        weights: of the parts, by name.

    Example:
        >>> hybrid = HybridIndex.open("my-hybrid")                           # doctest: +SKIP
        >>> hybrid.search(["why is the sky blue"], 1)                        # doctest: +SKIP
        [[('d42', 0.93)]]
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        parts: Mapping[str, Index | BM25],
        texts: Texts,
    ) -> None:
        self.folder, self.manifest, self.parts = folder, manifest, dict(parts)
        self._texts = texts
        self.weights = weights_of(manifest)
        self.fusion: dict[str, Any] = manifest["fusion"]

    def __len__(self) -> int:
        return int(self.manifest["count"])

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        models: Mapping[str, str] | None = None,
        verify: bool = True,
    ) -> HybridIndex:
        """Open the folder of a hybrid index, and check its parts against its manifest.

        Args:
            models: MODEL by part's name, for models that were moved.
            verify: compare all files' digests (reads every byte once).

        Raises:
            InputError: no finished index, or a part is damaged, missing or another one than was
                combined, or a model is not the one that encoded its part.
        """
        folder = Path(folder)
        manifest = read_hybrid(folder)
        check_models(folder, manifest, models or ())
        try:
            return _opened(folder, manifest, models or {}, verify)
        except (InputError, OSError):
            if read_hybrid(folder) == manifest:
                raise
            # it was changed at this moment, and the content that it had before was removed
            return cls.open(folder, models=models, verify=verify)

    def search(self, texts: Sequence[str], depth: int = 10) -> list[Hits]:
        """Return the `depth` best hits for each query text, in the order of a `Run`.

        Each part with a weight gives its best `candidates` documents (100, or `depth` if that is
        more), and `fuse_lists` puts them in one order.
        """
        asked = max(depth, int(self.fusion["candidates"]))
        found = {name: self.search_part(name, texts, asked) for name in self._used()}
        return [
            list(self.fuse({n: dict(lists[at]) for n, lists in found.items()}, asked).items())[
                :depth
            ]
            for at in range(len(texts))
        ]

    def search_part(self, name: str, texts: Sequence[str], depth: int) -> list[Hits]:
        """Return what one part finds."""
        part = self.parts[name]
        search = part.search if isinstance(part, Index) else part.search_all
        return search(texts, depth)

    def fuse(self, lists: Mapping[str, Mapping[str, float]], asked: int) -> dict[str, float]:
        """Fuse a query's lists of at most `asked` documents, by part's name."""
        return fuse_by_manifest(self.manifest, lists, asked)

    def search_run(
        self,
        queries: Mapping[str, str],
        depth: int = 100,
        *,
        exclude_self: bool = True,
        name: str | None = None,
    ) -> Run:
        """Search for queries by ID and return a run.

        A document whose ID is the query's is left out of each part's list before these are fused.
        """
        asked = max(depth, int(self.fusion["candidates"]))
        runs = self.part_runs(queries, asked, exclude_self=exclude_self, names=self._used())
        fused = {
            query: self.fuse({name: run.results[query] for name, run in runs.items()}, asked)
            for query in queries
        }
        return Run(name or self.folder.name, fused).top(depth)

    def part_runs(
        self,
        queries: Mapping[str, str],
        depth: int = 100,
        *,
        exclude_self: bool = True,
        names: Sequence[str] | None = None,
    ) -> dict[str, Run]:
        """Return the run of each part alone, or of those in `names`."""
        return {
            name: run_of(
                lambda texts, k, name=name: self.search_part(name, texts, k),  # type: ignore[misc]
                queries,
                depth,
                exclude_self,
                name,
            )
            for name in (self.parts if names is None else names)
        }

    def texts(self) -> Texts:
        """Titles and texts by ID."""
        return self._texts

    def _used(self) -> list[str]:
        """The parts with a weight; the others are not searched."""
        return [name for name, weight in self.weights.items() if weight]


def fuse_by_manifest(
    manifest: dict[str, Any], lists: Mapping[str, Mapping[str, float]], asked: int
) -> dict[str, float]:
    """Fuse a query's lists of at most `asked` documents as a hybrid's manifest says."""
    weights = weights_of(manifest)
    used = [p for p in parts_of(manifest) if weights[p.name] and p.name in lists]
    return fuse_lists(
        [lists[part.name] for part in used],
        [weights[part.name] for part in used],
        manifest["fusion"]["how"],
        [floor(lists[part.name], asked, part.by_words) for part in used],
    )


def verify_hybrid(folder: str | Path) -> list[str]:
    """Compare every file with the manifests, and the parts' documents. Returns the problems.

    Raises:
        InputError: there is no manifest, or it is damaged.
    """
    folder = Path(folder)
    manifest = read_hybrid(folder)
    content, problems = folder / manifest["content"], []
    try:
        check_parts(folder, manifest)
        texts = open_texts(folder, manifest)
    except (InputError, OSError) as error:
        return [str(error)]
    for part in parts_of(manifest):
        try:
            if part.kind == LEXICAL:
                open_bm25(content / part.name, texts, part)
            else:
                problems += verify_index(content / part.name)
        except (InputError, OSError) as error:
            problems.append(str(error))
    if problems:
        return problems
    opened = HybridIndex.open(folder, verify=False)
    known = set(texts.ids())
    for name, one in opened.parts.items():
        if isinstance(one, Index):
            try:
                check_same("documents", known, name, one.live_ids(), content / name)
            except InputError as error:
                problems.append(str(error))
    return problems


def _opened(
    folder: Path, manifest: dict[str, Any], models: Mapping[str, str], verify: bool
) -> HybridIndex:
    check_parts(folder, manifest)
    texts = open_texts(folder, manifest)

    def opened(part: Part) -> Index | BM25:
        place = folder / manifest["content"] / part.name
        if part.kind == LEXICAL:
            return open_bm25(place, texts, part, verify=verify)
        with restorable():
            check_files(place, read_manifest(place)["files"], verify)
        return Index.open(place, models.get(part.name), verify=False)

    parts = {part.name: opened(part) for part in parts_of(manifest)}
    for name, one in parts.items():
        count = len(one) if isinstance(one, Index) else len(texts)
        if count != manifest["count"]:
            problem = f"{name} has {count:,} documents, and the manifest {manifest['count']:,}"
            raise InputError(problem, file=folder, remedy="combine the parts again")
    return HybridIndex(folder, manifest, parts, texts)
