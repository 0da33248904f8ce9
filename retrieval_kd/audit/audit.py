"""The audit: everything trained on against a split that is evaluated on, as pairs that overlap.

Sources are opened in `sources.py`, two lists compared in `overlap.py`, measures with and without
the overlapping queries are in `effect.py`.
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
    KINDS,
    QUERIES,
    SHOWN,
    Found,
    Limits,
    Pair,
    overlaps,
    strength,
)
from retrieval_kd.audit.sources import (
    Evaluated,
    Trained,
    kind_of,
    open_collection_split,
    open_evaluated,
    open_file,
    open_run,
)
from retrieval_kd.audit.stores import open_store
from retrieval_kd.audit.texts import Distinct, TextList
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.evaluation.report.formats import one_line
from retrieval_kd.store.digests import query_digest

WHATS = ("query", "relevant document", "document")
GROUPS = ("all", "clean", "query", "relevant document")


@dataclass
class Audit:
    """What was found: pairs, the strongest first, and what could not be checked."""

    evaluated: dict[str, Any]
    trained: list[dict[str, Any]]
    queries: list[str]  # all evaluated ones
    pairs: list[Pair]
    drops: Drops = field(default_factory=Drops)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def affected(self, what: str) -> set[str]:
        """Evaluated queries with an overlap of this kind of text.

        Relevant documents that a teacher merely scored are listed as documents and affect none.
        """
        return {q for pair in self.pairs if pair.what == what for q in pair.queries}

    def groups(self) -> dict[str, list[str]]:
        """Evaluated queries: all, clean (no overlap), with an overlapping query, and with an
        overlapping relevant document but no overlapping query."""
        asked, answered = self.affected("query"), self.affected("relevant document")
        members = {
            "all": set(self.queries),
            "clean": set(self.queries) - asked - answered,
            "query": asked,
            "relevant document": answered - asked,
        }
        return {name: [q for q in self.queries if q in members[name]] for name in GROUPS}

    def counts(self) -> dict[str, dict[str, int]]:
        """For each kind of text and of overlap: how many evaluated queries (documents: texts)."""
        found: dict[str, dict[str, int]] = {}
        for what in WHATS:
            of = {kind: set[str]() for kind in KINDS}
            for pair in (pair for pair in self.pairs if pair.what == what):
                for kind in pair.kinds:
                    of[kind].update(pair.queries if what != "document" else [pair.eval_id])
            found[what] = {kind: len(ids) for kind, ids in of.items()}
        return found

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
    """Compare everything trained on with the queries and relevant documents of a split.

    Args:
        train: specs as `rkd audit --train` takes them.
        evaluate_on: COLLECTION:SPLIT.
        collection: gives the texts of score stores and unfinished runs.
        queries, documents: from where on texts overlap; `documents=None` compares queries only.
        model: an encoder for embedding neighbours; none: not compared.
        only: the split's queries that are evaluated on, where they are not all; nothing of the
            others is looked at or counted.
    """
    start, drops = time.monotonic(), Drops()
    if not train:
        raise InputError("nothing trained on is named", remedy="give --train at least once")
    evaluated = open_evaluated(evaluate_on, only)
    sources = _open_all(train, evaluated, collection, drops)
    encoder = Encoder(model) if model else None
    asked = Distinct(evaluated.queries)
    pairs: list[Pair] = []
    for source in sources:
        for texts in source.queries:
            found = overlaps(asked, Distinct(texts), queries, drops, encoder=encoder)
            pairs += _pairs("query", evaluated.queries, texts, found)
        pairs += _by_digest(evaluated.queries, source)
        if documents is not None:
            pairs += _document_pairs(evaluated, source, documents, drops, encoder)
    order = {what: place for place, what in enumerate(WHATS)}
    pairs.sort(key=lambda p: (order[p.what], strength(p.kinds), p.eval_id, p.train, p.train_id))
    limits = {"queries": asdict(queries), "documents": asdict(documents) if documents else None}
    return Audit(
        evaluated={
            "name": evaluate_on,
            "queries": len(evaluated.queries),
            "documents": len(evaluated.collection.documents),
            "relevant_documents": len(evaluated.answers),
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
    train: Sequence[str], evaluated: Evaluated, collection: str | None, drops: Drops
) -> list[Trained]:
    """Every source; collections first, as stores look up their texts in them."""
    declared = open_collection(collection) if collection else None
    opened: dict[str, Trained] = {}
    collections: dict[str, Collection] = {}
    for known in (declared, evaluated.collection):
        if known is not None:
            collections.setdefault(known.digest(), known)
    parsed = {spec: kind_of(spec) for spec in train}
    for spec, (kind, _) in parsed.items():
        if kind == "collection":
            opened[spec], there = open_collection_split(spec)
            collections.setdefault(there.digest(), there)
    for spec, (kind, rest) in parsed.items():
        if kind == "scores":
            opened[spec] = open_store(Path(rest), list(collections.values()), declared, drops)
        elif kind == "run":
            opened[spec] = open_run(Path(rest), declared, drops)
        elif kind == "file":
            opened[spec] = open_file(Path(rest))
    return [opened[spec] for spec in parsed]


def _document_pairs(
    evaluated: Evaluated, source: Trained, limits: Limits, drops: Drops, encoder: Encoder | None
) -> list[Pair]:
    """Documents of another collection against all evaluated ones, of the same against relevant.

    Within one collection every document is searched, trained on or not, and a copy of a document
    that answers no evaluated query gives nothing away. A document that was only scored is of
    interest from another collection only.
    """
    pairs: list[Pair] = []
    own = evaluated.collection.digest()
    for texts in [*source.relevant, *(t for t in source.scored if t.scope != own)]:
        there = evaluated.documents(relevant_only=texts.scope == own)
        found = overlaps(
            Distinct(there), Distinct(texts), limits, drops, encoder=encoder, documents=True
        )
        made = _pairs("document", there, texts, found)
        for pair in made:
            pair.queries = evaluated.answers.get(pair.eval_id, [])
            if pair.queries and texts in source.relevant:
                pair.what = "relevant document"
        pairs += made
    return pairs


def _pairs(what: str, evaluated: TextList, trained: TextList, found: Found) -> list[Pair]:
    return [
        Pair(
            what,
            evaluated.id(e),
            trained.source,
            trained.id(t),
            kinds,
            one_line(evaluated.text(e), SHOWN),
            one_line(trained.text(t), SHOWN),
            [evaluated.id(e)] if what == "query" else [],
        )
        for e, partners in found.items()
        for t, kinds in sorted(partners.items(), key=lambda item: strength(item[1]))
    ]


def _by_digest(evaluated: TextList, source: Trained) -> list[Pair]:
    """Queries of a store whose texts are unknown: the same digest is the same text."""
    pairs = []
    for i in range(len(evaluated)) if source.bare else ():
        text = evaluated.text(i)
        known = source.bare.get(query_digest(text))
        if known is not None:
            id, shown = evaluated.id(i), one_line(text, SHOWN)
            pairs.append(Pair("query", id, source.name, known, {"exact": 1.0}, shown, shown, [id]))
    return pairs
