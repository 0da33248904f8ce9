"""The effect of overlaps on results: measures on all, clean and overlapping queries, and tests.

Two groups of queries are compared by an unpaired test, because they are different queries. Two
systems on the same group are compared by the paired tests of `metrics/significance.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.audit.audit import GROUPS, Audit
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run, read_run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.evaluate_runs import run_names
from retrieval_kd.evaluation.result_file import read_result
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.measures import DEFAULT_MEASURES, evaluate
from retrieval_kd.metrics.significance import Comparison, compare, holm

log = logging.getLogger("retrieval_kd")


@dataclass(frozen=True)
class Gap:
    """The difference between a system's mean on a group of queries and on the clean queries.

    With a `baseline`, the values are per-query differences from it: overlapping queries may simply
    be easier, and what is easier for both systems cancels out. `low` and `high` bound the 95 %
    interval of Welch's t-test; `p_holm` is corrected over all systems and groups of one measure. A
    group of fewer than two queries has no interval and p = 1. If both groups are constant, p is
    that of the exact permutation test.
    """

    measure: str
    system: str
    group: str
    baseline: str
    queries: int
    clean_queries: int
    mean: float | None
    clean_mean: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float
    p_holm: float


@dataclass
class Effect:
    """Means per group of queries, tests between groups, and tests between systems in a group."""

    measures: list[str]
    queries: dict[str, int]
    means: dict[str, dict[str, dict[str, float | None]]]  # system → measure → group → mean
    gaps: list[Gap]
    comparisons: dict[str, list[Comparison]] = field(default_factory=dict)  # group → pairs

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def effect(
    evaluation: Evaluation, groups: Mapping[str, Sequence[str]], baseline: str | None = None
) -> Effect:
    """Measure every system on every group of queries.

    Example:
        >>> values = {"q1": 1.0, "q2": 0.9, "q3": 0.2, "q4": 0.3}
        >>> evaluation = Evaluation(["ndcg@10"], {"student": {"ndcg@10": values}})
        >>> found = effect(evaluation, {"all": list(values), "clean": ["q3", "q4"],
        ...                             "query": ["q1", "q2"], "relevant document": []})
        >>> found.means["student"]["ndcg@10"]
        {'all': 0.6, 'clean': 0.25, 'query': 0.95, 'relevant document': None}
        >>> [gap] = [gap for gap in found.gaps if gap.group == "query"]
        >>> round(gap.difference, 2), round(gap.p, 3)
        (0.7, 0.01)
    """
    if baseline is not None:
        evaluation.values(baseline, evaluation.measures[0])  # an unknown name is an error
    parts = restrict(evaluation, groups)
    queries = {name: len(part.queries) for name, part in parts.items()}
    if not any(queries.values()):
        raise InputError(
            "the results have no query in common with the audited split",
            remedy="check that both are of the same collection and split",
        )
    means = {
        system: {
            measure: {
                name: round(part.mean(system, measure), 12) if queries[name] else None
                for name, part in parts.items()
            }
            for measure in evaluation.measures
        }
        for system in evaluation.systems
    }
    gaps: list[Gap] = []
    for measure in evaluation.measures:
        for against in [None, baseline] if baseline else [None]:
            family = [
                _gap(parts, measure, system, group, against)
                for system in evaluation.systems
                if system != against
                for group in GROUPS[2:]
                if queries[group]
            ]
            corrected = holm([gap.p for gap in family])
            gaps += [replace(gap, p_holm=p) for gap, p in zip(family, corrected, strict=True)]
    tested = [name for name in parts if queries[name] and len(evaluation.systems) > 1]
    comparisons = {name: compare(parts[name], baseline) for name in tested}
    return Effect(evaluation.measures, queries, means, gaps, comparisons)


def restrict(evaluation: Evaluation, groups: Mapping[str, Sequence[str]]) -> dict[str, Evaluation]:
    """Restrict an evaluation to each group of queries; means of single seeds are left out."""
    parts = {}
    for name, members in groups.items():
        chosen = {
            system: {
                measure: {query: values[query] for query in members if query in values}
                for measure, values in by_measure.items()
            }
            for system, by_measure in evaluation.per_query.items()
        }
        parts[name] = Evaluation(evaluation.measures, chosen, exclude_self=evaluation.exclude_self)
    return parts


def evaluate_groups(
    audit: Audit,
    runs: Sequence[str | Path],
    results: Path | None = None,
    *,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    baseline: str | None = None,
    exclude_self: bool = True,
) -> Effect:
    """Measure the effect on run files, or on a result file of `rkd evaluate` or `rkd run`."""
    if bool(runs) == (results is not None):
        raise InputError(
            "results come from runs or a result file", remedy="give either runs or a result file"
        )
    if results is not None:
        return effect(results_of(audit, results), audit.groups(), baseline)
    name, _, split = audit.evaluated["name"].rpartition(":")
    paths = run_names(runs)
    read = {stem: Run(stem, read_run(path).results) for stem, path in paths.items()}
    qrels = open_collection(name).qrels(split)
    evaluation = evaluate(qrels, read, measures, exclude_self=exclude_self).group()
    by_path = {str(path): stem for stem, path in paths.items()}
    return effect(evaluation, audit.groups(), by_path.get(str(baseline), baseline))


def _gap(
    parts: Mapping[str, Evaluation], measure: str, system: str, group: str, baseline: str | None
) -> Gap:
    """Welch's t-test (unequal variances) of a group against the clean queries."""
    from scipy.stats import ttest_ind

    values = {}
    for name in (group, "clean"):
        own = parts[name].values(system, measure)
        if baseline is not None:
            own = own - parts[name].values(baseline, measure)
        values[name] = np.round(own, 12)
    own, clean = values[group], values["clean"]
    low = high = None
    p = 1.0
    if len(own) > 1 and len(clean) > 1:
        if np.ptp(own) or np.ptp(clean):
            test = ttest_ind(own, clean, equal_var=False)
            interval = test.confidence_interval(0.95)
            p, low, high = float(test.pvalue), float(interval.low), float(interval.high)
        else:  # two constants: t is infinite or 0 / 0
            low = high = float(own[0] - clean[0])
            p = _p_of_constants(len(own), len(clean)) if low else 1.0
    return Gap(
        measure,
        system,
        group,
        baseline or "",
        len(own),
        len(clean),
        float(own.mean()) if len(own) else None,
        float(clean.mean()) if len(clean) else None,
        float(own.mean() - clean.mean()) if len(own) and len(clean) else None,
        low,
        high,
        p,
        p,
    )


def _p_of_constants(own: int, clean: int) -> float:
    """Exact permutation p-value for `own` queries of one value and `clean` queries of another.

    If both groups are equally large, the opposite split is as extreme and counts, too.

    Example:
        >>> _p_of_constants(2, 2), _p_of_constants(2, 3)
        (0.3333333333333333, 0.1)
    """
    return (1 + (own == clean)) / math.comb(own + clean, own)


def results_of(audit: Audit, path: Path) -> Evaluation:
    """Read the part of a result file that was measured on the audited split."""
    name, _, split = audit.evaluated["name"].rpartition(":")
    texts, judgments = audit.evaluated["digest"], open_collection(name).qrels_digest(split)
    file = read_result(path)
    if not file.intact:
        log.warning("%s was changed after it was written: its digest does not fit", path)
    fits = {
        collection: measured
        for collection, measured in file.collections.items()
        if measured.texts in (None, texts) and measured.judgments in (None, judgments)
    }
    if not fits:
        names = ", ".join(filter(None, file.collections))
        of = f" (it has {names})" if names else ""
        raise InputError(
            f"these results are for different texts or judgments than "
            f"{audit.evaluated['name']}{of}",
            file=path,
            remedy="audit the collection and split that they were measured on",
        )
    # A part with digests is certain; one without may be of different texts.
    certain = [part for part in fits.values() if part.texts or part.judgments]
    if not certain:
        log.warning("%s does not say which texts and judgments it was measured on", path)
    return (certain or list(fits.values()))[0].evaluation
