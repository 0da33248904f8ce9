"""Teachers give the scores their libraries give; the scoring stage asks for nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.models.encode import is_encoded
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import read_usage
from retrieval_kd.teachers import score as score_file
from retrieval_kd.teachers.pointwise import retrievers as first_stage
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher
from retrieval_kd.teachers.score import score, scores_of
from retrieval_kd.teachers.spec import open_teacher
from retrieval_kd.teachers.stored import stored_scores


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def candidates(collection: Collection) -> dict[str, list[str]]:
    run = bm25_run(collection, collection.query_texts("train"), 8)
    return {query: list(found) for query, found in run.results.items()}


class Counting:
    """A teacher that notes which pairs it was asked."""

    def __init__(self, teacher):
        self.teacher, self.key, self.asked = teacher, teacher.key, []

    def score(self, queries, documents):
        self.asked += [(q, d.id) for q, d in zip(queries, documents, strict=True)]
        return self.teacher.score(queries, documents)


def test_cross_encoder_gives_the_raw_logits_of_sentence_transformers(
    tiny_cross_encoder, collection
):
    pairs = [
        (query, document)
        for query in list(collection.query_texts("train").values())[:5]
        for document in collection.documents.iterate(0, 9)
    ]
    peer = CrossEncoder(str(tiny_cross_encoder), device="cpu", max_length=32)
    expected = peer.predict([(q, d.full) for q, d in pairs], activation_fn=torch.nn.Identity())
    for budget in (1, 64, 100_000):
        teacher = CrossEncoderTeacher(
            str(tiny_cross_encoder), max_length=32, batch_tokens=budget, dtype=torch.float32
        )
        got = teacher.score([q for q, _ in pairs], [d for _, d in pairs])
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert got.std() > 0


@pytest.mark.parametrize("whole", [0, 1_000])
def test_dense_teacher_gives_the_models_own_similarity(
    whole, tiny_dot_encoder, collection, tmp_path, monkeypatch
):
    """Also of a big collection, of which it encodes only what it is asked about."""
    monkeypatch.setattr(first_stage, "WHOLE", whole)
    monkeypatch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path))
    teacher = open_teacher(f"dense:{tiny_dot_encoder}", collection, max_length=32)
    queries = list(collection.query_texts("train").values())[:3]
    documents = list(collection.documents.iterate(0, 3))
    peer = SentenceTransformer(str(tiny_dot_encoder), device="cpu")
    expected = peer.similarity_pairwise(
        peer.encode_query(queries), peer.encode_document([d.full for d in documents])
    )
    np.testing.assert_allclose(teacher.score(queries, documents), expected, rtol=1e-4)
    np.testing.assert_allclose(
        teacher.score(queries[::-1], documents[::-1]), expected.flip(0), rtol=1e-4
    )
    encoded = is_encoded(str(tiny_dot_encoder), collection.documents, max_length=32)
    assert encoded == (whole > 0)


@pytest.mark.parametrize("kind", ["bm25", "dense", "cross-encoder"])
def test_what_is_stored_is_not_asked_again(
    kind, collection, candidates, tiny_encoder, tiny_cross_encoder, tmp_path
):
    spec = {
        "bm25": "bm25",
        "dense": f"dense:{tiny_encoder}",
        "cross-encoder": str(tiny_cross_encoder),
    }[kind]
    queries, store = collection.query_texts("train"), ScoreStore(tmp_path / "store")
    teacher = Counting(open_teacher(spec, collection))
    some = dict(list(candidates.items())[:6])
    first = score(collection, queries, some, teacher, store, shard_pairs=7)
    assert first.scored == first.pairs == len(teacher.asked) == len(set(teacher.asked))
    everything = score(collection, queries, candidates, teacher, store, shard_pairs=7)
    assert everything.reused == first.pairs
    assert len(teacher.asked) == len(set(teacher.asked)) == everything.pairs
    known = scores_of(collection, queries, candidates, store, teacher.key)
    assert {q: set(d) for q, d in known.items()} == {q: set(d) for q, d in candidates.items()}


def test_a_changed_text_is_noticed_and_scored_again(collection, tiny_collection, tmp_path):
    store, queries = ScoreStore(tmp_path / "store"), collection.query_texts("train")
    query = next(iter(queries))
    wanted = {query: ["birds0", "birds1"]}
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "queries.jsonl").write_text((tiny_collection / "queries.jsonl").read_text())
    lines = (tiny_collection / "corpus.jsonl").read_text().splitlines()
    first = json.loads(lines[0]) | {"text": "a quite different text about sparrow"}
    (changed / "corpus.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    other = open_collection(str(changed))
    teacher = Counting(open_teacher("bm25", collection))
    score(collection, queries, wanted, teacher, store)
    report = score(other, queries, wanted, teacher, store)
    assert (report.stale, report.scored, report.reused) == (1, 1, 1)


def test_an_unknown_query_or_document_is_named(collection, tmp_path):
    store, teacher = ScoreStore(tmp_path / "store"), open_teacher("bm25", collection)
    queries = collection.query_texts("train")
    with pytest.raises(InputError, match="nobody"):
        score(collection, queries, {"nobody": ["birds0"]}, teacher, store)
    with pytest.raises(InputError, match="nowhere"):
        score(collection, queries, {next(iter(queries)): ["nowhere"]}, teacher, store)


def test_a_nan_from_a_teacher_is_refused_and_earlier_shards_stay(collection, candidates, tmp_path):
    store, queries = ScoreStore(tmp_path / "store"), collection.query_texts("train")
    teacher = Counting(open_teacher("bm25", collection))

    class Broken(Counting):
        def score(self, queries, documents):
            values = super().score(queries, documents)
            if len(self.asked) > 20:
                values[-1] = np.nan
            return values

    with pytest.raises(InputError, match="nan"):
        score(collection, queries, candidates, Broken(teacher.teacher), store, shard_pairs=10)
    assert store.count(teacher.key) == 20
    assert store.verify() == []


def test_stored_scores_name_what_is_missing(collection, candidates, tmp_path):
    store, queries = tmp_path / "store", collection.query_texts("train")
    teacher = open_teacher("bm25", collection)
    score(collection, queries, candidates, teacher, ScoreStore(store))
    drops = Drops()
    [found] = stored_scores(collection, queries, store, [], None, drops)
    assert {q: set(d) for q, d in found.items()} == {q: set(d) for q, d in candidates.items()}
    more = {query: [*ids, "bread0"] for query, ids in candidates.items() if "bread0" not in ids}
    stored_scores(collection, queries, store, ["bm25"], more, drops)
    assert sum(drops.counts.values()) == len(more)
    with pytest.raises(InputError, match="no such teacher"):
        stored_scores(collection, queries, store, ["other"], None, drops)
    with pytest.raises(InputError, match="none of these queries"):
        stored_scores(collection, collection.query_texts("dev"), store, [], None, drops)


def test_a_query_is_known_by_its_text(collection, candidates, tmp_path):
    """Whoever had that text when it was scored."""
    store, queries = ScoreStore(tmp_path), collection.query_texts("train")
    name = next(iter(candidates))
    score(collection, queries, {name: candidates[name]}, open_teacher("bm25", collection), store)
    again = {"another": queries[name]}
    [found] = stored_scores(collection, again, store.path, [], None, Drops())
    assert set(found) == {"another"} and set(found["another"]) == set(candidates[name])


def test_an_encoder_is_no_teacher(tiny_encoder, tiny_decoder):
    """It would get a random head, and random scores would be stored."""
    with pytest.raises(InputError, match=r"not a cross-encoder.*dense:MODEL"):
        CrossEncoderTeacher(str(tiny_encoder))
    with pytest.raises(InputError, match=r"not a cross-encoder.*yesno:MODEL"):
        CrossEncoderTeacher(str(tiny_decoder))


def test_two_documents_of_one_text_are_asked_once(tmp_path):
    rows = [{"_id": i, "title": "", "text": "sparrow wing"} for i in ("a", "b")]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "wing"}\n')
    collection = open_collection(str(tmp_path))
    teacher = Counting(open_teacher("bm25", collection))
    store, queries, wanted = ScoreStore(tmp_path / "s"), {"q": "wing"}, {"q": ["a", "b"]}
    score(collection, queries, wanted, teacher, store)
    assert len(teacher.asked) == 1
    assert set(scores_of(collection, queries, wanted, store, teacher.key)["q"]) == {"a", "b"}


def test_changed_weights_are_another_teacher(tiny_cross_encoder, tmp_path):
    from tests.tiny_models import write_cross_encoder

    other = write_cross_encoder(tmp_path / "other", seed=5)
    one, two = (CrossEncoderTeacher(str(path)).key for path in (tiny_cross_encoder, other))
    assert one.fingerprint != two.fingerprint
    longer = CrossEncoderTeacher(str(other), max_length=48).key
    assert longer.fingerprint != two.fingerprint


def test_what_a_killed_command_has_stored_is_in_its_usage(collection, candidates, tmp_path):
    """A kill leaves no time to write: the usage is on disk before the scores are."""
    store, seen = ScoreStore(tmp_path / "store"), []
    teacher = Counting(open_teacher("bm25", collection))

    def note() -> None:
        used = read_usage(store.folder(teacher.key))
        known = store.path.is_dir() and store.count(teacher.key)
        seen.append((used.calls if used else 0, known or 0))

    asked, queries = teacher.score, collection.query_texts("train")
    teacher.score = lambda *pairs: (note(), asked(*pairs))[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_file, "SHARD_PAIRS", 7)
        report, spent = score_file.score_and_record(collection, queries, candidates, teacher, store)
    assert len(seen) > 3 and all(calls >= known for calls, known in seen) and seen[-1][0] > 0
    used = read_usage(store.folder(teacher.key))
    assert used is not None and used.calls == spent.calls == report.scored


def test_a_killed_local_model_loses_no_more_calls_than_answers(
    collection, candidates, tiny_decoder, tmp_path
):
    store, seen = ScoreStore(tmp_path / "store"), []
    teacher = open_teacher(f"pairwise:{tiny_decoder}?passage_tokens=8&pairs=adjacent", collection)
    teacher.at_once, answer = 3, teacher.answer

    def noting(requests):
        used = read_usage(store.folder(teacher.key))
        seen.append(used.calls if used else 0)
        return answer(requests)

    teacher.answer = noting
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnswerStore.writer, "__defaults__", (5_000, 0.0))
        score_file.score_and_record(
            collection,
            collection.query_texts("train"),
            dict(list(candidates.items())[:1]),
            teacher,
            store,
        )
    assert seen[:3] == [0, 3, 6]
    assert read_usage(store.folder(teacher.key)).calls == teacher.model.usage.calls
