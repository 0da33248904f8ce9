"""`rkd compare A B`: how two result files differ in their inputs and in their values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.report.grid import Cell, Grid
from retrieval_kd.evaluation.report.table import TESTS
from retrieval_kd.evaluation.result_file import Measured, ResultFile, read_result, seal
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.names import cutoff, parse_measures, readable
from retrieval_kd.metrics.significance import Comparison, Method, compare, format_p

A, B = " (A)", " (B)"  # added to the names of systems


@dataclass
class Compared:
    """One collection of two result files: tests of B against A, and differences of the inputs."""

    collection: str
    comparisons: list[Comparison]
    queries: int
    differences: list[str] = field(default_factory=list)  # of inputs and rules
    warnings: list[str] = field(default_factory=list)
    depths: dict[str, int] = field(default_factory=dict)  # system → documents per query, at most


@dataclass
class FilesCompared:
    """The result of `rkd compare`."""

    a: ResultFile
    b: ResultFile
    collections: list[Compared]
    warnings: list[str]

    def lines(self) -> list[str]:
        """List what to print before the table: numbers of queries, differences, warnings."""
        lines = []
        for part in self.collections:
            prefix = f"{part.collection}: " if part.collection else ""
            lines += [f"{prefix}{part.queries:,} queries in both"]
            lines += [f"{prefix}{difference}" for difference in part.differences]
            lines += [f"Warning: {prefix}{warning}" for warning in part.warnings]
        return [*lines, *(f"Warning: {warning}" for warning in self.warnings)]

    def to_json(self) -> dict[str, Any]:
        files = {
            name: {"path": str(file.path), "digest": file.digest}
            for name, file in (("a", self.a), ("b", self.b))
        }
        parts = {c.collection: asdict(c) for c in self.collections}
        return seal({**files, "compared": parts, "warnings": self.warnings})


def compare_files(
    a: str | Path,
    b: str | Path,
    *,
    measures: str | Sequence[str] | None = None,
    method: Method = "t",
    anyway: bool = False,
) -> FilesCompared:
    """Test the systems in B against those in A on the queries that both files have.

    Systems with the same name are compared; if the files share no name, each of B with each of A.

    Args:
        measures: default: all measures that both files have.
        anyway: compare even if the judgments differ, with a warning.

    Raises:
        InputError: the judgments differ, or the files share no collection, measure or query.
    """
    first, second = read_result(a), read_result(b)
    warnings = [
        f"{file.path} was changed after it was written: its digest does not match"
        for file in (first, second)
        if not file.intact
    ]
    pairs, notes, two_names = _common_collections(first, second)
    chosen = parse_measures(measures) if measures is not None else None
    parts = [
        _compare_collection(name, measured_a, measured_b, chosen, method, anyway, two_names)
        for name, measured_a, measured_b in pairs
    ]
    notes = [f"the files name different collections: {two_names}"] * bool(two_names) + notes
    return FilesCompared(first, second, parts, warnings + notes)


def _common_collections(
    a: ResultFile, b: ResultFile
) -> tuple[list[tuple[str, Measured, Measured]], list[str], str]:
    """Pair the collections; also return notes on unpaired ones, and the names if a pair has two."""
    if len(a.collections) == len(b.collections) == 1:
        [(name, first)], [(other, second)] = a.collections.items(), b.collections.items()
        two_names = f"{name}, {other}" if name and other and name != other else ""
        return [(name or other, first, second)], [], two_names
    common = [name for name in a.collections if name in b.collections]
    if not common:
        raise InputError(
            f"{a.path} and {b.path} have no collection in common",
            remedy="compare results on the same collections",
        )
    alone = [n for f in (a, b) for n in f.collections if n not in common]
    notes = [f"only in one of the files: {', '.join(alone)}"] if alone else []
    return [(name, a.collections[name], b.collections[name]) for name in common], notes, ""


def _compare_collection(
    name: str,
    a: Measured,
    b: Measured,
    chosen: list[str] | None,
    method: Method,
    anyway: bool,
    two_names: str,
) -> Compared:
    where = f" of {name}" if name else ""
    warnings = []
    if a.judgments and b.judgments and a.judgments != b.judgments:
        if not anyway:
            raise InputError(
                f"the judgments{where} differ, so a difference in values says nothing of systems",
                remedy="evaluate both on the same judgments, or add --anyway",
            )
        warnings.append("the judgments differ: the tests mix that with the systems' difference")
    elif not (a.judgments and b.judgments):
        if two_names and not anyway:
            raise InputError(
                f"the files name different collections ({two_names}) and do not say which "
                "judgments they used",
                remedy="compare results on one collection, or add --anyway",
            )
        warnings.append("the files do not both say which judgments they used")
    measures = _common_measures(a.evaluation, b.evaluation, chosen, where)
    in_b = set(b.evaluation.queries)
    queries = [query for query in a.evaluation.queries if query in in_b]
    if not queries:
        raise InputError(f"the files have no query{where} in common")
    alone = len(a.evaluation.queries) + len(in_b) - 2 * len(queries)
    if alone:
        warnings.append(f"{alone} queries are in one file only and are left out")
    joined = _join(a.evaluation, b.evaluation, measures, queries)
    pairs = _pairs(a.evaluation.systems, b.evaluation.systems)
    compared = {name for pair in pairs for name in pair}
    left = [name for name in joined.systems if name not in compared]
    if left:
        warnings.append(f"systems of one file only are not compared: {', '.join(left)}")
    comparisons = compare(joined, method=method, pairs=pairs)
    depths = _depths(a.evaluation, b.evaluation)
    warnings += filter(None, (depth_note(c, depths) for c in comparisons))
    return Compared(name, comparisons, len(queries), _differences(a, b), warnings, depths)


def _common_measures(
    a: Evaluation, b: Evaluation, chosen: list[str] | None, where: str
) -> list[str]:
    common = [m for m in a.measures if m in b.measures and (chosen is None or m in chosen)]
    missing = [m for m in chosen or [] if m not in common]
    if missing or not common:
        shared = ", ".join(readable(m) for m in a.measures if m in b.measures) or "none"
        what = ", ".join(map(readable, missing)) or "any measure"
        problem = f"not both files have {what}{where}"
        raise InputError(problem, remedy=f"choose among those in both: {shared}")
    return common


def _join(a: Evaluation, b: Evaluation, measures: list[str], queries: list[str]) -> Evaluation:
    """Put both files' systems into one evaluation of these queries."""
    joined = Evaluation(measures, {})
    for evaluation, mark in ((a, A), (b, B)):
        for system, by_measure in evaluation.per_query.items():
            joined.per_query[system + mark] = {
                m: {query: by_measure[m][query] for query in queries} for m in measures
            }
            if system in evaluation.seed_means:
                joined.seed_means[system + mark] = evaluation.seed_means[system]
    return joined


def _depths(a: Evaluation, b: Evaluation) -> dict[str, int]:
    """Map each system of both files to the length of its longest list, where that is known."""
    depths = {s + mark: e.depth(s) for e, mark in ((a, A), (b, B)) for s in e.systems}
    return {system: depth for system, depth in depths.items() if depth is not None}


def depth_note(c: Comparison, depths: Mapping[str, int]) -> str:
    """Say that lists end before a measure's cut-off, or are not equally long; else say nothing."""
    if not {c.a, c.b} <= depths.keys():
        return ""
    k = cutoff(c.measure)
    a, b = (min(depths[system], k or depths[system]) for system in (c.a, c.b))
    if a == b and a >= (k or a):
        return ""
    what = f"{readable(c.measure)} is computed on at most {a} documents per query of {c.a}"
    if a == b:
        return f"{what} and of {c.b}"
    return f"{what} and {b} of {c.b}: their difference is one of depth too"


def _pairs(a: Sequence[str], b: Sequence[str]) -> list[tuple[str, str]]:
    """Pair (system of B, system of A) by name, or all with all if no name is shared."""
    same = [name for name in a if name in b]
    if same:
        return [(name + B, name + A) for name in same]
    return [(late + B, early + A) for late, early in itertools.product(b, a)]


def _differences(a: Measured, b: Measured) -> list[str]:
    """Describe which inputs and rules are the same and which differ."""
    lines = []
    for what, x, y in (("judgments", a.judgments, b.judgments), ("texts", a.texts, b.texts)):
        if x and y:
            lines.append(f"{what}: {'the same' if x == y else f'{x} and {y}'}")
        else:
            lines.append(f"{what}: unknown for {'one file' if x or y else 'both files'}")
    for system in a.runs.keys() & b.runs.keys():
        same = a.runs[system] == b.runs[system]
        lines.append(f"run of {system}: {'the same content' if same else 'differs'}")
    for name, rules, others in (
        ("A", a.evaluation.rules, b.evaluation.rules),
        ("B", b.evaluation.rules, a.evaluation.rules),
    ):
        lines += [f"rule in {name} only: {rule}" for rule in rules if rule not in others]
    return lines


def to_grid(result: FilesCompared) -> Grid:
    """Tabulate one row per collection, pair and measure; differences are B − A."""
    rows = [
        [
            Cell(part.collection),
            Cell(_pair(c)),
            Cell(readable(c.measure)),
            Cell(f"{c.mean_b:.4f}"),
            Cell(f"{c.mean_a:.4f}"),
            Cell(
                f"{c.difference:+.4f}",
                after="†" if depth_note(c, part.depths) else "",
                bold=c.significant(),
            ),
            Cell(f"{c.low:+.4f} to {c.high:+.4f}"),
            Cell(format_p(c.p_holm).removeprefix("p ").removeprefix("= ")),
            Cell(f"{c.wins}/{c.ties}/{c.losses}"),
            Cell("–" if c.seen_from is None else f"{c.seen_from:.4f}"),
            Cell("–" if c.queries_needed is None else f"{c.queries_needed:,}"),
        ]
        for part in result.collections
        for c in part.comparisons
    ]
    methods = {c.method for part in result.collections for c in part.comparisons}
    test = TESTS[methods.pop()] if methods else "paired test"
    headers = [
        "Collection", "System", "Measure", "A", "B", "B − A", "95 % interval", "p, Holm",
        "won/tied/lost", "seen from", "needs",
    ]  # fmt: skip
    note = (
        f"A: {result.a.path}; B: {result.b.path}; {test}; bold: p < .05 after Holm's correction "
        "over the pairs of one measure. seen from: the smallest true difference that these queries "
        "detect with 80 % power; needs: queries needed to detect the observed difference with it."
    )
    if any(depth_note(c, part.depths) for part in result.collections for c in part.comparisons):
        note += " †: of lists that are too short, or not equally long."
    return Grid(headers, rows, note, left=3)


def _pair(c: Comparison) -> str:
    late, early = c.a.removesuffix(B), c.b.removesuffix(A)
    return late if late == early else f"{c.a} − {c.b}"
