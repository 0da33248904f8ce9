"""What was trained on and what is evaluated on, from what the user typed to lists of texts.

A score store is read in `stores.py`; how lists are compared is in `overlap.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.audit.texts import TextList
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.query_files import read_queries
from retrieval_kd.data.rows import Qrels, Reading
from retrieval_kd.data.sources import file_lines
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.files import read_json

FORMS = (
    "name COLLECTION:SPLIT, such as scifact:train; for training also scores:FOLDER (a score "
    "store), run:FOLDER (a folder of `rkd run`) or file:PATH (queries)"
)
LEARNT_FROM = ("train", "unlabelled")  # a run's parts; dev only chooses settings


@dataclass
class Trained:
    """Texts that were trained on.

    `relevant` are documents learnt from as right answers, `scored` those that a teacher scored;
    `bare` are queries of which only the text's digest is known, digest → ID.
    """

    name: str
    queries: list[TextList] = field(default_factory=list)
    relevant: list[TextList] = field(default_factory=list)
    scored: list[TextList] = field(default_factory=list)
    bare: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """What the result says of it."""
        parts = {"queries": self.queries, "relevant_documents": self.relevant,
                 "scored_documents": self.scored}  # fmt: skip
        counts = {name: sum(map(len, lists)) for name, lists in parts.items()}
        counts["queries"] += len(self.bare)
        return {"name": self.name, **counts, **self.facts}


@dataclass
class Evaluated:
    """A collection's split: its judged queries, its documents, its judgments."""

    name: str
    collection: Collection
    qrels: Qrels
    queries: TextList
    answers: dict[str, list[str]]  # relevant document → the queries it is relevant to

    def documents(self, relevant_only: bool) -> TextList:
        texts = self.collection.documents
        rows = _positions(texts, self.answers) if relevant_only else None
        return TextList(self.name, self.collection.digest(), texts, rows)


def split_of(spec: str) -> tuple[str, str]:
    """The collection and the split of COLLECTION:SPLIT.

    Example:
        >>> split_of("irds:beir/scifact:train"), split_of("data/my.zip:test")
        (('irds:beir/scifact', 'train'), ('data/my.zip', 'test'))
        >>> split_of("scifact")
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: 'scifact' names no split. To fix: name COLLECTION:SPLIT, \
such as scifact:train; for training also scores:FOLDER (a score store), run:FOLDER (a folder of \
`rkd run`) or file:PATH (queries).
    """
    head, _, split = spec.rpartition(":")
    if not head or not split or head == "irds":
        raise InputError(f"{spec!r} names no split", remedy=FORMS)
    return head, split


def kind_of(spec: str) -> tuple[str, str]:
    """(scores, run, file or collection; the rest of the spec)."""
    kind, _, rest = spec.partition(":")
    if kind not in ("scores", "run", "file"):
        return "collection", spec
    if not rest:
        raise InputError(
            f"{spec!r} names no {'file' if kind == 'file' else 'folder'}", remedy=FORMS
        )
    return kind, rest


def open_evaluated(spec: str, only: Sequence[str] | None = None) -> Evaluated:
    """The collection and split that are evaluated on; of the split's queries `only` these."""
    if kind_of(spec)[0] != "collection":
        remedy = "name COLLECTION:SPLIT, such as scifact:test"
        raise InputError(f"{spec!r} cannot be evaluated on", remedy=remedy)
    name, split = split_of(spec)
    collection = open_collection(name)
    qrels = collection.qrels(split)
    if only is not None:
        qrels = {query: qrels[query] for query in only if query in qrels}
    answers: dict[str, list[str]] = {}
    for query, judged in qrels.items():
        for document, gain in judged.items():
            if gain > 0:
                answers.setdefault(document, []).append(query)
    queries = TextList(
        spec, collection.digest(), collection.queries, _positions(collection.queries, qrels)
    )
    return Evaluated(spec, collection, qrels, queries, answers)


def open_collection_split(spec: str) -> tuple[Trained, Collection]:
    """A split's queries and the documents judged relevant to them."""
    name, split = split_of(spec)
    collection = open_collection(name)
    qrels, scope = collection.qrels(split), collection.digest()
    queries = TextList(spec, scope, collection.queries, _positions(collection.queries, qrels))
    trained = Trained(spec, [queries], [_relevant(spec, collection, qrels)])
    trained.facts["digest"] = scope
    return trained, collection


def open_run(folder: Path, declared: Collection | None, drops: Drops) -> Trained:
    """The queries that `rkd run` trained on, unlabelled ones included, and their answers."""
    files = {part: folder / "queries" / f"{part}.json" for part in LEARNT_FROM}
    missing = next((path for path in files.values() if not path.is_file()), None)
    if missing is not None:
        remedy = "name the `out` folder of an `rkd run` that has chosen its queries"
        raise InputError("no folder of a run", file=missing, remedy=remedy)
    parts = {part: read_json(path) for part, path in files.items()}
    trained = Trained(f"run:{folder}")
    collection = declared or _collection_of(folder, drops)
    scope = collection.digest() if collection is not None else ""
    for part, found in parts.items():
        if found["texts"]:
            source = f"{trained.name} ({part})"
            trained.queries.append(TextList(source, scope, found["texts"]))
        trained.facts[part] = len(found["texts"])
    if collection is not None:
        trained.relevant.append(_relevant(trained.name, collection, parts["train"]["qrels"]))
        trained.facts["digest"] = scope
    else:
        drops.add("run whose collection is unknown, documents not compared (give --collection)",
                  str(folder))  # fmt: skip
    return trained


def open_file(path: Path) -> Trained:
    """Texts of a file: JSONL or TSV with IDs, else one text a line; queries and documents at once.

    What was generated for training, or what a teacher was trained on, may be either.
    """
    plain = path.name.removesuffix(".gz")
    if plain.endswith((".jsonl", ".tsv")):
        texts = read_queries(path)
    else:
        lines = file_lines(path, Reading())
        texts = {f"line-{number}": text for number, text in lines if text.strip()}
    if not texts:
        raise InputError("not a single text", file=path, remedy="write one text a line")
    listed = TextList(f"file:{path}", "", texts)
    return Trained(f"file:{path}", [listed], [listed])


def _collection_of(folder: Path, drops: Drops) -> Collection | None:
    """The collection of a finished run, if it can be opened and its texts are still the same."""
    report = folder / "report.json"
    told = read_json(report).get("collection", {}) if report.is_file() else {}
    if not told.get("spec"):
        return None
    try:
        collection = open_collection(told["spec"])
    except InputError as error:
        drops.add(f"collection of the run not found: {error.problem}", told["spec"])
        return None
    if collection.digest() != told.get("digest"):
        drops.add("collection of the run has changed since", told["spec"])
        return None
    return collection


def _relevant(source: str, collection: Collection, qrels: Qrels) -> TextList:
    chosen = dict.fromkeys(d for judged in qrels.values() for d, gain in judged.items() if gain > 0)
    known = [document for document in chosen if document in collection.documents]
    texts = collection.documents
    return TextList(source, collection.digest(), texts, _positions(texts, known))


def _positions(texts: Any, ids: Sequence[str] | dict[str, Any]) -> np.ndarray:
    return np.array([texts.position(id) for id in ids], dtype=np.int64)
