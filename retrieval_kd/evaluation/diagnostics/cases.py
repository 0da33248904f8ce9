"""The queries on which two systems differ most, with the texts that show why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from retrieval_kd.metrics.evaluation import Evaluation

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection
    from retrieval_kd.data.qrels import Qrels
    from retrieval_kd.data.runs import Run
    from retrieval_kd.data.texts import Texts


class Relevant(NamedTuple):
    """A document that is relevant to a query."""

    id: str
    title: str
    gain: int


class Returned(NamedTuple):
    """A document that a system returned; the gain of an unjudged one is None."""

    id: str
    title: str
    snippet: str
    gain: int | None
    score: float


@dataclass
class QueryCase:
    """One query, and what two systems returned for it; `difference` is a's value minus b's."""

    query_id: str
    query: str
    difference: float
    a_name: str
    b_name: str
    relevant: list[Relevant] = field(default_factory=list)
    a_top: list[Returned] = field(default_factory=list)
    b_top: list[Returned] = field(default_factory=list)


SNIPPET = 280  # characters
ABSENT = "(not in the collection)"


def cases_from(
    evaluation: Evaluation,
    runs: Mapping[str, Run],
    qrels: Qrels,
    collection: Collection,
    a: str,
    b: str,
    measure: str = "ndcg@10",
    most: int = 5,
    depth: int = 5,
) -> list[QueryCase]:
    """Collect the `most` queries that `a` wins most clearly over `b`, then those that it loses so.

    Queries without a difference are left out, so there may be fewer. For a system with several
    seeds (`evaluation.seeds`), results are the first seed's; the difference is that of the means.
    """
    differences = evaluation.values(a, measure) - evaluation.values(b, measure)
    pairs = sorted(zip(-differences, evaluation.queries, strict=True))  # a's best first, then ID
    won = [query for negative, query in pairs if negative < 0][:most]
    lost = [query for negative, query in reversed(pairs) if negative > 0][:most]
    by_query = dict(zip(evaluation.queries, differences.tolist(), strict=True))
    run_a, run_b = _run(evaluation, runs, a), _run(evaluation, runs, b)

    def top(run: Run, query: str) -> list[Returned]:
        shown = [d for d in run.results.get(query, {}) if d != query or not evaluation.exclude_self]
        return [
            Returned(
                document,
                *_title_and_snippet(collection.documents, document),
                gain=qrels[query].get(document),
                score=float(run.results[query][document]),
            )
            for document in shown[:depth]
        ]

    return [
        QueryCase(
            query_id=query,
            query=collection.queries[query].full if query in collection.queries else ABSENT,
            difference=by_query[query],
            a_name=a,
            b_name=b,
            relevant=[
                Relevant(document, title or snippet, gain)
                for document, gain in sorted(qrels[query].items(), key=lambda x: (-x[1], x[0]))
                if gain > 0
                for title, snippet in [_title_and_snippet(collection.documents, document)]
            ][: 2 * depth],
            a_top=top(run_a, query),
            b_top=top(run_b, query),
        )
        for query in won + lost
    ]


def _run(evaluation: Evaluation, runs: Mapping[str, Run], system: str) -> Run:
    return runs[evaluation.seeds.get(system, [system])[0]]


def _title_and_snippet(documents: Texts, id: str) -> tuple[str, str]:
    if id not in documents:
        return ABSENT, ""
    document = documents[id]
    cut = document.text[:SNIPPET]
    return document.title, cut + ("…" if len(document.text) > SNIPPET else "")
