"""Searches side by side: every index, BM25 and their fusion, with what matched and a teacher.

A `Service` knows nothing of the web. It is checked when it is made, before any model is loaded.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from retrieval_kd.data.collection import Collection, DocumentsAlone
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.shards import check_distinct
from retrieval_kd.retrieval.hybrid import fuse_by_manifest
from retrieval_kd.retrieval.hybrid_folder import (
    LEXICAL,
    check_parts,
    is_hybrid,
    open_texts,
    parts_of,
    read_hybrid,
    weights_of,
)
from retrieval_kd.serving.marks import (
    Match,
    Matched,
    Passage,
    Piece,
    QueryTerms,
    pieces,
    window,
)
from retrieval_kd.serving.systems import (
    BM25_NAME,
    FUSED,
    HYBRID,
    BM25System,
    Found,
    Fuse,
    Identifiers,
    IndexSystem,
    by_rank,
    fused,
)
from retrieval_kd.teachers.kinds import PointwiseTeacher
from retrieval_kd.teachers.spec import check_spec, open_teacher, parse_spec, strategy_in


@dataclass(frozen=True)
class Hit:
    """A document in a list.

    `teacher` is the teacher's score if it re-ranked this document, and `rank_before` the rank
    that the system itself gave it. Marks and words are empty unless they were asked for.
    """

    id: str
    score: float
    rank_before: int
    teacher: float | None = None
    title: str = ""
    text: str = ""
    title_marks: Sequence[Piece] = ()
    text_marks: Sequence[Piece] = ()
    words: Sequence[Match] = ()


@dataclass(frozen=True)
class Listed:
    """A system's list."""

    system: str
    found: Found
    hits: list[Hit]


@dataclass(frozen=True)
class Answer:
    """All lists of a query; `teacher_ms` is 0 without re-ranking."""

    lists: list[Listed]
    reranked: int = 0
    teacher_ms: float = 0.0
    marks_ms: float = 0.0


class Service:
    """Indexes of one collection, or a hybrid index.

    Args:
        folders: index folders, whose names become those of their systems; or one hybrid index.
        teacher: a teacher that scores pairs, to re-rank with.
        rerank: how many documents of each list it re-ranks.

    Raises:
        InputError: a folder holds no finished index, two have different documents, or the teacher
            cannot re-rank.
    """

    def __init__(
        self, folders: Sequence[Path], teacher: str | None = None, rerank: int = 10
    ) -> None:
        check_teacher(teacher)
        self.single: list[IndexSystem | BM25System]
        self.hybrid = next((folder for folder in folders if is_hybrid(folder)), None)
        if self.hybrid is None:
            self._take_indexes(folders)
        elif len(folders) > 1:
            remedy = "serve it alone: its parts are shown beside it"
            raise InputError("a hybrid index with others", file=self.hybrid, remedy=remedy)
        else:
            self._take_parts(self.hybrid)
        self.teacher_spec, self.rerank = teacher, rerank
        self.ready = False
        self._teacher: PointwiseTeacher | None = None
        self._teaching = threading.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def _take_indexes(self, folders: Sequence[Path]) -> None:
        """Show indexes, BM25, and all of them fused by reciprocal rank."""
        self.indexes = [IndexSystem(name, folder) for name, folder in _named(folders).items()]
        digests = [index.manifest["documents_digest"] for index in self.indexes]
        for index, digest in zip(self.indexes, digests, strict=True):
            if digest != digests[0]:
                raise InputError(
                    f"its documents are not those of {self.indexes[0].folder}",
                    file=index.folder,
                    remedy="serve indexes of one collection together, changed in the same way, "
                    "others on another port",
                )
        self.single = [*self.indexes, BM25System()]
        self._fuse: Fuse = by_rank
        self._asked = FUSED
        self._how = "all lists, fused by reciprocal rank"

    def _take_parts(self, folder: Path) -> None:
        """Show the parts of a hybrid index, and their fusion with its weights."""
        self._manifest = manifest = read_hybrid(folder)
        check_parts(folder, manifest)
        places = [(part, folder / manifest["content"] / part.name) for part in parts_of(manifest)]
        self.single = [
            BM25System(part, at) if part.kind == LEXICAL else IndexSystem(part.name, at)
            for part, at in places
        ]
        self.indexes = [one for one in self.single if isinstance(one, IndexSystem)]
        self._fuse = partial(fuse_by_manifest, manifest)
        self._asked = int(manifest["fusion"]["candidates"])
        weights = weights_of(manifest).items()
        told = ", ".join(f"{name} {weight:.2g}" for name, weight in weights)
        self._how = f"{manifest['fusion']['how']}, weights: {told}"

    def close(self) -> None:
        """Delete the temporary texts; afterwards nothing can be searched."""
        self.ready = False
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def names(self) -> list[str]:
        """All systems, in the order they are shown."""
        return [*(one.name for one in self.single), HYBRID]

    @property
    def teacher_name(self) -> str | None:
        """The teacher without the folder of its model and without options, which name files."""
        if self.teacher_spec is None:
            return None
        spec = parse_spec(self.teacher_spec)
        name = Path(spec.model).name
        return name if spec.kind in ("pointwise", spec.model) else f"{spec.kind}:{name}"

    def kinds(self) -> list[tuple[str, str, str]]:
        """Return name, kind and description of all systems."""
        rows = [(one.name, one.kind, one.about) for one in self.single]
        return [*rows, (HYBRID, HYBRID, self._how)]

    def load(self) -> None:
        """Open the indexes and load the models; a query then loads nothing more.

        Raises:
            InputError: an index is damaged, its collection has changed, or a model cannot be
                loaded.
        """
        for index in self.indexes:
            index.load()
        self.collection = self._documents()
        self.identifiers = Identifiers(self.collection.documents)
        for one in self.single:
            if isinstance(one, BM25System):
                one.load(self.collection.documents)
        if self.teacher_spec is not None:
            opened = open_teacher(self.teacher_spec, self.collection)
            assert isinstance(opened, PointwiseTeacher)
            opened.score(["a first query"], [self.collection.documents.at(0)])
            self._teacher = opened
        self.ready = True

    def _documents(self) -> Collection:
        """The documents as they are in the indexes, which may have been changed."""
        if self.hybrid is not None:
            texts = open_texts(self.hybrid, self._manifest)
            return DocumentsAlone(self._manifest["collection"]["name"], texts)
        first = self.indexes[0].index
        collection = first.collection()
        if first.layout.number:
            self._folder = tempfile.TemporaryDirectory(
                prefix="rkd-serve-",
                ignore_cleanup_errors=True,  # closed while it is being filled
            )
            collection.documents = first.live_texts(Path(self._folder.name) / "documents")
        return collection

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        systems: Sequence[str] | None = None,
        prefix: str = "",
        rerank: bool = False,
        highlight: bool = False,
    ) -> Answer:
        """Return the best `k` documents of each system.

        Args:
            systems: their names; by default all.
            prefix: beginning of the IDs of the documents that may be found.
            rerank: have the teacher put the first documents of each list in its order.
            highlight: mark what matched.
        """
        found = self._find(query, k, self.names if systems is None else systems, prefix)
        lists = {
            name: [Hit(id, score, rank) for rank, (id, score) in enumerate(one.hits[:k], 1)]
            for name, one in found.items()
        }
        start = time.perf_counter()
        reranked = self._rerank(query, lists) if rerank else 0
        teacher_ms = 1000 * (time.perf_counter() - start) if rerank else 0.0
        start = time.perf_counter()
        listed = self._with_texts(query, lists, highlight)
        marks_ms = 1000 * (time.perf_counter() - start)
        answers = [Listed(name, found[name], hits) for name, hits in listed.items()]
        return Answer(answers, reranked, teacher_ms, marks_ms)

    def _find(self, query: str, k: int, names: Sequence[str], prefix: str) -> dict[str, Found]:
        depth = max(k, self._asked) if HYBRID in names else k
        filter = self.identifiers.with_prefix(prefix)
        found = {
            one.name: one.search(query, depth, filter)
            for one in self.single
            if one.name in names or HYBRID in names
        }
        if HYBRID in names:
            found[HYBRID] = fused(found, k, depth, self._fuse)
        return {name: found[name] for name in self.names if name in names}

    def _rerank(self, query: str, lists: dict[str, list[Hit]]) -> int:
        """Put the first documents of each list in the teacher's order; return how many it read."""
        assert self._teacher is not None
        documents = self.collection.documents
        first = {hit.id: None for hits in lists.values() for hit in hits[: self.rerank]}
        pairs = [documents[id] for id in first if id in documents]
        if not pairs:
            return 0
        with self._teaching:
            scores = self._teacher.score([query] * len(pairs), pairs)
        by_id = {d.id: float(s) for d, s in zip(pairs, np.asarray(scores), strict=True)}
        for name, hits in lists.items():
            scored = [replace(hit, teacher=by_id.get(hit.id)) for hit in hits[: self.rerank]]
            order = sorted(scored, key=lambda hit: np.inf if hit.teacher is None else -hit.teacher)
            lists[name] = order + hits[self.rerank :]
        return len(pairs)

    def _with_texts(
        self, query: str, lists: dict[str, list[Hit]], highlight: bool
    ) -> dict[str, list[Hit]]:
        """Add titles, the passages' best parts, and what matched."""
        documents, terms = self.collection.documents, QueryTerms(query)
        passages = {
            id: Passage.of(documents[id] if id in documents else Document(id, "", ""))
            for id in {hit.id: None for hits in lists.values() for hit in hits}
        }
        literal = {id: terms.marks(passage.full) for id, passage in passages.items()}
        indexes = {index.name: index for index in self.indexes}
        shown = {}
        for name, hits in lists.items():
            matched: Sequence[Matched | None] | None = [None] * len(hits)
            if highlight and name in indexes:
                texts = [passages[hit.id].full for hit in hits]
                matched = indexes[name].matches(query, texts)
            elif highlight:
                matched = [Matched(literal[hit.id], []) for hit in hits]
            each = matched if matched is not None else [None] * len(hits)
            shown[name] = [
                _shown(hit, passages[hit.id], literal[hit.id], one)
                for hit, one in zip(hits, each, strict=True)
            ]
        return shown


def check_teacher(teacher: str | None) -> None:
    """Refuse a teacher that cannot re-rank, before anything is loaded."""
    if teacher is None:
        return
    if strategy_in(teacher) is not None:
        raise InputError(
            "a teacher that compares documents takes too many calls for one search",
            id=teacher,
            remedy="give one that scores them one by one: a cross-encoder's MODEL, yesno:, dense:",
        )
    check_spec(teacher)


def _shown(hit: Hit, passage: Passage, literal: np.ndarray, matched: Matched | None) -> Hit:
    """Add a passage's title and its best part to a hit."""
    at = passage.text_start
    marks = literal if matched is None else matched.marks
    start, end = window(passage.text, (marks if marks[at:].any() else literal)[at:])
    before, after = start > 0, end < len(passage.text)
    text = passage.text[start:end]
    hit = replace(
        hit, title=passage.title, text=f"{'… ' if before else ''}{text}{' …' if after else ''}"
    )
    if matched is None:
        return hit
    cut = pieces(text, marks[at + start : at + end])
    ends = [Piece("… ", 0.0)] * before, [Piece(" …", 0.0)] * after
    titles = pieces(passage.title, marks[: len(passage.title)])
    return replace(
        hit, title_marks=titles, text_marks=[*ends[0], *cut, *ends[1]], words=matched.words
    )


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """Name each index after its folder, with a number where that is not unique.

    Absolute paths would tell everybody who searches how this machine is laid out.
    """
    check_distinct(folders)
    plain = [folder.resolve().name for folder in folders]
    named: dict[str, Path] = {}
    for name, folder in zip(plain, folders, strict=True):
        if name in (BM25_NAME, HYBRID, *named):
            numbered = (f"{name}-{number}" for number in itertools.count(2))
            name = next(other for other in numbered if other not in (*plain, *named))
        named[name] = folder
    return named
