"""The table for people: best in bold, marks where a difference is significant."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from retrieval_kd.evaluation.report import grid
from retrieval_kd.evaluation.report.table import Clean, letters, to_grid
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.significance import compare


def to_markdown(*evaluated):
    return grid.to_markdown(to_grid(*evaluated))


def evaluation_of(**systems):
    return Evaluation(
        ["ndcg@10"],
        {
            name: {"ndcg@10": {f"q{i}": float(x) for i, x in enumerate(values)}}
            for name, values in systems.items()
        },
    )


def test_marks_name_the_systems_that_are_significantly_worse():
    rng = np.random.default_rng(0)
    low = rng.random(50) / 2
    evaluation = evaluation_of(low=low, same=low + rng.normal(0, 0.02, 50), high=low + 0.3)
    for baseline in (None, "low"):
        table = to_markdown(evaluation, compare(evaluation, baseline))
        row = {line.split(" | ")[1]: line for line in table.splitlines() if " | " in line}
        assert "ᵃ" in row["high"] and ("ᵇ" in row["high"]) == (baseline is None)
        assert "ᵃ" not in row["same"] and "ᶜ" not in row["low"]
        assert f"**{evaluation.mean('high', 'ndcg@10'):.4f}" in row["high"]


def test_seeds_show_their_spread():
    evaluation = evaluation_of(**{"s#1": [0.5, 0.5], "s#2": [0.7, 0.7]}).group()
    assert "0.6000 ±0.1414" in to_markdown(evaluation)
    assert "standard deviation over seeds" in to_markdown(evaluation)


def test_one_query_is_one():
    assert to_markdown(evaluation_of(a=[0.5])).endswith("\n1 query.")
    assert to_markdown(evaluation_of(a=[0.5, 0.5])).endswith("\n2 queries.")


def test_names_are_text_not_markup():
    out = io.StringIO()
    grid.print_grid(to_grid(evaluation_of(**{"[red]a|b": [0.5]})), Console(file=out, width=80))
    assert "[red]a|b" in out.getvalue()
    assert r"[red]a\|b" in to_markdown(evaluation_of(**{"[red]a|b": [0.5]}))


def test_there_are_letters_for_25_systems_and_none_after():
    marks = letters([f"s{i}" for i in range(27)])
    assert len({mark for mark in marks.values() if mark}) == 25
    assert marks["s26"] == ""


def test_costs_are_columns_beside_quality_and_what_is_unknown_is_no_zero():
    evaluation = evaluation_of(bm25=[0.5, 0.6], student=[0.7, 0.8])
    facts = {
        "bm25": {"latency_ms_p50": 0.9, "documents_per_second": None},
        "student": {"latency_ms_p50": 5.1, "documents_per_second": 1234.5, "teacher_calls": 0},
    }
    head, _, bm25, student, _, note = to_markdown(evaluation, (), facts).splitlines()
    assert head.endswith("| nDCG@10 | Docs/s | p50, ms | Teacher calls |")
    assert bm25.endswith("| – | 0.90 | – |") and student.endswith("| 1\u202f234 | 5.10 | 0 |")
    assert "Docs/s: encoded for the index" in note and "– means unknown" in note
    assert "& Teacher calls" in grid.to_latex(to_grid(evaluation, (), facts))
    out = io.StringIO()
    grid.print_grid(to_grid(evaluation, (), facts), Console(file=out, width=80))
    assert "Teacher calls" in out.getvalue()
    assert "Costs" not in to_markdown(evaluation)


def test_clean_queries_have_a_column_where_judgments_were_trained_on():
    values = {"bm25": {"q1": 0.5, "q2": 0.25}, "student": {"q1": 1.0, "q2": 0.25}}
    evaluation = Evaluation(["ndcg@10"], {s: {"ndcg@10": v} for s, v in values.items()})
    effect = {
        "measure": "ndcg@10",
        "queries": {"all": 2, "clean": 1},
        "means": {"bm25": {"all": 0.375, "clean": 0.25}, "student": {"all": 0.625, "clean": 0.25}},
    }
    trained, untrained = ({"splits": {"train": name}} for name in ("train", None))
    table = to_grid(evaluation, clean=Clean.of({"effect": effect}, trained))
    assert list(table.headers) == [" ", "System", "nDCG@10", "nDCG@10, clean"]
    assert [row[3].text for row in table.rows] == ["0.2500", "0.2500"]
    assert "Clean: the 1 queries" in table.note
    assert Clean.of({"effect": effect}, untrained) is None
    assert Clean.of({"effect": {**effect, "queries": {"all": 1, "clean": 1}}}, trained) is None
    assert Clean.of({"effect": {**effect, "queries": {"all": 1}}}, trained) is None
    assert Clean.of(None, trained) is None
