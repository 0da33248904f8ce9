"""The data of the report's explorer: for each query, the judgments and each system's top results.

They are embedded in the page as JSON, which `script.js` shows. The numbers of queries and
documents and the lengths of texts are limited, so that the page stays small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from retrieval_kd.evaluation.diagnostics.failures import ABSENT
from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.data import Explorer
from retrieval_kd.metrics.evaluation import Evaluation

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection
    from retrieval_kd.data.qrels import Qrels
    from retrieval_kd.data.runs import Run
    from retrieval_kd.data.texts import Texts

QUERIES = 300
DEPTH = 5  # documents of each system
JUDGED = 10  # judged documents of a query, the highest gains first, beside those shown
TEXT = 200  # characters of a text
BYTES = 1_200_000  # of all data together; queries that would exceed it are left out
DIGITS = 4  # of values and scores
LISTED = 5  # queries won and lost that the page lists without the script


@dataclass
class _Documents:
    """Numbers documents in the order of their first use, and keeps each one's texts once."""

    texts: Texts
    rows: list[tuple[str, str, str]] = field(default_factory=list)  # ID, title, snippet
    numbers: dict[str, int] = field(default_factory=dict)
    bytes: int = 0

    def number(self, id: str) -> int:
        if id not in self.numbers:
            self.numbers[id] = len(self.rows)
            self.rows.append(self._row(id))
            self.bytes += sum(len(text.encode("utf-8", "replace")) for text in self.rows[-1])
        return self.numbers[id]

    def _row(self, id: str) -> tuple[str, str, str]:
        if id not in self.texts:
            return formats.clean(id, TEXT), ABSENT, ""
        document = self.texts[id]
        title, text = (
            formats.one_line(t[: 4 * TEXT], TEXT) for t in (document.title, document.text)
        )
        return formats.clean(id, TEXT), title, text


def explorer_from(
    evaluation: Evaluation,
    runs: Mapping[str, Run],
    qrels: Qrels,
    collection: Collection,
    pair: tuple[str, str] | None = None,
    *,
    most: int = QUERIES,
    most_bytes: int = BYTES,
) -> Explorer:
    """Collect every system's top results for at most `most` queries.

    Values are those of the evaluation's first measure, averaged over seeds; results are those of
    the first seed. If there are more queries, a third of `most` are those on which the two systems
    of `pair` differ most, and the rest are every n-th of the others.
    """
    measure = evaluation.measures[0]
    documents = _Documents(collection.documents)
    values = {s: evaluation.per_query[s][measure] for s in evaluation.systems}
    answers = [runs[evaluation.seeds.get(s, [s])[0]].results for s in evaluation.systems]
    entries: list[dict[str, Any]] = []
    size = 0
    for query in _chosen(evaluation, pair, most):
        text = collection.queries[query].full if query in collection.queries else ABSENT
        own = query if evaluation.exclude_self else None  # its own document, which is left out
        ranked = [list(results.get(query, {}).items())[: DEPTH + 1] for results in answers]
        top = [[(d, s) for d, s in row if d != own][:DEPTH] for row in ranked]
        shown = {d for row in top for d, _ in row}
        gains = sorted(qrels.get(query, {}).items(), key=lambda x: (-x[1], x[0]))
        gains = [(d, gain) for d, gain in gains if d != own]
        judged = [x for place, x in enumerate(gains) if place < JUDGED or x[0] in shown]
        entry = {
            "id": query,
            "text": formats.one_line(text[: 4 * TEXT], TEXT),
            "top": [[[documents.number(d), round(float(s), DIGITS)] for d, s in r] for r in top],
            "judged": [[documents.number(d), gain] for d, gain in judged],
            "values": [round(values[s][query], DIGITS) for s in evaluation.systems],
        }
        size += len(json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace"))
        if entries and size + documents.bytes > most_bytes:
            break
        entries.append(entry)
    order = {query: place for place, query in enumerate(evaluation.queries)}
    entries.sort(key=lambda entry: order[entry["id"]])
    used = [n for entry in entries for row in (entry["judged"], *entry["top"]) for n, _ in row]
    rows = documents.rows[: max(used, default=-1) + 1]  # without those of the query left out
    return Explorer(measure, list(evaluation.systems), len(order), rows, entries)


def _chosen(evaluation: Evaluation, pair: tuple[str, str] | None, most: int) -> list[str]:
    """Choose the queries, the most important first."""
    queries = evaluation.queries
    if len(queries) <= most:
        return queries
    first: list[str] = []
    if pair is not None:
        a, b = (evaluation.per_query[s][evaluation.measures[0]] for s in pair)
        first = sorted(queries, key=lambda q: -abs(a[q] - b[q]))[: most // 3]
    rest = [q for q in queries if q not in set(first)]
    wanted = most - len(first)
    return first + [rest[i * len(rest) // wanted] for i in range(wanted)]


def won_and_lost(explorer: Explorer, pair: tuple[int, int]) -> list[dict[str, Any]]:
    """List the queries that system `pair[0]` wins most clearly over `pair[1]`, then those it loses.

    Each has its difference, its relevant documents, and the top results of both with their gains.
    """
    a, b = pair
    differences = [entry["values"][a] - entry["values"][b] for entry in explorer.queries]
    order = sorted(range(len(differences)), key=lambda i: -differences[i])
    won = [i for i in order if differences[i] > 0][:LISTED]
    lost = [i for i in reversed(order) if differences[i] < 0][:LISTED]
    cases = []
    for i in won + lost:
        entry = explorer.queries[i]
        gains = dict(entry["judged"])
        relevant = [(explorer.documents[d], gain) for d, gain in entry["judged"] if gain > 0]
        tops = [
            [(explorer.documents[d], gains.get(d), score) for d, score in entry["top"][system]]
            for system in pair
        ]
        cases.append(
            {"query": entry, "difference": differences[i], "relevant": relevant, "tops": tops}
        )
    return cases


def data_block(explorer: Explorer, labels: list[str], pair: tuple[int, int]) -> Markup:
    r"""Write the JSON of a script element so that nothing in it can end the element.

    Example:
        >>> explorer = Explorer("ndcg@10", ["a"], 1, [("</script>", "", "")])
        >>> block = data_block(explorer, ["A"], (0, 0))
        >>> "</" in block, json.loads(block)["documents"][0][0]
        (False, '</script>')
    """
    record = {
        "systems": labels,
        "pair": pair,
        "documents": explorer.documents,
        "queries": explorer.queries,
    }
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
