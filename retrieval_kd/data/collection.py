"""Collections: documents, queries and judgments by ID, from any source.

`open_collection` streams a source into the cache once, checks it by the policy of `docs/data.md`,
and opens the cached copy from then on. `specs.py` finds the reader of a source.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from retrieval_kd.data.qrels import collect, read_qrels, write_qrels
from retrieval_kd.data.rows import Qrels, Reader, Reading, Row
from retrieval_kd.data.specs import find_reader
from retrieval_kd.data.texts import Texts, build_texts
from retrieval_kd.errors import Drops, InputError, log
from retrieval_kd.files import (
    atomic_folder,
    cache_dir,
    digest_json,
    digest_text,
    is_whole,
    read_json,
    seal,
    write_json,
)
from retrieval_kd.progress import bar

VERSION = 3  # of the cached form and the policy; raising it reads every source again


class Collection:
    """Documents, queries and judgments by ID, memory-mapped. Made by `open_collection`."""

    def __init__(self, folder: str | Path, spec: str) -> None:
        self.folder, self.spec = Path(folder), spec
        facts = read_json(self.folder / "collection.json")
        self.name: str = facts["name"]
        self.splits: list[str] = facts["splits"]
        self.documents = Texts(self.folder / "documents")
        self.queries = Texts(self.folder / "queries")
        self.drops = Drops(Counter(facts["drops"]), dict(facts["first"]))
        self._qrels: dict[str, Qrels] = {}

    def __repr__(self) -> str:
        splits = ", ".join(self.splits) or "no splits"
        return (
            f"Collection({self.name}: {len(self.documents)} documents, "
            f"{len(self.queries)} queries, {splits})"
        )

    def qrels(self, split: str) -> Qrels:
        """Query ID → document ID → gain. Every ID is in `queries` and `documents`."""
        if split not in self.splits:
            splits = ", ".join(self.splits) or "none; it has no judgments"
            remedy = f"name one of its splits ({splits})"
            raise InputError(f"collection {self.name} has no split {split!r}", remedy=remedy)
        if split not in self._qrels:
            self._qrels[split] = read_qrels(self._qrels_file(split))
        return {query: dict(judged) for query, judged in self._qrels[split].items()}

    def query_texts(self, split: str) -> dict[str, str]:
        """Texts of a split's judged queries, in the order of its judgments."""
        return {query_id: self.queries[query_id].full for query_id in self.qrels(split)}

    def digest(self) -> str:
        """Digest of all documents and queries and their order, as 32 hex digits."""
        return digest_text(self.documents.digest, self.queries.digest)

    def qrels_digest(self, split: str) -> str:
        """Digest of a split's judgments in any order, as 32 hex digits."""
        return digest_json(self.qrels(split))

    def stats(self) -> dict[str, Any]:
        """Facts for a report: counts, average lengths, and what was dropped."""
        splits = {}
        for split in self.splits:
            qrels = self.qrels(split)
            gains = [gain for judged in qrels.values() for gain in judged.values()]
            relevant = sum(gain > 0 for gain in gains)
            splits[split] = {"queries": len(qrels), "judgments": len(gains), "relevant": relevant}
        return {
            "name": self.name,
            "spec": self.spec,
            "documents": len(self.documents),
            "queries": len(self.queries),
            "characters_per_document": round(self.documents.characters / len(self.documents), 1),
            "characters_per_query": round(self.queries.characters / len(self.queries), 1),
            "splits": splits,
            "drops": self.drops.summary(),
            "digest": self.digest(),
        }

    def _qrels_file(self, split: str) -> Path:
        return self.folder / "qrels" / f"{self.splits.index(split)}.tsv"


class DocumentsAlone(Collection):
    """Documents without queries and judgments, as an index may hold them."""

    def __init__(self, name: str, documents: Texts) -> None:
        self.folder, self.spec, self.name = documents.folder, name, name
        self.splits, self.documents, self.drops, self._qrels = [], documents, Drops(), {}

    def __getattr__(self, attribute: str) -> Any:
        if attribute != "queries":
            raise AttributeError(attribute)
        raise InputError(f"there are no queries beside the documents of {self.name}")


def open_collection(spec: str | Path) -> Collection:
    """Open a collection by folder, zip, `ir_datasets` ID or `python-api`.

    The first call reads the source. Logs what was dropped, with counts.

    Raises:
        InputError: unknown spec, or wrong input.

    Example:
        >>> import tempfile; folder = Path(tempfile.mkdtemp()) / "tides"; folder.mkdir()
        >>> _ = (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "The moon."}')
        >>> _ = (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "why tides"}')
        >>> _ = (folder / "qrels").mkdir(), (folder / "qrels/test.tsv").write_text(
        ...     "query-id\\tcorpus-id\\tscore\\nq1\\td1\\t1\\n")
        >>> collection = open_collection(folder)
        >>> collection
        Collection(tides: 1 documents, 1 queries, test)
        >>> collection.qrels("test")
        {'q1': {'d1': 1}}
        >>> collection.documents["d1"].full
        'The moon.'
    """
    reader = find_reader(str(spec))
    folder = (
        cache_dir() / "collections" / f"{reader.name}-{digest_json([VERSION, reader.key])[:16]}"
    )
    collection = _open(folder, str(spec)) or _build(reader, folder, str(spec))
    collection.drops.warn(collection.name)
    return collection


def _open(folder: Path, spec: str) -> Collection | None:
    if not is_whole(folder):
        return None
    try:
        return Collection(folder, spec)
    except (InputError, OSError) as error:  # it was replaced at this moment
        log.warning("%s is built again: %s", folder, error)
        return None


def _build(reader: Reader, folder: Path, spec: str) -> Collection:
    reading = Reading()
    for file in reader.ignored:
        reading.drops.add("file ignored, its name says nothing", file)

    def is_built(existing: Path) -> bool:  # built by another process in the meantime
        return _open(existing, spec) is not None

    with atomic_folder(folder, keep=is_built) as temporary:
        with bar(f"reading {reader.name}", reader.total) as progress:
            reading.advance = progress.advance
            rows = _documents(reader.documents(reading), reading.drops)
            documents = build_texts(_not_empty(rows, reader, "document"), temporary / "documents")
        reading.advance = Reading().advance
        rows = _queries(reader.queries(reading), reading.drops)
        queries = build_texts(
            _not_empty(rows, reader, "query"), temporary / "queries", noun="query"
        )
        splits = sorted(reader.judgments)
        if not splits:
            reading.drops.add("no judgments, so no splits", spec)
        for number, split in enumerate(splits):
            qrels = _judged(reader, split, reading, queries, documents)
            write_qrels(qrels, temporary / "qrels" / f"{number}.tsv")
        facts = {
            "name": reader.name,
            "splits": splits,
            "drops": reading.drops.counts,
            "first": reading.drops.first,
        }
        write_json(temporary / "collection.json", facts)
        seal(temporary)
    _sweep(folder)
    return Collection(folder, spec)


def _not_empty(rows: Iterator[Row], reader: Reader, noun: str) -> Iterator[Row]:
    """Pass the rows on; refuse a source that has none."""
    first = next(rows, None)
    if first is None:
        raise InputError(f"collection {reader.name} has no {noun}", remedy="add at least one")
    yield first
    yield from rows


def _documents(rows: Iterable[Row], drops: Drops) -> Iterator[Row]:
    """Keep empty documents: judgments name them (Cranfield has two)."""
    for row in rows:
        if not row.title.strip() and not row.text.strip():
            drops.add("empty document kept", row.id)
        yield row


def _queries(rows: Iterable[Row], drops: Drops) -> Iterator[Row]:
    """Drop empty queries: any ranking for them would be chance."""
    for row in rows:
        if row.title.strip() or row.text.strip():
            yield row
        else:
            drops.add("empty query dropped", row.id)


def _judged(
    reader: Reader, split: str, reading: Reading, queries: Texts, documents: Texts
) -> Qrels:
    qrels = collect(reader.judgments[split](reading), reading, queries, documents)
    if not qrels:
        raise InputError(
            f"split {split!r} of collection {reader.name} has no judgment of a known query and "
            "document",
            remedy="check that the qrels belong to these queries and documents",
        )
    for query_id, judged in qrels.items():
        if not any(judged.values()):
            reading.drops.add("judged query without a relevant document kept", query_id)
    return qrels


def _sweep(folder: Path) -> None:
    """Remove the temporary folders of builders that were killed more than a day ago."""
    newest = folder.stat().st_mtime
    for stale in (*folder.parent.glob(".*.part"), *folder.parent.glob(".*.old")):
        try:
            if newest - stale.stat().st_mtime > 86_400:
                shutil.rmtree(stale, ignore_errors=True)
        except OSError:
            continue
