"""The report in two or three sentences: what the student gains, keeps and costs."""

from __future__ import annotations

from dataclasses import replace

from retrieval_kd.evaluation.report.data import ReportData, SystemRow
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import Comparison, format_p


def main_comparison(data: ReportData) -> Comparison | None:
    """The student against the baseline on the main measure, positive where the student is ahead."""
    if data.main is None:
        return None
    student, baseline = data.main.student, data.main.baseline
    for c in data.comparisons:
        if c.measure == data.measure and (c.a, c.b) == (student, baseline):
            return c
        if c.measure == data.measure and (c.b, c.a) == (student, baseline):
            return turned(c)
    return None


def turned(c: Comparison) -> Comparison:
    """The same comparison from b's side."""
    return replace(
        c, a=c.b, b=c.a, mean_a=c.mean_b, mean_b=c.mean_a, difference=-c.difference, low=-c.high,
        high=-c.low, effect=-c.effect, wins=c.losses, losses=c.wins, spread_a=c.spread_b,
        spread_b=c.spread_a,
    )  # fmt: skip


def headline(data: ReportData) -> list[str]:
    """Sentences of plain text: the finding, then what was kept and at what cost."""
    if data.main is None:
        return []
    student, teacher = data.system(data.main.student), data.system(data.main.teacher)
    sentences = []
    found = main_comparison(data)
    if found is not None:
        sentences.append(finding(data, found))
    if student and teacher and student is not teacher:
        sentences.append(kept(data, student, teacher))
    return [sentence for sentence in sentences if sentence]


def finding(data: ReportData, c: Comparison) -> str:
    """Student against baseline, with interval and p."""
    a, b = data.label(c.a), data.label(c.b)
    interval = f"95% CI {_signed(c.low)} to {_signed(c.high)}, {format_p(c.p_holm)}"
    measure = readable(c.measure)
    if not c.significant():
        return (
            f"{a} reaches {measure} {c.mean_a:.3f}, {b} {c.mean_b:.3f}: no significant difference "
            f"on {c.queries} queries ({_signed(c.difference)}, {interval})."
        )
    side = "above" if c.difference > 0 else "below"
    return (
        f"{a} reaches {measure} {c.mean_a:.3f}, {abs(c.difference):.3f} {side} {b} ({interval}, "
        f"{c.queries} queries)."
    )


def kept(data: ReportData, student: SystemRow, teacher: SystemRow) -> str:
    """The share of the teacher's quality, and the ratios of cost that are known."""
    of_student, of_teacher = student.mean(data.measure), teacher.mean(data.measure)
    if of_student is None or not of_teacher:
        return ""
    text = f"It keeps {of_student / of_teacher:.0%} of the {readable(data.measure)} of "
    text += f"{data.label(teacher.name)} ({of_teacher:.3f})"
    costs = []
    if student.layers and teacher.layers:
        costs.append(f"{student.layers} of {teacher.layers} layers")
    if student.parameters and teacher.parameters and student.parameters != teacher.parameters:
        costs.append(f"{student.parameters / teacher.parameters:.0%} of the parameters")
    if student.queries_per_second and teacher.queries_per_second:
        speed = student.queries_per_second / teacher.queries_per_second
        costs.append(f"{_ratio(speed)} times the queries per second")
    if not costs:
        return f"{text}."
    head = ", ".join(costs[:-1])
    return f"{text} with {head} and {costs[-1]}." if head else f"{text} with {costs[-1]}."


def facts(data: ReportData) -> list[tuple[str, str]]:
    """A few (number, what it is) pairs to stand beside the headline."""
    student = data.system(data.main.student) if data.main else None
    teacher = data.system(data.main.teacher) if data.main else None
    found: list[tuple[str, str]] = []
    if data.main is None or student is None:
        return found
    measure, own = readable(data.measure), student.mean(data.measure)
    if own is not None:
        found.append((f"{own:.3f}", f"{measure} of {data.label(student.name)}"))
    comparison = main_comparison(data)
    if comparison is not None:
        told = f"against {data.label(data.main.baseline)}, {format_p(comparison.p_holm)}"
        found.append((_signed(comparison.difference), told))
    if teacher and teacher is not student:
        of_teacher = teacher.mean(data.measure)
        if own is not None and of_teacher:
            found.append((f"{own / of_teacher:.0%}", f"of the teacher’s {measure}"))
        if student.queries_per_second and teacher.queries_per_second:
            speed = student.queries_per_second / teacher.queries_per_second
            found.append((f"{_ratio(speed)}×", "the teacher’s queries per second"))
    return found


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _ratio(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
