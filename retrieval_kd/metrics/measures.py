"""Measures per query, computed by ranx on rankings in the order of `Run`.

`evaluation.RULES` and `docs/evaluation.md` state the rules: ties, self-matches, which queries
count.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_kd.data.runs import single
from retrieval_kd.errors import InputError
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.names import cutoff, level, parse_measures

if TYPE_CHECKING:
    from retrieval_kd.data.qrels import Qrels
    from retrieval_kd.data.runs import Run

log = logging.getLogger("retrieval_kd")

DEFAULT_MEASURES = ("ndcg@10", "mrr@10", "recall@100")
UNJUDGED = -1.0  # the number of every unjudged document; judged ones are numbered from 0
MOST_POWER = 1000  # a gain; sums of its powers of two still fit into a float


def evaluate(
    qrels: Qrels,
    runs: Mapping[str, Run] | Sequence[Run],
    measures: str | Iterable[str] = DEFAULT_MEASURES,
    *,
    exclude_self: bool = True,
    condensed: bool = False,
) -> Evaluation:
    """Compute every measure of every run, per query.

    nDCG@k = DCG@k / ideal DCG@k, DCG@k = Σ_{i≤k} gain_i / log2(i + 1); MRR@k = 1 / rank of the
    first relevant document up to k, else 0; Recall@k = relevant documents up to k / relevant
    documents. All other measures are ranx's too; a gain ≥ 1 is relevant unless `-lN` says more.

    Args:
        measures: ranx's names or readable ones, see `names.parse_measure`.
        exclude_self: leave out a document whose ID equals the query's ID, in run and judgments.
        condensed: remove unjudged documents from the results before measuring (Sakai, SIGIR 2007,
            "Alternatives to Bpref"), so that they count neither for nor against a system.

    Example:
        >>> from retrieval_kd.data.runs import Run
        >>> qrels = {"q1": {"d1": 2, "d2": 1}, "q2": {"d3": 1}}
        >>> run = Run("bm25", {"q1": {"d2": 9.0, "d1": 8.0, "d7": 1.0}})
        >>> evaluation = evaluate(qrels, [run], ["nDCG@10", "MRR@10"])
        >>> evaluation.per_query["bm25"]["mrr@10"]
        {'q1': 1.0, 'q2': 0.0}
        >>> round(evaluation.mean("bm25", "nDCG@10"), 4)
        0.4299
    """
    names = parse_measures(measures)
    systems = _by_name(runs)
    counts: dict[str, Any] = {}
    gains = _judged_queries(qrels, exclude_self, counts)
    _check_powers(names, gains)
    cutoffs = [cutoff(name) for name in names]
    depth = None if None in cutoffs else max(k for k in cutoffs if k)
    judgments = Judgments(gains, names)
    evaluation = Evaluation(
        names, {}, {**counts, "systems": {}}, exclude_self=exclude_self, condensed=condensed
    )
    for system, run in systems.items():
        if not any(query in gains for query in run.results):
            raise InputError(
                f"run {system!r} has no query in common with the judgments",
                id=next(iter(run.results), None),
                remedy="check that both are of the same collection and split",
            )
        count, judged, lists = _number(run, gains, exclude_self, condensed, depth)
        evaluation.counts["systems"][system] = count
        evaluation.judged[system] = [judged]
        evaluation.per_query[system] = {
            name: dict(zip(gains, values.tolist(), strict=True))
            for name, values in judgments.measure(lists).items()
        }
    evaluation.warnings = _warnings(evaluation)
    for warning in evaluation.warnings:
        log.warning("%s", warning)
    return evaluation


def _by_name(runs: Mapping[str, Run] | Sequence[Run]) -> dict[str, Run]:
    pairs = list(runs.items()) if isinstance(runs, Mapping) else [(run.name, run) for run in runs]
    if not pairs:
        raise InputError("no run to evaluate")
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two runs are named {twice!r}", remedy="give each run its own name")
    return dict(pairs)


def _judged_queries(
    qrels: Qrels, exclude_self: bool, counts: dict[str, Any]
) -> dict[str, dict[str, int]]:
    """Map query → judged document → gain (at least 0), for queries with a relevant document."""
    kept: dict[str, dict[str, int]] = {}
    own = without = 0
    for query, judged in qrels.items():
        gains = {document: max(gain, 0) for document, gain in judged.items()}
        if exclude_self:
            own += gains.pop(query, 0) > 0
        if any(gains.values()):
            kept[query] = gains
        else:
            without += 1
    if not kept:
        raise InputError(
            "no query has a relevant document", remedy="check the judgments, and the split's name"
        )
    counts["queries"] = len(kept)
    counts["queries_without_relevant"] = without
    counts["relevant_self_judgments_excluded"] = own
    return kept


def _check_powers(names: list[str], gains: dict[str, dict[str, int]]) -> None:
    """Refuse gains whose powers of two are beyond every number: nDCG would be NaN."""
    powers = next((name for name in names if name.startswith("ndcg_burges")), None)
    query, most = max(((q, max(judged.values())) for q, judged in gains.items()), key=itemgetter(1))
    if powers is not None and most > MOST_POWER:
        raise InputError(
            f"{powers} takes 2 to the power of each gain, and {most} is too much",
            id=query,
            remedy="use graded gains such as 0 to 3, or ndcg@10, which takes them as they are",
        )


def _number(
    run: Run,
    gains: dict[str, dict[str, int]],
    exclude_self: bool,
    condensed: bool,
    depth: int | None,
) -> tuple[dict[str, int], dict[str, np.ndarray], list[np.ndarray]]:
    """Convert a run to arrays (documents, [number, strictly falling score]) for ranx.

    Also return counts, and per query which of the ranked documents are judged; the latter
    describes the whole run even if the arrays are condensed.
    """
    count = {
        "queries_without_results": 0,
        "queries_not_judged": sum(query not in gains for query in run.results),
        "self_matches_excluded": 0,
        "queries_with_all_scores_equal": 0,
        "longest_list": 0,
    }
    flags, lists = {}, []
    for query, judged in gains.items():
        results = run.results.get(query, {})
        if exclude_self and query in results:
            results = {d: score for d, score in results.items() if d != query}
            count["self_matches_excluded"] += 1
        # a Run is in order
        scores = single(np.fromiter(results.values(), np.float64, len(results)))
        constant = len(scores) > 1 and scores[0] == scores[-1]
        count["queries_with_all_scores_equal"] += int(constant)
        count["longest_list"] = max(count["longest_list"], len(scores))
        count["queries_without_results"] += not results
        column = _numbers(results, scores, judged)
        flags[query] = column != UNJUDGED  # for all results: judged@10 needs 10, whatever `depth`
        column = column[flags[query]] if condensed else column[:depth]
        lists.append(np.column_stack([column, -np.arange(len(column), dtype=np.float64)]))
    return count, flags, lists


def _numbers(
    results: Mapping[str, float], scores: np.ndarray, judged: Mapping[str, int]
) -> np.ndarray:
    """Return each result's number among the judged documents, or UNJUDGED.  (documents,)"""
    if (scores[1:] == scores[:-1]).any():
        numbers = dict(zip(judged, range(len(judged)), strict=True))
        places = map(numbers.get, results, itertools.repeat(UNJUDGED))
        return np.fromiter(places, np.float64, len(results))
    # Without ties a score determines the rank, so only the few judged IDs need looking up. Lookups,
    # not measures, take most of the time of an evaluation.
    hits = [(n, results[d]) for n, d in enumerate(judged) if d in results]
    column = np.full(len(scores), UNJUDGED)
    if hits:
        numbered, of_hits = np.array(hits).T
        column[np.searchsorted(-scores, -single(of_hits))] = numbered
    return column


def _warnings(evaluation: Evaluation) -> list[str]:
    notes = []
    own = evaluation.counts["relevant_self_judgments_excluded"]
    if own:
        notes.append(
            f"{own} queries have a relevant document with the query's own ID, which was left out. "
            "If query and document IDs are unrelated numbers, evaluate with --keep-self "
            "(exclude_self=False)"
        )
    for system, count in evaluation.counts["systems"].items():
        constant = count["queries_with_all_scores_equal"]
        if constant:
            notes.append(
                f"run {system!r} scores all documents of {constant} queries alike: "
                "their order is the order of their IDs"
            )
        if not evaluation.holes(system, 10):
            notes.append(
                f"none of the first 10 documents of run {system!r} has a judgment in any query: "
                "check that its document IDs are those of the judgments"
            )
        missing = count["queries_without_results"]
        if missing:
            notes.append(f"run {system!r} has no results for {missing} queries, which count as 0")
    return notes + evaluation.short_lists()


class Judgments:
    """Arrays (judged documents, [number, gain]) of each query, made once for all runs.

    Two of ranx's kernels need help. bpref divides by the number of judged non-relevant documents:
    if it is 0, one is added that no system returned, which yields trec_eval's value. RBP
    sums gains although its definition says 0 or 1, so it gets 0 or 1.
    """

    def __init__(self, gains: Mapping[str, Mapping[str, int]], measures: Sequence[str]) -> None:
        from numba.typed import List

        graded = [np.array(list(enumerate(g.values())), dtype=np.float64) for g in gains.values()]
        graded = [array[np.argsort(-array[:, 1], kind="stable")] for array in graded]
        self.measures = measures
        self.groups: dict[str, list[str]] = {}  # measures that share a form of the judgments
        for measure in measures:
            base = measure.split("-l")[0].split(".")[0].split("@")[0]
            key = f"{base}-l{level(measure)}" if base in ("rbp", "bpref") else ""
            self.groups.setdefault(key, []).append(measure)
        # a numba list takes 6 µs an array to build, so each form is made once
        self.forms = {key: List(_form(graded, key)) for key in self.groups}

    def measure(self, lists: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Map each measure to one value per query, for a run whose arrays are sorted.

        So ranx neither hashes IDs nor sorts scores.
        """
        import ranx  # compiles for seconds and writes ~/.ir_datasets: only when needed
        from numba.typed import List

        run = List(lists)
        values: dict[str, np.ndarray] = {}
        for key, measures in self.groups.items():
            names = [m.split("-l")[0] if m.startswith("rbp") else m for m in measures]
            with warnings.catch_warnings():
                # numba: "unsafe cast from uint64 to int64" of an index
                warnings.simplefilter("ignore")
                # the first name is passed twice: ranx 0.3 loses a single name with parameters
                by_name = ranx.evaluate(self.forms[key], run, [*names, names[0]], return_mean=False)
            values |= {m: by_name[name] for m, name in zip(measures, names, strict=True)}
        return {measure: values[measure] for measure in self.measures}


def _form(graded: list[np.ndarray], key: str) -> list[np.ndarray]:
    """Convert the judgments to the form that the measures of this key need."""
    least = level(key)
    if key.startswith("rbp"):
        return [np.column_stack([a[:, 0], a[:, 1] >= least]) for a in graded]
    if key.startswith("bpref"):
        return [np.vstack([a, [len(a), 0]]) if a[-1, 1] >= least else a for a in graded]
    return graded
