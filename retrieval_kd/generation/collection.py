"""Make a collection with a split of queries that a language model wrote, and say how it was made.

The folder is a BEIR folder: the documents, the queries and the judgments of the collection it is
made from, and one more split. `generation.json` says from what and how it was made, and counts what
was left out; `dropped.jsonl` has what was left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.qrels import write_qrels
from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_folder, atomic_path, check_replaceable, write_json
from retrieval_kd.generation.filters import (
    GeneratedQuery,
    each_query_once,
    overlapping,
    with_ranks,
)
from retrieval_kd.models.names import check_exists
from retrieval_kd.retrieval.retrieve import retriever_models
from retrieval_kd.teachers.generate.queries import WrittenQueries
from retrieval_kd.teachers.generate.write import QueryTask, WritingReport, write_about
from retrieval_kd.teachers.llm.protocol import LanguageModel

ABOUT, DROPPED = "generation.json", "dropped.jsonl"


@dataclass(frozen=True)
class Filters:
    """What a written query must pass.

    Args:
        against: splits whose queries it must not overlap with.
        retrievers: one of them must find a document that it was written about. If there are none,
            nothing is searched for, and `depth` says nothing.
        depth: how many results of a retriever are looked at.
    """

    against: tuple[str, ...] = ()
    retrievers: tuple[str, ...] = ("bm25",)
    depth: int = 10


def generate_collection(
    collection: Collection,
    model: LanguageModel,
    task: QueryTask,
    filters: Filters,
    store: Path,
    out: Path,
    *,
    split: str = "generated",
    documents: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Have a model write queries about documents, filter them, and write a collection with them.

    Args:
        store: a folder for the model's answers, word for word, outside `out`. What is in it is not
            asked again.
        out: a folder that does not exist yet, or of an earlier call.
        split: the name of the new split.
        documents: how many, drawn at random; by default all.
        seed: of the draw.

    Returns:
        What is written to `generation.json`. If no query is left, nothing is written.

    Raises:
        InputError: an argument is wrong; nothing was asked.
        Stopped: a limit was reached, or the server is gone; the answers so far are stored.
    """
    check_generation(collection, filters, store, out, split)
    ids = draw_documents(collection, documents, seed)
    report = write_about(collection.documents, ids, model, task, store)
    queries, overlaps, not_found = filtered(report.answers, collection, filters, split)
    dropped = overlaps | not_found
    about = _about(collection, model, task, filters, report, queries, overlaps, not_found)
    about |= {"split": split, "documents_drawn": len(ids), "seed": seed}
    if len(dropped) == len(queries):
        return about
    with atomic_folder(out) as folder:
        write_collection(collection, queries, dropped, folder, split)
        write_json(folder / ABOUT, about)
    return about


def check_generation(
    collection: Collection, filters: Filters, store: Path, out: Path, split: str
) -> None:
    """Refuse what could not be finished, or would lose answers, before a model is asked."""
    check_replaceable(out, ABOUT, "a generated collection")
    if store.resolve().is_relative_to(out.resolve()):
        raise InputError(
            f"the answers would be lost with {out}, which is replaced as a whole",
            file=store,
            remedy="store them in a folder outside it",
        )
    if split in collection.splits:
        raise InputError(
            f"collection {collection.name} has a split {split!r}", remedy="name another"
        )
    if not split.isidentifier():
        raise InputError(
            f"{split!r} is no name for a split",
            remedy="use letters, digits and _, and no digit first",
        )
    start = f"{split}:"  # of the new queries' IDs
    if taken := [query.id for query in collection.queries.iterate() if query.id.startswith(start)]:
        raise InputError(
            f"collection {collection.name} has queries whose IDs begin with {start!r}, as the new "
            "ones will",
            id=taken[0],
            remedy="name another split",
        )
    for one in filters.against:
        collection.qrels(one)
    for retriever in filters.retrievers:
        for model in retriever_models(retriever):
            check_exists(model)


def draw_documents(collection: Collection, count: int | None, seed: int) -> list[str]:
    """Return IDs of `count` random documents, or of all, in the order of the collection."""
    size = len(collection.documents)
    rows: Sequence[int] = range(size)
    if count is not None and count < size:
        drawn = np.random.default_rng(seed).choice(size, count, replace=False)
        rows = sorted(drawn.tolist())
    return [collection.documents.id_at(row) for row in rows]


def draw_examples(
    collection: Collection, split: str, count: int, seed: int
) -> tuple[tuple[str, str], ...]:
    """Return (document, query) pairs of a split's judgments, drawn at random, a document once."""
    pairs = [
        (document, query)
        for query, judged in collection.qrels(split).items()
        for document, gain in judged.items()
        if gain > 0
    ]
    chosen: dict[str, str] = {}
    for row in np.random.default_rng(seed).permutation(len(pairs)):
        if len(chosen) == count:
            break
        document, query = pairs[row]
        text = collection.documents[document].full.strip()
        if text and collection.queries[query].full.strip():
            chosen.setdefault(text, collection.queries[query].full)
    if len(chosen) < count:
        raise InputError(
            f"split {split!r} has {len(chosen)} relevant documents to show, {count} are wanted",
            remedy="ask for fewer examples",
        )
    return tuple(chosen.items())


def filtered(
    answers: Sequence[WrittenQueries], collection: Collection, filters: Filters, split: str
) -> tuple[list[GeneratedQuery], dict[str, str], dict[str, str]]:
    """Return all distinct queries; with the reason, the IDs that overlap, and those not found.

    Overlaps are looked for first, so that the share that a retriever finds is that of queries
    which may be trained on.
    """
    queries = each_query_once(answers, split)
    overlaps = overlapping(queries, collection, filters.against)
    rest = [query for query in queries if query.id not in overlaps]
    if not filters.retrievers:
        return queries, overlaps, {}
    ranked = {q.id: q for q in with_ranks(rest, collection, filters.retrievers, filters.depth)}
    reason = f"not found among the first {filters.depth}"
    not_found = {query.id: reason for query in ranked.values() if not query.ranks}
    return [ranked.get(query.id, query) for query in queries], overlaps, not_found


def write_collection(
    collection: Collection,
    queries: Sequence[GeneratedQuery],
    dropped: Mapping[str, str],
    folder: Path,
    split: str,
) -> None:
    """Write the documents, all queries and judgments, and those of the new split."""
    kept = [query for query in queries if query.id not in dropped]
    _write_lines(
        folder / "corpus.jsonl",
        (
            {"_id": document.id, "title": document.title, "text": document.text}
            for document in collection.documents.iterate()
        ),
    )
    old = ({"_id": query.id, "text": query.full} for query in collection.queries.iterate())
    _write_lines(folder / "queries.jsonl", chain(old, map(_record, kept)))
    for one in collection.splits:
        write_qrels(collection.qrels(one), folder / "qrels" / f"{one}.tsv")
    judged = {query.id: dict.fromkeys(query.documents, 1) for query in kept}
    write_qrels(judged, folder / "qrels" / f"{split}.tsv")
    left_out = [
        {**_record(query), "reason": dropped[query.id]} for query in queries if query.id in dropped
    ]
    _write_lines(folder / DROPPED, left_out)


def _about(
    collection: Collection,
    model: LanguageModel,
    task: QueryTask,
    filters: Filters,
    report: WritingReport,
    queries: Sequence[GeneratedQuery],
    overlaps: Mapping[str, str],
    not_found: Mapping[str, str],
) -> dict[str, Any]:
    """What was made from what, and how much of it is left."""
    tested = len(queries) - len(overlaps)
    found = {name: sum(name in query.ranks for query in queries) for name in filters.retrievers}
    return {
        "collection": collection.name,
        "digest": collection.digest(),
        "model": model.name,
        "fingerprint": task.key(model).fingerprint,
        "task": asdict(task),
        "filters": asdict(filters),
        "answers": {
            "documents": len(report.answers),
            "without_text": len(report.without_text),
            "failed": len(report.failed),
            **Counter(answer.problem.replace(" ", "_") or "ok" for answer in report.answers),
        },
        "queries": {
            "written": sum(len(answer.queries) for answer in report.answers),
            "distinct": len(queries),
            "overlapping": len(overlaps),
            "not_found": len(not_found),
            "kept": tested - len(not_found),
        },
        "round_trip": {
            name: round(count / tested, 4) if tested else None for name, count in found.items()
        },
        "spent": asdict(report.spent),
        "reused": report.reused,
        "failure": report.failure,
    }


def _record(query: GeneratedQuery) -> dict[str, Any]:
    facts = {"documents": list(query.documents), "ranks": dict(query.ranks)}
    return {"_id": query.id, "text": query.text, "metadata": facts}


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        for record in records:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
