"""The headline of the report: what the student gains, keeps and costs, in sentences and numbers."""

from __future__ import annotations

from dataclasses import replace

from retrieval_kd.evaluation.report.data import ReportData, SystemRow
from retrieval_kd.evaluation.report.formats import signed
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import Comparison, format_p


def main_comparison(data: ReportData) -> Comparison | None:
    """Return the test of student − baseline on the main measure."""
    if data.main is None:
        return None
    student, baseline = data.main.student, data.main.baseline
    for c in data.comparisons:
        if c.measure == data.measure and (c.a, c.b) == (student, baseline):
            return c
        if c.measure == data.measure and (c.b, c.a) == (student, baseline):
            return _turned(c)
    return None


def _turned(c: Comparison) -> Comparison:
    """The same comparison with a and b exchanged."""
    return replace(
        c, a=c.b, b=c.a, mean_a=c.mean_b, mean_b=c.mean_a, difference=-c.difference, low=-c.high,
        high=-c.low, effect=-c.effect, wins=c.losses, losses=c.wins, spread_a=c.spread_b,
        spread_b=c.spread_a,
    )  # fmt: skip


def headline(data: ReportData) -> list[str]:
    """Write the finding, then what the student keeps of the teacher and at what cost."""
    if data.main is None:
        return []
    student, teacher = data.system(data.main.student), data.system(data.main.teacher)
    comparison = main_comparison(data)
    sentences = [] if comparison is None else [_finding(data, comparison)]
    if student and teacher and student is not teacher:
        sentences.append(_kept(data, student, teacher))
    return [sentence for sentence in sentences if sentence]


def _finding(data: ReportData, c: Comparison) -> str:
    a, b = data.label(c.a), data.label(c.b)
    interval = f"95% CI {signed(c.low)} to {signed(c.high)}, {format_p(c.p_holm)}"
    measure = readable(c.measure)
    if not c.significant():
        return (
            f"{a} reaches {measure} {c.mean_a:.3f}, {b} {c.mean_b:.3f}: no significant difference "
            f"on {c.queries} queries ({signed(c.difference)}, {interval})."
        )
    side = "above" if c.difference > 0 else "below"
    return (
        f"{a} reaches {measure} {c.mean_a:.3f}, {abs(c.difference):.3f} {side} {b} ({interval}, "
        f"{c.queries} queries)."
    )


def _kept(data: ReportData, student: SystemRow, teacher: SystemRow) -> str:
    """The share of the teacher's quality, and the ratios of cost that are known."""
    own, reference = student.mean(data.measure), teacher.mean(data.measure)
    if own is None or not reference:
        return ""
    text = f"It keeps {own / reference:.0%} of the {readable(data.measure)} of "
    text += f"{data.label(teacher.name)} ({reference:.3f})"
    costs = []
    if student.layers and teacher.layers:
        costs.append(f"{student.layers} of {teacher.layers} layers")
    if student.parameters and teacher.parameters and student.parameters != teacher.parameters:
        costs.append(f"{student.parameters / teacher.parameters:.0%} of the parameters")
    speed = _speed(student, teacher)
    if speed:
        costs.append(f"{speed} times the queries per second")
    if not costs:
        return f"{text}."
    head = ", ".join(costs[:-1])
    return f"{text} with {head} and {costs[-1]}." if head else f"{text} with {costs[-1]}."


def facts(data: ReportData) -> list[tuple[str, str]]:
    """List a few (number, meaning) pairs to show below the headline."""
    student = data.system(data.main.student) if data.main else None
    if data.main is None or student is None:
        return []
    teacher = data.system(data.main.teacher)
    pairs = []
    measure, own = readable(data.measure), student.mean(data.measure)
    if own is not None:
        pairs.append((f"{own:.3f}", f"{measure} of {data.label(student.name)}"))
    c = main_comparison(data)
    if c is not None:
        against = f"against {data.label(data.main.baseline)}, {format_p(c.p_holm)}"
        pairs.append((signed(c.difference), against))
    if teacher and teacher is not student:
        reference = teacher.mean(data.measure)
        if own is not None and reference:
            pairs.append((f"{own / reference:.0%}", f"of the teacher’s {measure}"))
        speed = _speed(student, teacher)
        if speed:
            pairs.append((f"{speed}×", "the teacher’s queries per second"))
    return pairs


def _speed(student: SystemRow, teacher: SystemRow) -> str:
    if not student.queries_per_second or not teacher.queries_per_second:
        return ""
    ratio = student.queries_per_second / teacher.queries_per_second
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}"
