"""From specs to overlapping pairs: collections, score stores, runs and files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retrieval_kd.audit.audit import audit
from retrieval_kd.audit.sources import open_store
from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.files import write_json
from retrieval_kd.store.answers import AnswerStore, Row
from retrieval_kd.store.digests import document_digest, id_digest, query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.scores import ScoreStore

KEY = TeacherKey("pointwise", "big", digest="ab12")
UNRELATED = {"u1": "how do I renew my passport abroad", "u2": "cheap flights to lisbon in may"}


@pytest.fixture(scope="module")
def collection(tiny_collection):
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def test_spec(tiny_collection):
    return f"{tiny_collection}:test"


def write_store(folder, queries, documents=(), texts="known"):
    """A store whose teacher scored every query with every document (ID, title, text)."""
    documents = documents or [("d1", "", "nothing")]
    pairs = [(q, d) for q in queries for d in documents]
    unknown = texts == "unknown"
    with ScoreStore(folder).writer(KEY, texts=texts) as writer:
        writer.add(
            [q for q, _ in pairs],
            [d[0] for _, d in pairs],
            [id_digest(q) if unknown else query_digest(queries[q]) for q, _ in pairs],
            [id_digest(d[0]) if unknown else document_digest(d[1], d[2]) for _, d in pairs],
            np.arange(len(pairs), dtype=np.float32),
        )
    return f"scores:{folder}"


def test_what_comparing_teachers_saw_is_training_data_too(tmp_path, collection):
    key = TeacherKey("pairwise", "judge", digest="ab12")
    store = ScoreStore(tmp_path / "answers")
    queries = collection.query_texts("test")
    query, (one, other) = next((q, list(d)[:2]) for q, d in collection.qrels("test").items())
    texts = [collection.documents[id] for id in (one, other)]
    shown = tuple(document_digest(text.title, text.text) for text in texts)
    row = Row(query, (one, other), query_digest(queries[query]), shown, Answer(log_odds=1.0))
    with AnswerStore(store.folder(key), key).writer() as writer:
        writer.add([row])
    trained = open_store(tmp_path / "answers", [collection], None, Drops())
    assert [len(found) for found in trained.queries] == [1]
    assert [len(found) for found in trained.scored] == [2]


def write_other(folder, queries, documents):
    """A BEIR folder of its own, the first document relevant to every query."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("queries", queries), ("corpus", documents)):
        rows = [json.dumps({"_id": id, "text": text}) for id, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    first = next(iter(documents))
    lines = [f"{query}\t{first}\t1" for query in queries]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines))
    return f"{folder}:test"


def test_a_split_against_itself_overlaps_in_every_query(test_spec, collection):
    found = audit([test_spec], test_spec)
    assert found.affected("query") == set(collection.qrels("test")) and not found.groups()["clean"]
    own = [p for p in found.pairs if p.what == "query" and p.eval_id == p.train_id]
    assert len(own) == len(found.queries)
    assert all(p.kinds["id"] == p.kinds["exact"] == p.kinds["near"] == 1.0 for p in own)


def test_a_relevant_document_in_training_is_found_and_names_its_queries(tmp_path):
    """In another collection, under another ID, with another case."""
    passage = "The tides follow the moon, whose pull is stronger on the near side of the earth."
    evaluated = write_other(
        tmp_path / "a", {"q1": "why are there tides"}, {"d1": passage, "d2": "x"}
    )
    trained = write_other(tmp_path / "b", {"q1": "moon and sea"}, {"77": passage.upper()})
    [pair] = audit([trained], evaluated).pairs
    assert (pair.what, pair.eval_id, pair.train_id, pair.queries) == (
        "relevant document", "d1", "77", ["q1"]
    )  # fmt: skip
    assert pair.kinds == {"exact": 1.0, "near": 1.0, "ngram": 1.0}  # and not by ID


def test_documents_that_answer_no_evaluated_query_affect_none(tmp_path):
    passage = "flour and yeast make dough that is kneaded and baked in a hot oven until done"
    evaluated = write_other(tmp_path / "a", {"q1": "tides"}, {"d1": "moon", "d2": passage})
    trained = write_other(tmp_path / "b", {"t1": "bread"}, {"d1": passage})
    found = audit([trained], evaluated)
    assert [(p.what, p.eval_id) for p in found.pairs] == [("document", "d2")]
    assert found.groups()["clean"] == ["q1"]


def test_an_unrelated_collection_is_clean(tmp_path, test_spec):
    trained = write_other(tmp_path / "other", UNRELATED, {"d1": "visa rules", "d2": "air fares"})
    found = audit([trained], test_spec)
    assert found.pairs == [] and found.groups()["clean"] == found.queries


def test_a_store_is_compared_through_a_collection_that_has_its_texts(
    tmp_path, test_spec, collection
):
    train, test = collection.query_texts("train"), collection.query_texts("test")
    leaked = list(test)[:2]
    store = write_store(tmp_path / "s", train | {query: test[query] for query in leaked})
    found = audit([store], test_spec)
    assert set(leaked) <= found.affected("query")
    assert {p.eval_id for p in found.pairs if "id" in p.kinds} == set(leaked)


def test_a_store_of_unknown_texts_is_compared_by_digest(tmp_path, test_spec, collection):
    [query, *_] = collection.query_texts("test")
    text = collection.queries[query].full
    found = audit([write_store(tmp_path / "s", UNRELATED | {"elsewhere": text})], test_spec)
    [pair] = found.pairs
    assert (pair.eval_id, pair.train_id, pair.kinds) == (query, "elsewhere", {"exact": 1.0})
    reasons = " ".join(found.drops.counts)
    assert "query of" in reasons and "compared by digest only" in reasons


def test_scores_imported_by_id_are_compared_if_their_collection_is_named(
    tmp_path, tiny_collection, test_spec, collection
):
    [query, *_] = collection.query_texts("test")
    store = write_store(tmp_path / "s", {query: ""}, texts="unknown")
    blind = audit([store], test_spec)
    assert blind.pairs == [] and "known by its ID alone" in " ".join(blind.drops.counts)
    named = audit([store], test_spec, collection=str(tiny_collection))
    assert query in named.affected("query")


def test_documents_that_were_only_scored_affect_no_query(tmp_path, tiny_collection, test_spec):
    """A teacher scores a query's candidates; that a document was among them gives nothing away."""
    collection = open_collection(str(tiny_collection))
    documents = list(collection.documents.iterate())
    store = write_store(tmp_path / "s", UNRELATED, documents)
    assert audit([store], test_spec).pairs == []
    evaluated = write_other(tmp_path / "other", {"q1": "x y"}, {"o1": documents[0].full})
    found = audit([store], evaluated, collection=str(tiny_collection))
    assert {p.what for p in found.pairs} == {"document"} and found.groups()["clean"] == ["q1"]


def test_a_run_is_compared_with_its_unlabelled_queries_too(
    tmp_path, tiny_collection, test_spec, collection
):
    test = collection.query_texts("test")
    ids = list(test)
    parts = {
        "train": {"texts": {"t1": test[ids[0]]}, "qrels": {"t1": {"birds0": 1}}, "sources": {}},
        "unlabelled": {"texts": {"u1": f"{test[ids[1]]}?"}, "qrels": {}, "sources": {}},
    }
    for part, queries in parts.items():
        write_json(tmp_path / "queries" / f"{part}.json", queries)
    found = audit([f"run:{tmp_path}"], test_spec)
    assert {ids[0], ids[1]} <= found.affected("query")
    assert "collection is unknown" in " ".join(found.drops.counts)
    named = audit([f"run:{tmp_path}"], test_spec, collection=str(tiny_collection))
    assert named.trained[0]["relevant_documents"] == 1 and named.trained[0]["unlabelled"] == 1


@pytest.mark.parametrize("name", ["made.txt", "made.tsv", "made.jsonl", "made.txt.gz"])
def test_files_of_generated_text_are_compared(tmp_path, test_spec, collection, name):
    import gzip

    [query, *_] = collection.query_texts("test")
    text = collection.queries[query].full.upper()
    line = {"jsonl": json.dumps({"_id": "g1", "text": text}), "tsv": f"g1\t{text}"}
    data = line.get(name.rpartition(".")[2], text).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert query in audit([f"file:{tmp_path / name}"], test_spec).affected("query")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("{tiny}", r"(names no split|has no split).*"),
        ("{tiny}:dve", r"has no split 'dve'. To fix: .*dev, test, train"),
        ("nowhere:train", r"unknown collection 'nowhere'.*To fix"),
        ("scores:{missing}", r"no score store there. To fix"),
        ("run:{missing}", r"no folder of a run. To fix: name the `out` folder"),
        ("file:{missing}", r"no such file. To fix: check the path"),
        ("scores:", r"'scores:' names no folder. To fix: name COLLECTION:SPLIT"),
        ("train", r"'train' names no split. To fix: name COLLECTION:SPLIT"),
    ],
)
def test_a_wrong_source_is_one_sentence_with_its_remedy(
    tmp_path, tiny_collection, test_spec, train, message
):
    spec = train.format(tiny=tiny_collection, missing=tmp_path / "missing")
    with pytest.raises(InputError, match=message):
        audit([spec], test_spec)


def test_only_a_collection_can_be_evaluated_on(tmp_path, test_spec):
    with pytest.raises(InputError, match="cannot be evaluated on"):
        audit([test_spec], f"run:{tmp_path}")
    with pytest.raises(InputError, match="give --train"):
        audit([], test_spec)


def test_of_a_sample_of_a_split_only_the_sample_is_counted(tiny_collection, test_spec, tmp_path):
    """A run may test some queries of a split: no number of the audit is then of the others."""
    collection = open_collection(str(tiny_collection))
    qrels = collection.qrels("test")
    sample = list(qrels)[1:4]
    # every test query was trained on, and once more as an empty text
    made = tmp_path / "made.jsonl"
    lines = [{"_id": f"copy-{q}", "text": t} for q, t in collection.query_texts("test").items()]
    made.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = audit([f"file:{made}", test_spec], test_spec, only=sample)
    assert found.queries == sample and found.evaluated["queries"] == 3
    relevant = {d for query in sample for d, gain in qrels[query].items() if gain > 0}
    assert found.evaluated["relevant_documents"] == len(relevant)
    assert found.counts()["query"]["exact"] == 3 and found.counts()["query"]["id"] == 3
    assert {query for pair in found.pairs for query in pair.queries} == set(sample)
    assert sum(map(len, list(found.groups().values())[1:])) == 3
