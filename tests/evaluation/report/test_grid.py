"""Tables in a terminal, as Markdown and as LaTeX that compiles."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from retrieval_kd.evaluation.report.grid import Cell, Grid, print_grid, to_latex, to_markdown
from retrieval_kd.evaluation.report.table import to_grid
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.significance import compare

HOSTILE = r"50%_of\{a&b}$x^2~#"


def test_latex_says_names_and_does_not_run_them():
    text = to_latex(Grid([HOSTILE], [[Cell(HOSTILE, bold=True)]], note="one\ntwo"))
    said = r"50\%\_of\textbackslash{}\{a\&b\}\$x\textasciicircum{}2\textasciitilde{}\#"
    assert f"\\textbf{{{said}}} \\\\" in text and f"\n{said} \\\\" in text
    assert text.endswith("% one two"), "a comment is one line"


def test_latex_has_marks_spread_and_the_best_in_bold():
    values = {"a": [0.1] * 20, "b#1": [0.5] * 10 + [0.6] * 10, "b#2": [0.7] * 10 + [0.6] * 10}
    per_query = {s: {"map": {str(i): v for i, v in enumerate(row)}} for s, row in values.items()}
    evaluation = Evaluation(["map"], per_query).group()
    text = to_latex(to_grid(evaluation, compare(evaluation, baseline="a")))
    assert r"b & b & \textbf{0.6000}$^{a}$ $\pm$0.0707 \\" in text
    assert r"a & a & 0.1000 \\" in text
    assert "% 20 queries" in text and "^a: better than a" in text


def test_thin_spaces_and_odd_characters_are_latex():
    cells = [Cell("1\u202f103"), Cell("−0.5"), Cell("–")]
    text = to_latex(Grid(["a", "b", "c"], [cells]))
    assert r"1\,103 & $-$0.5 & -- \\" in text


def test_markdown_cells_stay_cells():
    text = to_markdown(Grid(["a|b"], [[Cell("c|d\ne")]], title="x"))
    assert r"| a\|b |" in text and r"| c\|d e |" in text


def test_markdown_shows_names_and_makes_no_html_of_them():
    name = "<img src=x onerror=alert(1)>"
    text = to_markdown(Grid([name], [[Cell(f"</td>{name}")], [Cell("p < .001")]], name, title=name))
    assert "<img" not in text and "</td" not in text and text.count("&lt;img") == 4
    assert "p < .001" in text


@pytest.mark.parametrize("width", [24, 40, 72, 80, 120])
def test_nothing_is_cut_at_any_width_and_names_stand_beside_every_part(width):
    numbers = [f"0.{i}234" for i in range(12)]
    rows = [[Cell(name), *map(Cell, numbers)] for name in ("a:package: b/c_student-of-all", "bm25")]
    shown = printed(Grid(["System", *["Recall@100"] * 12], rows, "a note", title="a title"), width)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    for number in numbers:
        assert shown.count(number) == 2, number
    parts = sum("System" in line for line in lines)
    assert shown.count("a:packag") == shown.count("bm25") == parts >= (2 if width < 100 else 1)
    assert lines[0].strip() == "a title" and lines[-1].strip() == "a note"
    assert shown.count("a note") == shown.count("a title") == 1


def test_a_heading_is_folded_between_its_words_before_a_table_is_parted():
    grid = Grid(["System", *["Recall@100"] * 6], [[Cell("bm25"), *[Cell("0.1234")] * 6]])
    shown = printed(grid, 56)
    assert shown.count("Recall") == shown.count("@100") == 6 and "Recall@100" not in shown
    assert shown.count("System") == 1


@pytest.mark.parametrize("width", [24, 40, 80, 160])
@pytest.mark.parametrize("title", ["", "a title that is longer than its table"])
def test_the_rule_below_the_headings_is_as_wide_as_the_table(width, title):
    numbers = [Cell("1\u202f234", "a", " ±0.0123"), Cell("–"), Cell("0.9")]
    rows = [[Cell("a"), Cell(name), *numbers] for name in ("bm25", "a longer name of a system")]
    grid = Grid([" ", "System", "nDCG@10", "p50, ms", "won/tied/lost"], rows, left=2, title=title)
    parts = printed(grid, width).rstrip().split("\n\n")
    for part in parts:
        lines = [line.rstrip() for line in part.splitlines()]
        [rule] = [line for line in lines if set(line) == {"─"}]
        below = lines[lines.index(rule) + 1 :]
        assert len(rule) == max(map(len, below)) <= width


def printed(grid, width):
    out = io.StringIO()
    print_grid(grid, Console(file=out, width=width))
    return out.getvalue()
