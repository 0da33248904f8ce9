"""Sources of the audit: open the training data and the evaluated split as lists of texts."""

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
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.files import read_json
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.digests import document_digest, query_digest
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.shards import read_shard, shard_paths, texts_unknown

FORMS = (
    "name COLLECTION:SPLIT, such as scifact:train; for training also scores:FOLDER (a score "
    "store), run:FOLDER (a folder of `rkd run`) or file:PATH (queries)"
)
TRAINED_PARTS = ("train", "unlabelled")  # of a run; "dev" only chooses settings


@dataclass
class TrainingTexts:
    """The texts of one source of training data.

    Args:
        relevant: documents that were trained on as relevant.
        scored: documents that a teacher scored.
        query_digests: text digest → ID, for queries whose texts are unknown.
        facts: what else the result reports about the source.
    """

    name: str
    queries: list[TextList] = field(default_factory=list)
    relevant: list[TextList] = field(default_factory=list)
    scored: list[TextList] = field(default_factory=list)
    query_digests: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """Counts and facts for the result."""
        parts = {"queries": self.queries, "relevant_documents": self.relevant,
                 "scored_documents": self.scored}  # fmt: skip
        counts = {name: sum(map(len, lists)) for name, lists in parts.items()}
        counts["queries"] += len(self.query_digests)
        return {"name": self.name, **counts, **self.facts}


@dataclass
class EvaluatedSplit:
    """A collection's split: its judged queries, documents and judgments."""

    name: str
    collection: Collection
    qrels: Qrels
    queries: TextList
    relevant_to: dict[str, list[str]]  # relevant document → its queries

    def documents(self, relevant_only: bool) -> TextList:
        texts = self.collection.documents
        rows = _positions(texts, self.relevant_to) if relevant_only else None
        return TextList(self.name, self.collection.digest(), texts, rows)


def split_of(spec: str) -> tuple[str, str]:
    """Split COLLECTION:SPLIT into its parts.

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
    """Kind of a spec (scores, run, file or collection) and the rest of it."""
    kind, _, rest = spec.partition(":")
    if kind not in ("scores", "run", "file"):
        return "collection", spec
    if not rest:
        raise InputError(
            f"{spec!r} names no {'file' if kind == 'file' else 'folder'}", remedy=FORMS
        )
    return kind, rest


def open_evaluated(spec: str, only: Sequence[str] | None = None) -> EvaluatedSplit:
    """Open the evaluated collection and split, restricted to the queries `only` if given."""
    if kind_of(spec)[0] != "collection":
        remedy = "name COLLECTION:SPLIT, such as scifact:test"
        raise InputError(f"{spec!r} cannot be evaluated on", remedy=remedy)
    name, split = split_of(spec)
    collection = open_collection(name)
    qrels = collection.qrels(split)
    if only is not None:
        qrels = {query: qrels[query] for query in only if query in qrels}
    relevant_to: dict[str, list[str]] = {}
    for query, judged in qrels.items():
        for document, gain in judged.items():
            if gain > 0:
                relevant_to.setdefault(document, []).append(query)
    queries = TextList(
        spec, collection.digest(), collection.queries, _positions(collection.queries, qrels)
    )
    return EvaluatedSplit(spec, collection, qrels, queries, relevant_to)


def open_collection_split(spec: str) -> tuple[TrainingTexts, Collection]:
    """Open a split's queries and the documents judged relevant to them."""
    name, split = split_of(spec)
    collection = open_collection(name)
    qrels, scope = collection.qrels(split), collection.digest()
    queries = TextList(spec, scope, collection.queries, _positions(collection.queries, qrels))
    trained = TrainingTexts(spec, [queries], [_relevant(spec, collection, qrels)])
    trained.facts["digest"] = scope
    return trained, collection


def open_run(folder: Path, declared: Collection | None, drops: Drops) -> TrainingTexts:
    """Open the queries that a run trained on, unlabelled ones included, and their documents."""
    files = {part: folder / "queries" / f"{part}.json" for part in TRAINED_PARTS}
    missing = next((path for path in files.values() if not path.is_file()), None)
    if missing is not None:
        remedy = "name the `out` folder of an `rkd run` that has chosen its queries"
        raise InputError("no folder of a run", file=missing, remedy=remedy)
    parts = {part: read_json(path, "texts", "qrels") for part, path in files.items()}
    trained = TrainingTexts(f"run:{folder}")
    collection = declared or _collection_of(folder, drops)
    scope = collection.digest() if collection is not None else ""
    for part, queries in parts.items():
        if queries["texts"]:
            source = f"{trained.name} ({part})"
            trained.queries.append(TextList(source, scope, queries["texts"]))
        trained.facts[part] = len(queries["texts"])
    if collection is not None:
        trained.relevant.append(_relevant(trained.name, collection, parts["train"]["qrels"]))
        trained.facts["digest"] = scope
    else:
        drops.add("run whose collection is unknown, documents not compared (give --collection)",
                  str(folder))  # fmt: skip
    return trained


def open_file(path: Path) -> TrainingTexts:
    """Open a file of texts: JSONL or TSV with IDs, otherwise one text per line.

    The texts count both as queries and as documents, because generated training data may be either.
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
    return TrainingTexts(f"file:{path}", [listed], [listed])


def _collection_of(folder: Path, drops: Drops) -> Collection | None:
    """Open the collection of a finished run, if its texts have not changed."""
    report = folder / "report.json"
    recorded = read_json(report).get("collection", {}) if report.is_file() else {}
    if not recorded.get("spec"):
        return None
    try:
        collection = open_collection(recorded["spec"])
    except InputError as error:
        drops.add(f"collection of the run not found: {error.problem}", recorded["spec"])
        return None
    if collection.digest() != recorded.get("digest"):
        drops.add("collection of the run has changed since", recorded["spec"])
        return None
    return collection


def _relevant(source: str, collection: Collection, qrels: Qrels) -> TextList:
    chosen = dict.fromkeys(d for judged in qrels.values() for d, gain in judged.items() if gain > 0)
    texts = collection.documents
    present = [document for document in chosen if document in texts]
    return TextList(source, collection.digest(), texts, _positions(texts, present))


def _positions(texts: Any, ids: Sequence[str] | dict[str, Any]) -> np.ndarray:
    return np.array([texts.position(id) for id in ids], dtype=np.int64)


Identities = dict[tuple[str, bytes], None]  # (ID, digest of the text), in the order of the store


def open_store(
    folder: Path, collections: Sequence[Collection], declared: Collection | None, drops: Drops
) -> TrainingTexts:
    """Open the queries and documents that the teachers of a store scored.

    Args:
        collections: to look up texts in; an ID counts only with the digest of its text.
        declared: the collection of `--collection`. IDs that were imported without texts are
            assumed to be of this collection.
    """
    store = ScoreStore(folder)
    teachers = store.teachers()
    trained = TrainingTexts(f"scores:{folder}", facts={"teachers": [key.model for key in teachers]})
    queries: Identities = {}
    documents: Identities = {}
    ids_only: dict[str, set[str]] = {"query": set(), "document": set()}
    for key in teachers:
        if not key.is_pointwise:
            for row in AnswerStore(store.folder(key), key).rows():
                queries[row.query_id, bytes.fromhex(row.query_digest)] = None
                digests = map(bytes.fromhex, row.document_digests)
                documents.update(dict.fromkeys(zip(row.document_ids, digests, strict=True)))
            continue
        for shard in shard_paths(store.folder(key)):
            table = read_shard(shard).drop_columns(["score"]).to_pydict()
            if texts_unknown(shard):
                ids_only["query"].update(table["query_id"])
                ids_only["document"].update(table["document_id"])
            else:
                queries.update(_rows(table, "query"))
                documents.update(_rows(table, "document"))
    if not queries and not ids_only["query"]:
        raise InputError("no scores in this store", file=folder, remedy="run `rkd score` first")
    for collection in collections:
        scope = collection.digest()
        positions = _take_found(queries, collection.queries, "query")
        if len(positions):
            trained.queries.append(TextList(trained.name, scope, collection.queries, positions))
        positions = _take_found(documents, collection.documents, "document")
        if len(positions):
            trained.scored.append(TextList(trained.name, scope, collection.documents, positions))
    trained.query_digests = {digest.hex(): id for id, digest in queries}
    if queries:
        drops.add(f"query of {trained.name} whose text no collection has: compared by digest only",
                  next(iter(queries))[0], len(queries))  # fmt: skip
    if documents:
        drops.add(f"document of {trained.name} whose text no collection has: not compared",
                  next(iter(documents))[0], len(documents))  # fmt: skip
    _add_by_id(trained, ids_only, declared, drops)
    return trained


def _rows(table: dict[str, list[Any]], noun: str) -> Identities:
    return dict.fromkeys(zip(table[f"{noun}_id"], table[f"{noun}_digest"], strict=True))


def _take_found(wanted: Identities, texts: Texts, noun: str) -> np.ndarray:
    """Positions of the texts that `texts` has; their entries are removed from `wanted`."""
    places = []
    for id, digest in list(wanted):
        if id not in texts:
            continue
        text = texts[id]
        is_query = noun == "query"
        own = query_digest(text.full) if is_query else document_digest(text.title, text.text)
        if own == digest.hex():
            places.append(texts.position(id))
            del wanted[id, digest]
    return np.array(places, dtype=np.int64)


def _add_by_id(
    trained: TrainingTexts, ids_only: dict[str, set[str]], declared: Collection | None, drops: Drops
) -> None:
    """Add scores that were imported without texts: look up their IDs in the declared collection."""
    for noun, ids in ids_only.items():
        texts = None
        if declared is not None:
            texts = declared.queries if noun == "query" else declared.documents
        present = sorted(id for id in ids if texts is not None and id in texts)
        if texts is not None and declared is not None and present:
            places = _positions(texts, present)
            lists = trained.queries if noun == "query" else trained.scored
            lists.append(TextList(trained.name, declared.digest(), texts, places))
        if len(present) < len(ids):
            drops.add(
                f"{noun} of {trained.name} known by its ID alone: not compared (--collection may "
                "name its collection)",
                min(ids.difference(present)),
                len(ids) - len(present),
            )
