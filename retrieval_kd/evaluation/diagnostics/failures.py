"""Where a student fails but its teacher does not: tables by kind of query, and the worst queries.

Values per query come from `metrics.measures.evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_kd.metrics.significance import bootstrap_interval
from retrieval_kd.retrieval.analysis import Analysis, Analyzer

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection
    from retrieval_kd.data.qrels import Qrels
    from retrieval_kd.data.runs import Run

LENGTH = "words in the query"
OVERLAP = "share of the query's terms in a relevant document"
JUDGED = "judged relevant documents"
MISSED = "share of relevant documents that the first stage missed"
TERMS = Analysis(stemmer="porter", stop_words="lucene", words="standard")
MOST_BINS = 4
ABSENT = "(not in the collection)"
SNIPPET = 200  # characters of a relevant document without a title


def query_features(
    collection: Collection, qrels: Qrels, first_stage: Run | None = None
) -> dict[str, dict[str, float]]:
    """Map feature → query → value, for queries with a relevant document; unknown values are absent.

    Terms are stemmed, without stop words. The first stage is the run whose documents the teacher
    could rank; without it, its feature is left out.
    """
    features: dict[str, dict[str, float]] = {LENGTH: {}, OVERLAP: {}, JUDGED: {}}
    if first_stage is not None:
        features[MISSED] = {}
    for query, judged in qrels.items():
        relevant = [d for d, gain in judged.items() if gain > 0]
        if not relevant:
            continue
        features[JUDGED][query] = len(relevant)
        if first_stage is not None:
            ranked = first_stage.results.get(query, {})
            features[MISSED][query] = sum(d not in ranked for d in relevant) / len(relevant)
        if query in collection.queries:
            text = collection.queries[query].full
            features[LENGTH][query] = len(text.split())
            texts = [collection.documents[d].full for d in relevant if d in collection.documents]
            overlap = term_overlap(text, texts)
            if overlap is not None:
                features[OVERLAP][query] = overlap
    return features


def term_overlap(query: str, documents: Sequence[str]) -> float | None:
    """max over documents of |terms of both| / |terms of the query|; None if one side has none.

    Example:
        >>> term_overlap("the causes of tides", ["Tides are caused by the moon.", "The sun."])
        1.0
    """
    analyzer = Analyzer(TERMS)
    wanted, *others = (set(terms) for terms in analyzer.documents([query, *documents]))
    if not wanted or not others:
        return None
    return max(len(wanted & terms) for terms in others) / len(wanted)


def bins(
    values: Mapping[str, float], most: int = MOST_BINS
) -> list[tuple[float, float, list[str]]]:
    """Split queries by value into about `most` bins of similar size: (lowest, highest, queries).

    Equal values share a bin; a few distinct values get a bin each, and so does a value that would
    fill several bins.

    Example:
        >>> bins({"a": 1, "b": 1, "c": 2, "d": 7}, most=2)
        [(1, 1, ['a', 'b']), (2, 7, ['c', 'd'])]
        >>> bins({"a": 0.2, "b": 0.5, "c": 1, "d": 1, "e": 1, "f": 1}, most=2)
        [(0.2, 0.5, ['a', 'b']), (1, 1, ['c', 'd', 'e', 'f'])]
    """
    if not values:
        return []
    numbers = np.array(list(values.values()), dtype=np.float64)
    distinct = np.unique(numbers)
    upper = distinct
    if len(distinct) > most:
        cuts = np.quantile(numbers, np.linspace(0, 1, most + 1)[1:], method="lower")
        upper, times = np.unique(cuts, return_counts=True)
        # a bin holds the values above the previous cut, up to its own; if two cuts are equal, the
        # spare one goes between that value and those below it
        below = np.searchsorted(distinct, upper[times > 1]) - 1
        upper = np.union1d(upper, distinct[below[below >= 0]])
    place = np.searchsorted(upper, numbers, side="left")
    rows = []
    for number in np.unique(place):
        inside = [query for query, at in zip(values, place, strict=True) if at == number]
        bin_values = [values[query] for query in inside]
        rows.append((min(bin_values), max(bin_values), inside))
    return rows


def bounds(low: float, high: float) -> str:
    """Write a bin's bounds.

    Example:
        >>> bounds(3, 5), bounds(0.25, 0.25)
        ('3–5', '0.25')
    """
    return f"{low:.3g}" if low == high else f"{low:.3g}–{high:.3g}"


def failure_tables(
    features: Mapping[str, Mapping[str, float]],
    teacher: Mapping[str, float],
    student: Mapping[str, float],
) -> dict[str, list[dict[str, Any]]]:
    """Map feature → rows: bounds, count, both means, student − teacher with its 95 % interval.

    `failed` counts queries on which the teacher has a value above 0 and the student 0, `saved` the
    reverse. The interval is a bootstrap over the bin's queries; a single query has none.

    Example:
        >>> rows = failure_tables({"length": {"q1": 3, "q2": 3}}, {"q1": 1, "q2": 1},
        ...                       {"q1": 0, "q2": 1})["length"]
        >>> rows[0]["count"], rows[0]["difference"], rows[0]["failed"]
        (2, -0.5, 1)
    """
    tables = {}
    for feature, values in features.items():
        measured = {q: v for q, v in values.items() if q in teacher and q in student}
        tables[feature] = [
            {"from": low, "to": high, **_row(queries, teacher, student)}
            for low, high, queries in bins(measured)
        ]
    return tables


def _row(
    queries: Sequence[str], teacher: Mapping[str, float], student: Mapping[str, float]
) -> dict[str, Any]:
    a = np.array([student[q] for q in queries], dtype=np.float64)  # (queries,)
    b = np.array([teacher[q] for q in queries], dtype=np.float64)  # (queries,)
    low, high = bootstrap_interval(a - b) if len(queries) > 1 else (None, None)
    return {
        "count": len(queries),
        "teacher": float(b.mean()),
        "student": float(a.mean()),
        "difference": float((a - b).mean()),
        "low": low,
        "high": high,
        "failed": int(((b > 0) & (a == 0)).sum()),
        "saved": int(((b == 0) & (a > 0)).sum()),
    }


def worst_queries(
    collection: Collection,
    qrels: Qrels,
    runs: tuple[Run, Run],
    values: tuple[Mapping[str, float], Mapping[str, float]],
    most: int = 10,
) -> list[dict[str, Any]]:
    """List the queries that lose most from teacher to student, worst first, with texts."""
    (teacher, student), (before, after) = runs, values
    lost = {q: after[q] - before[q] for q in before if after[q] < before[q]}
    cases = []
    for query in sorted(lost, key=lambda q: (lost[q], q))[:most]:
        relevant = [d for d, gain in qrels[query].items() if gain > 0]
        cases.append(
            {
                "query_id": query,
                "query": collection.queries[query].full if query in collection.queries else ABSENT,
                "teacher": before[query],
                "student": after[query],
                "difference": lost[query],
                "relevant": [
                    {
                        "document_id": document,
                        "gain": qrels[query][document],
                        "title": _title(collection, document),
                        "teacher_rank": _rank(teacher, query, document),
                        "student_rank": _rank(student, query, document),
                    }
                    for document in sorted(relevant, key=lambda d: (-qrels[query][d], d))
                ],
                "student_first": _first(collection, student, query),
            }
        )
    return cases


def _rank(run: Run, query: str, document: str) -> int | None:
    """Return the document's rank from 1; None if the run does not contain it."""
    ranked = list(run.results.get(query, {}))
    return ranked.index(document) + 1 if document in ranked else None


def _first(collection: Collection, run: Run, query: str) -> dict[str, str] | None:
    first = next(iter(run.results.get(query, {})), None)
    return None if first is None else {"document_id": first, "title": _title(collection, first)}


def _title(collection: Collection, document: str) -> str:
    if document not in collection.documents:
        return ABSENT
    texts = collection.documents[document]
    return texts.title or texts.text[:SNIPPET]
