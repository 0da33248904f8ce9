"""The texts of a stage without slates: which there are, and what is left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from retrieval_kd.config.queries import Unlabelled
from retrieval_kd.config.training import TrainingStage
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.draw_queries import sentences
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.pipeline.queries import Queries
from retrieval_kd.pipeline.texts import stage_texts
from retrieval_kd.schema import validate

TERM = [{"name": "embedding_cosine", "teacher": "m"}]
UNLABELLED = Queries({"u1": "a log's query", "u2": "mast"}, {}, {})


class Given:
    """Stands for an ensemble: its collection and queries are all that is read."""

    def __init__(self, folder: Path) -> None:
        self.collection = open_collection(str(folder))
        self.unlabelled = Unlabelled()
        train = Queries(self.collection.query_texts("train"), {}, {})
        self.queries = {"train": train, "unlabelled": UNLABELLED}.__getitem__


@pytest.fixture(scope="module")
def folder(tiny_collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny collection with sentences, an empty document, and a title that is a query."""
    folder = shutil.copytree(tiny_collection, tmp_path_factory.mktemp("texts") / "tiny")
    lines = (folder / "corpus.jsonl").read_text().splitlines()
    query = json.loads((folder / "queries.jsonl").read_text().splitlines()[0])["text"]
    text = "One sparrow sings in the nest. Two sparrows sing in the old nest. No."
    lines += [json.dumps({"_id": "long", "title": query, "text": text})]
    lines += [json.dumps({"_id": "again", "title": "birds egg", "text": text})]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def drawn(folder: Path, texts: object, rows: int = 1000, **more: object):
    ensemble, drops = Given(folder), Drops()
    stage = validate(TrainingStage, {"objective": TERM, "texts": texts, **more})
    return ensemble, stage_texts(stage, ensemble, rows, drops), drops


def test_all_texts_there_are(folder):
    ensemble, texts, drops = drawn(folder, "all")
    documents = ensemble.collection.documents
    assert sorted(texts.documents.tolist()) == list(range(len(documents)))
    titles = {document.title for document in documents.iterate()}
    queries = {query.text for query in ensemble.collection.queries.iterate()}
    train = set(ensemble.collection.query_texts("train").values())
    own = {*train, *UNLABELLED.texts.values()}
    long = set(sentences(documents["long"].text)[:2])
    whole = {s for d in documents.iterate() for s in sentences(d.text) if 6 <= len(s.split()) <= 45}
    assert set(texts.queries) == own | (titles - queries) | (whole - queries)
    assert long < set(texts.queries)
    assert len(set(texts.queries)) == len(texts.queries)
    assert not {*texts.queries} & (queries - train)  # neither dev nor test queries
    counted = " ".join(drops.summary())
    assert "among the excluded" in counted and "the same text" in counted


def test_only_the_kinds_that_are_named(folder):
    ensemble, texts, _ = drawn(folder, ["queries"], uses_unlabelled=False)
    assert set(texts.queries) == set(ensemble.collection.query_texts("train").values())
    assert not len(texts.documents)
    _, texts, _ = drawn(folder, ["documents"])
    assert not texts.queries and len(texts) == len(ensemble.collection.documents)


def test_no_more_than_the_stage_goes_through_and_always_the_same(folder):
    _, texts, _ = drawn(folder, "all", rows=30)
    assert len(texts) == 30 and texts.queries and len(texts.documents)
    assert drawn(folder, "all", rows=30)[1].digest == texts.digest
    assert drawn(folder, "all", rows=31)[1].digest != texts.digest


def test_empty_and_repeated_texts_are_counted(folder):
    ensemble, drops = Given(folder), Drops()
    given = {"train": {"q1": " ", "q2": "egg"}, "unlabelled": {"q3": "egg"}}
    ensemble.queries = {part: Queries(texts, {}, {}) for part, texts in given.items()}.__getitem__
    stage = validate(TrainingStage, {"objective": TERM, "texts": ["queries"]})
    assert stage_texts(stage, ensemble, 9, drops).queries == ["egg"]
    counted = " ".join(drops.summary())
    assert "empty query" in counted and "another one repeats" in counted


def test_nothing_to_go_through_is_an_error(folder):
    ensemble = Given(folder)
    ensemble.queries = {"train": Queries({}, {}, {}), "unlabelled": Queries({}, {}, {})}.get
    stage = validate(TrainingStage, {"objective": TERM, "texts": ["queries"]})
    with pytest.raises(InputError, match="no queries to go through"):
        stage_texts(stage, ensemble, 9, Drops())
