"""The audit: find texts of the training data that overlap with an evaluated split.

`sources.py` opens the data, `overlap.py` compares two lists of texts, and `effect.py` measures
results with and without the overlapping queries.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrieval_kd.audit.neighbours import Encoder
from retrieval_kd.audit.overlap import (
    DOCUMENTS,
    OVERLAP_KINDS,
    QUERIES,
    SHOWN,
    Limits,
    Overlap,
    Partners,
    find_overlaps,
    sort_key,
)
from retrieval_kd.audit.sources import (
    EvaluatedSplit,
    TrainingTexts,
    kind_of,
    open_collection_split,
    open_evaluated,
    open_file,
    open_run,
    open_store,
)
from retrieval_kd.audit.texts import DistinctTexts, TextList
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.evaluation.report.formats import one_line
from retrieval_kd.store.digests import query_digest

TEXT_KINDS = ("query", "relevant document", "document")
GROUPS = ("all", "clean", "query", "relevant document")


@dataclass
class Audit:
    """The result: overlapping pairs, strongest first, and what could not be checked."""

    evaluated: dict[str, Any]
    trained: list[dict[str, Any]]
    queries: list[str]  # IDs of all evaluated queries
    pairs: list[Overlap]
    drops: Drops = field(default_factory=Drops)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def affected(self, what: str) -> set[str]:
        """Evaluated queries with an overlap in this kind of text.

        A relevant document that a teacher only scored is listed as "document" and affects no query.
        """
        return {q for pair in self.pairs if pair.what == what for q in pair.queries}

    def groups(self) -> dict[str, list[str]]:
        """Evaluated queries by group.

        The groups are all queries, clean ones (no overlap), those that overlap with a training
        query, and those that overlap through a relevant document only.
        """
        by_query, by_document = self.affected("query"), self.affected("relevant document")
        members = {
            "all": set(self.queries),
            "clean": set(self.queries) - by_query - by_document,
            "query": by_query,
            "relevant document": by_document - by_query,
        }
        return {name: [q for q in self.queries if q in members[name]] for name in GROUPS}

    def counts(self) -> dict[str, dict[str, int]]:
        """Kind of text → kind of overlap → number of evaluated queries (or of documents)."""
        counts: dict[str, dict[str, int]] = {}
        for what in TEXT_KINDS:
            ids = {kind: set[str]() for kind in OVERLAP_KINDS}
            for pair in (pair for pair in self.pairs if pair.what == what):
                for kind in pair.kinds:
                    ids[kind].update(pair.queries if what != "document" else [pair.eval_id])
            counts[what] = {kind: len(members) for kind, members in ids.items()}
        return counts

    def to_json(self) -> dict[str, Any]:
        groups = self.groups()
        return {
            "format": 1,
            "evaluated": self.evaluated,
            "trained": self.trained,
            "queries": {name: len(members) for name, members in groups.items()},
            "counts": self.counts(),
            "overlapping_queries": groups["query"],
            "queries_with_overlapping_relevant_document": groups["relevant document"],
            "not_checked": self.drops.summary(),
            "settings": self.settings,
            "seconds": round(self.seconds, 1),
            "pairs": [pair.to_json() for pair in self.pairs],
        }


def audit(
    train: Sequence[str],
    evaluate_on: str,
    *,
    collection: str | None = None,
    queries: Limits = QUERIES,
    documents: Limits | None = DOCUMENTS,
    model: str | None = None,
    only: Sequence[str] | None = None,
) -> Audit:
    """Compare training data with the queries and documents of an evaluated split.

    Args:
        train: specs as in `rkd audit --train`.
        evaluate_on: COLLECTION:SPLIT.
        collection: where the texts of score stores and unfinished runs are looked up.
        queries, documents: thresholds of an overlap; `documents=None` compares queries only.
        model: an encoder for embedding neighbours; without one they are not compared.
        only: restrict the split to these queries; the others are ignored.
    """
    start, drops = time.monotonic(), Drops()
    if not train:
        raise InputError("nothing trained on is named", remedy="give --train at least once")
    evaluated = open_evaluated(evaluate_on, only)
    sources = _open_all(train, evaluated, collection, drops)
    encoder = Encoder(model) if model else None
    evaluated_queries = DistinctTexts(evaluated.queries)
    pairs: list[Overlap] = []
    for source in sources:
        for texts in source.queries:
            distinct = DistinctTexts(texts)
            partners = find_overlaps(evaluated_queries, distinct, queries, drops, encoder=encoder)
            pairs += _overlaps("query", evaluated.queries, texts, partners)
        pairs += _same_digests(evaluated.queries, source)
        if documents is not None:
            pairs += _document_overlaps(evaluated, source, documents, drops, encoder)
    pairs.sort(
        key=lambda p: (TEXT_KINDS.index(p.what), sort_key(p.kinds), p.eval_id, p.train, p.train_id)
    )
    limits = {"queries": asdict(queries), "documents": asdict(documents) if documents else None}
    return Audit(
        evaluated={
            "name": evaluate_on,
            "queries": len(evaluated.queries),
            "documents": len(evaluated.collection.documents),
            "relevant_documents": len(evaluated.relevant_to),
            "digest": evaluated.collection.digest(),
        },
        trained=[source.about() for source in sources],
        queries=list(evaluated.qrels),
        pairs=pairs,
        drops=drops,
        settings={**limits, "model": model},
        seconds=time.monotonic() - start,
    )


def _open_all(
    train: Sequence[str], evaluated: EvaluatedSplit, collection: str | None, drops: Drops
) -> list[TrainingTexts]:
    """Open all training data; collections first, because score stores need their texts."""
    declared = open_collection(collection) if collection else None
    opened: dict[str, TrainingTexts] = {}
    collections: dict[str, Collection] = {}
    for own in filter(None, (declared, evaluated.collection)):
        collections.setdefault(own.digest(), own)
    parsed = {spec: kind_of(spec) for spec in train}
    for spec, (kind, _) in parsed.items():
        if kind == "collection":
            opened[spec], own = open_collection_split(spec)
            collections.setdefault(own.digest(), own)
    for spec, (kind, rest) in parsed.items():
        if kind == "scores":
            opened[spec] = open_store(Path(rest), list(collections.values()), declared, drops)
        elif kind == "run":
            opened[spec] = open_run(Path(rest), declared, drops)
        elif kind == "file":
            opened[spec] = open_file(Path(rest))
    return [opened[spec] for spec in parsed]


def _document_overlaps(
    evaluated: EvaluatedSplit,
    source: TrainingTexts,
    limits: Limits,
    drops: Drops,
    encoder: Encoder | None,
) -> list[Overlap]:
    """Compare training documents with the evaluated collection's documents.

    Documents of the same collection are compared with relevant ones only: every document of the
    collection is searched, trained on or not, and a copy of a document that is relevant to no
    evaluated query gives nothing away. For the same reason, scored documents count only if they
    come from another collection.
    """
    pairs: list[Overlap] = []
    own = evaluated.collection.digest()
    for texts in [*source.relevant, *(t for t in source.scored if t.scope != own)]:
        documents = evaluated.documents(relevant_only=texts.scope == own)
        partners = find_overlaps(
            DistinctTexts(documents),
            DistinctTexts(texts),
            limits,
            drops,
            encoder=encoder,
            documents=True,
        )
        new = _overlaps("document", documents, texts, partners)
        for pair in new:
            pair.queries = evaluated.relevant_to.get(pair.eval_id, [])
            if pair.queries and texts in source.relevant:
                pair.what = "relevant document"
        pairs += new
    return pairs


def _overlaps(
    what: str, evaluated: TextList, trained: TextList, partners: Partners
) -> list[Overlap]:
    return [
        Overlap(
            what,
            evaluated.id(e),
            trained.source,
            trained.id(t),
            kinds,
            one_line(evaluated.text(e), SHOWN),
            one_line(trained.text(t), SHOWN),
            [evaluated.id(e)] if what == "query" else [],
        )
        for e, own in partners.items()
        for t, kinds in sorted(own.items(), key=lambda item: sort_key(item[1]))
    ]


def _same_digests(evaluated: TextList, source: TrainingTexts) -> list[Overlap]:
    """Compare queries of a store whose texts are unknown by the digests of their texts."""
    pairs = []
    for i in range(len(evaluated)) if source.query_digests else ():
        text, id = evaluated.text(i), evaluated.id(i)
        train_id = source.query_digests.get(query_digest(text))
        if train_id is not None:
            shown, kinds = one_line(text, SHOWN), {"exact": 1.0}
            pairs.append(Overlap("query", id, source.name, train_id, kinds, shown, shown, [id]))
    return pairs
