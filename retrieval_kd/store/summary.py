"""What is in a score store, in numbers, and its scores as files that other tools read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table

from retrieval_kd.data.runs import Run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_path
from retrieval_kd.store import shards as store_files
from retrieval_kd.store.answer_summary import AnswerSummary, OrderBias, export_answers
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.scores import ScoreStore, TeacherKey


@dataclass(frozen=True)
class ScoreSummary:
    """One teacher's answers in numbers; `candidates` and `scores` are of distinct pairs."""

    model: str
    fingerprint: str
    kind: str
    dtype: str
    max_length: int | None
    pairs: int
    queries: int
    candidates: dict[str, float]  # per query: min, median, max
    scores: dict[str, float]  # mean, std, min, max
    texts: str  # "known", "unknown" (stored by ID) or "partly known"
    rows: int
    shards: int
    bytes: int


def summarise(store: ScoreStore, key: TeacherKey) -> ScoreSummary:
    """Read all of a teacher's shards and count."""
    shards = store_files.shard_paths(store.folder(key))
    table = store.read(key)
    counts = pc.value_counts(table["query_digest"].cast(pa.binary())).field("counts").to_numpy()
    scores = table["score"].to_numpy().astype(np.float64)
    unknown = [store_files.texts_unknown(path) for path in shards]
    texts = {(False, True): "partly known", (True,): "unknown"}.get(tuple(sorted({*unknown})))
    return ScoreSummary(
        model=key.model,
        fingerprint=key.fingerprint,
        kind=key.kind,
        dtype=key.dtype,
        max_length=key.max_length,
        pairs=table.num_rows,
        queries=len(counts),
        candidates=_measured(counts, "min", "median", "max"),
        scores=_measured(scores, "mean", "std", "min", "max"),
        texts=texts or "known",
        rows=sum(pq.read_metadata(path).num_rows for path in shards),
        shards=len(shards),
        bytes=sum(path.stat().st_size for path in shards),
    )


def _measured(values: np.ndarray, *names: str) -> dict[str, float]:
    return {name: float(getattr(np, name)(values)) for name in names}


def export_scores(store: ScoreStore, key: TeacherKey, out: str | Path) -> int:
    """Write a teacher's scores, whole or not at all, in the shape the suffix names.

    `.tsv` and `.jsonl`: query_id, document_id, score; `.parquet`: with the digests; `.trec`: a run.
    Of pairwise and listwise teachers `.jsonl` and `.parquet`, with the answers as they were given.

    Raises:
        InputError: another suffix, or no scores.
    """
    path = Path(out)
    if not key.gives_scores:
        return export_answers(AnswerStore(store.folder(key), key), path)
    if path.suffix not in _WRITERS:
        remedy = f"name a file that ends in {', '.join(_WRITERS)}"
        raise InputError(f"cannot export as {path.suffix or 'nothing'}", file=path, remedy=remedy)
    table = store.read(key)
    with atomic_path(path) as temporary:
        _WRITERS[path.suffix](table, temporary, key)
    return table.num_rows


def _columns(table: pa.Table) -> Iterator[tuple[str, str, str]]:
    """Rows with the score in the fewest digits that give the same 32-bit number."""
    for batch in table.select(["query_id", "document_id", "score"]).to_batches():
        queries, documents, scores = batch.columns
        yield from zip(
            queries.to_pylist(),
            documents.to_pylist(),
            scores.cast("string").to_pylist(),
            strict=True,
        )


def _write_tsv(table: pa.Table, path: Path, key: TeacherKey) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.write("query_id\tdocument_id\tscore\n")
        out.writelines("\t".join(row) + "\n" for row in _columns(table))


def _write_jsonl(table: pa.Table, path: Path, key: TeacherKey) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for query, document, score in _columns(table):
            row = {"query_id": query, "document_id": document, "score": float(score)}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(table: pa.Table, path: Path, key: TeacherKey) -> None:
    pq.write_table(table, path, compression="zstd")


def _write_trec(table: pa.Table, path: Path, key: TeacherKey) -> None:
    results: dict[str, dict[str, float]] = {}
    for query, document, score in _columns(table):
        results.setdefault(query, {}).setdefault(document, float(score))
    write_run(Run(key.model.rstrip("/").rsplit("/", 1)[-1], results), path)


_WRITERS: dict[str, Callable[[pa.Table, Path, TeacherKey], None]] = {
    ".tsv": _write_tsv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
    ".trec": _write_trec,
}


One = TypeVar("One", ScoreSummary, AnswerSummary)


def tables(scores: Sequence[ScoreSummary], answers: Sequence[AnswerSummary]) -> list[Table]:
    """One of the teachers that score documents, one of those that compare them, where there are."""
    made = [_table(scores, _SCORE_ROWS)] if scores else []
    return made + ([_table(answers, _ANSWER_ROWS)] if answers else [])


def _table(summaries: Sequence[One], rows: Mapping[str, Callable[[One], str]]) -> Table:
    """It stays readable in 80 characters with two teachers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("teacher")
    for one in summaries:
        table.add_column(one.model, overflow="fold")
    for name, show in rows.items():
        table.add_row(name, *map(show, summaries))
    return table


def _share(bias: OrderBias | None, name: str) -> str:
    number = getattr(bias or OrderBias(0), name)
    return "–" if number is None else f"{number:.1%}"


_SCORE_ROWS: dict[str, Callable[[ScoreSummary], str]] = {
    "fingerprint": lambda one: one.fingerprint,
    "kind": lambda one: one.kind,
    "dtype": lambda one: one.dtype or "–",
    "max length": lambda one: str(one.max_length or "–"),
    "texts": lambda one: one.texts,
    "pairs": lambda one: f"{one.pairs:,}",
    "queries": lambda one: f"{one.queries:,}",
    "candidates": lambda one: "{min:g} … {median:g} … {max:g}".format(**one.candidates),
    "score mean ± std": lambda one: "{mean:.3f} ± {std:.3f}".format(**one.scores),
    "score range": lambda one: "{min:.3f} … {max:.3f}".format(**one.scores),
    "shards, rows": lambda one: f"{one.shards:,}, {one.rows:,}",
    "size": lambda one: f"{one.bytes / 1e3:,.1f} kB",
}
_ANSWER_ROWS: dict[str, Callable[[AnswerSummary], str]] = {
    "fingerprint": lambda one: one.fingerprint,
    "kind": lambda one: one.kind,
    "prompt": lambda one: one.prompt,
    "dtype": lambda one: one.dtype or "–",
    "passage tokens": lambda one: str(one.max_length or "–"),
    "strategies": lambda one: ", ".join(one.strategies) or "–",
    "questions": lambda one: f"{one.questions:,}",
    "queries": lambda one: f"{one.queries:,}",
    "shown at once": lambda one: "{min:g} … {median:g} … {max:g}".format(**one.shown),
    "answers": lambda one: ", ".join(f"{n:,} {name}" for name, n in one.statuses.items()),
    "first shown wins": lambda one: _share(one.order_bias, "first_wins"),
    "orders contradict": lambda one: _share(one.order_bias, "contradictions"),
    "shards": lambda one: f"{one.shards:,}",
    "size": lambda one: f"{one.bytes / 1e3:,.1f} kB",
}
