"""What a score store holds, as tables for people: a column per teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from rich.table import Table

from retrieval_kd.teachers.answer_facts import AnswerSummary, OrderBias
from retrieval_kd.teachers.store_summary import Summary

One = TypeVar("One", Summary, AnswerSummary)


def tables(scores: Sequence[Summary], answers: Sequence[AnswerSummary]) -> list[Table]:
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


_SCORE_ROWS: dict[str, Callable[[Summary], str]] = {
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
