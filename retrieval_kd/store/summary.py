"""Summary of a score store: each teacher's scores or answers in numbers, and tables of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table

from retrieval_kd.store.answers import AnswerStore, Row
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import log_odds_of
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.shards import shard_paths, texts_unknown


@dataclass(frozen=True)
class ScoreSummary:
    """A pointwise teacher's scores in numbers; each distinct pair counts once."""

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


@dataclass(frozen=True)
class AnswerSummary:
    """A comparing teacher's answers in numbers; each request counts once."""

    model: str
    fingerprint: str
    kind: str
    prompt: str
    dtype: str
    max_length: int | None
    questions: int  # requests that were answered
    queries: int
    shown: dict[str, float]  # documents in a request: min, median, max
    statuses: dict[str, int]  # ok, repaired, unparsable
    strategies: dict[str, int]  # strategy → number of queries it was run for
    order_bias: OrderBias | None
    shards: int
    bytes: int


def summarise(store: ScoreStore) -> tuple[list[ScoreSummary], list[AnswerSummary]]:
    """Summarise all teachers of a store: pointwise ones, and comparing ones."""
    keys = store.teachers()
    return (
        [summarise_scores(store, key) for key in keys if key.is_pointwise],
        [summarise_answers(store, key) for key in keys if not key.is_pointwise],
    )


def summarise_scores(store: ScoreStore, key: TeacherKey) -> ScoreSummary:
    """Read all shards of a pointwise teacher and count."""
    shards = shard_paths(store.folder(key))
    table = store.read(key)
    counts = pc.value_counts(table["query_digest"].cast(pa.binary())).field("counts").to_numpy()
    scores = table["score"].to_numpy().astype(np.float64)
    unknown = {texts_unknown(path) for path in shards}
    return ScoreSummary(
        **_teacher_and_size(key, shards),
        pairs=table.num_rows,
        queries=len(counts),
        candidates=_statistics(counts, "min", "median", "max"),
        scores=_statistics(scores, "mean", "std", "min", "max"),
        texts="partly known" if len(unknown) == 2 else "unknown" if True in unknown else "known",
        rows=sum(pq.read_metadata(path).num_rows for path in shards),
    )


def summarise_answers(store: ScoreStore, key: TeacherKey) -> AnswerSummary:
    """Read all shards of a comparing teacher and count."""
    folder = store.folder(key)
    rows = list(AnswerStore(folder, key).rows())
    answered = [row for row in rows if row.answer is not None]
    sizes = np.array([len(row.document_digests) for row in answered] or [0])
    statuses = Counter(row.answer.status for row in answered if row.answer)
    shards = shard_paths(folder)
    return AnswerSummary(
        **_teacher_and_size(key, shards),
        prompt=key.prompt,
        questions=len(answered),
        queries=len({row.query_digest for row in rows}),
        shown=_statistics(sizes, "min", "median", "max"),
        statuses={name: statuses[name] for name in ("ok", "repaired", "unparsable")},
        strategies=dict(Counter(row.strategy for row in rows if row.answer is None)),
        order_bias=order_bias(answered) if key.kind == "pairwise" else None,
    )


def _teacher_and_size(key: TeacherKey, shards: Sequence[Path]) -> dict[str, Any]:
    """The fields that both summaries have."""
    names = ("model", "fingerprint", "kind", "dtype", "max_length")
    size = sum(path.stat().st_size for path in shards)
    return {name: getattr(key, name) for name in names} | {"shards": len(shards), "bytes": size}


def _statistics(values: np.ndarray, *names: str) -> dict[str, float]:
    return {name: float(getattr(np, name)(values)) for name in names}


AnySummary = TypeVar("AnySummary", ScoreSummary, AnswerSummary)


def summary_tables(scores: Sequence[ScoreSummary], answers: Sequence[AnswerSummary]) -> list[Table]:
    """A table of the pointwise teachers and one of the comparing teachers, if there are any."""
    tables = [_table(scores, _SCORE_ROWS)] if scores else []
    return tables + ([_table(answers, _ANSWER_ROWS)] if answers else [])


def _table(
    summaries: Sequence[AnySummary], rows: Mapping[str, Callable[[AnySummary], str]]
) -> Table:
    """A column for each teacher; two teachers are readable in 80 characters."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("teacher")
    for summary in summaries:
        table.add_column(summary.model, overflow="fold")
    for name, show in rows.items():
        table.add_row(name, *map(show, summaries))
    return table


def _share(bias: OrderBias | None, name: str) -> str:
    number = getattr(bias or OrderBias(0), name)
    return "–" if number is None else f"{number:.1%}"


_SCORE_ROWS: dict[str, Callable[[ScoreSummary], str]] = {
    "fingerprint": lambda s: s.fingerprint,
    "kind": lambda s: s.kind,
    "dtype": lambda s: s.dtype or "–",
    "max length": lambda s: str(s.max_length or "–"),
    "texts": lambda s: s.texts,
    "pairs": lambda s: f"{s.pairs:,}",
    "queries": lambda s: f"{s.queries:,}",
    "candidates": lambda s: "{min:g} … {median:g} … {max:g}".format(**s.candidates),
    "score mean ± std": lambda s: "{mean:.3f} ± {std:.3f}".format(**s.scores),
    "score range": lambda s: "{min:.3f} … {max:.3f}".format(**s.scores),
    "shards, rows": lambda s: f"{s.shards:,}, {s.rows:,}",
    "size": lambda s: f"{s.bytes / 1e3:,.1f} kB",
}
_ANSWER_ROWS: dict[str, Callable[[AnswerSummary], str]] = {
    "fingerprint": lambda s: s.fingerprint,
    "kind": lambda s: s.kind,
    "prompt": lambda s: s.prompt,
    "dtype": lambda s: s.dtype or "–",
    "passage tokens": lambda s: str(s.max_length or "–"),
    "strategies": lambda s: ", ".join(s.strategies) or "–",
    "questions": lambda s: f"{s.questions:,}",
    "queries": lambda s: f"{s.queries:,}",
    "shown at once": lambda s: "{min:g} … {median:g} … {max:g}".format(**s.shown),
    "answers": lambda s: ", ".join(f"{n:,} {name}" for name, n in s.statuses.items()),
    "first shown wins": lambda s: _share(s.order_bias, "first_wins"),
    "orders contradict": lambda s: _share(s.order_bias, "contradictions"),
    "shards": lambda s: f"{s.shards:,}",
    "size": lambda s: f"{s.bytes / 1e3:,.1f} kB",
}


@dataclass(frozen=True)
class OrderBias:
    """The preference for the document shown first.

    Args:
        pairs: answered in both orders.
        first_wins: share of answers that prefer the document shown first; 0.5 without bias.
        contradictions: share of pairs whose winner depends on the order.
        log_odds: mean of ½ (log-odds of i before j + log-odds of j before i), which is 0 without
            bias; None for answers in words.
    """

    pairs: int
    first_wins: float | None = None
    contradictions: float | None = None
    log_odds: float | None = None


def order_bias(rows: Iterable[Row]) -> OrderBias:
    """Measure the order bias of pairwise answers.

    Example:
        >>> from retrieval_kd.store.requests import Answer
        >>> shown = [(("a", "b"), 2.0), (("b", "a"), 1.0), (("a", "c"), 3.0), (("c", "a"), -4.0)]
        >>> rows = [Row("q", pair, "q", pair, Answer(log_odds=odds)) for pair, odds in shown]
        >>> order_bias(rows)
        OrderBias(pairs=2, first_wins=0.75, contradictions=0.5, log_odds=0.5)
    """
    odds: dict[tuple[str, tuple[str, ...]], float] = {}  # (query, documents shown) → log-odds
    for row in rows:
        value = log_odds_of(row.answer) if row.answer is not None else np.nan
        if not np.isnan(value):
            odds.setdefault((row.query_digest, row.document_digests), value)
    both = np.array(
        [
            (value, odds[query, (second, first)])
            for (query, (first, second)), value in odds.items()
            if first < second and (query, (second, first)) in odds
        ]
    ).reshape(-1, 2)  # (pairs, 2)
    if not len(both):
        return OrderBias(0)
    wins = np.where(both == 0, 0.5, both > 0)  # (pairs, 2), of the document shown first
    contradictions = np.sign(both[:, 0]) * np.sign(both[:, 1]) > 0
    return OrderBias(
        len(both),
        float(wins.mean()),
        float(contradictions.mean()),
        float(both.mean()) if np.isfinite(both).all() else None,
    )
