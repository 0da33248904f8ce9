"""The score store keeps every answer, finds it by the texts, and never changes it."""

from __future__ import annotations

import dataclasses
import tempfile
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.store.digests import document_digest, hash_ids, query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.shards import read_shard, shard_paths

KEY = TeacherKey("pointwise", "teachers/big", digest="ab12", max_length=256, dtype="bfloat16")


def add(store: ScoreStore, pairs: dict[tuple[str, str], float], key=KEY, **options) -> None:
    """Store scores of (query, document) IDs whose texts are the IDs."""
    queries, documents = zip(*pairs, strict=True) if pairs else ((), ())
    digests = [digest_text(id) for id in queries], [digest_text("", id) for id in documents]
    with store.writer(key, **options) as writer:
        writer.add(queries, documents, *digests, np.array(list(pairs.values()), dtype=np.float32))


def look(store: ScoreStore, pairs: list[tuple[str, str]], key=KEY) -> list[float | None]:
    digests = [digest_text(q) for q, _ in pairs], [digest_text("", d) for _, d in pairs]
    found = store.lookup(key, *digests)
    assert found.dtype == np.float32 and found.shape == (len(pairs),)
    return [None if np.isnan(score) else float(score) for score in found]


pairs = st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz"))
scores = st.floats(-50, 50, width=32)
steps = st.one_of(
    st.tuples(st.just("add"), st.lists(st.tuples(pairs, scores), max_size=9)),
    st.tuples(st.just("look"), st.lists(pairs, max_size=6)),
    st.tuples(st.just("reopen"), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=8), st.integers(1, 7))
def test_lookup_is_a_dict_where_the_first_answer_counts(history, shard_rows):
    with tempfile.TemporaryDirectory() as folder:
        store, expected = ScoreStore(folder), {}
        for step, value in history:
            if step == "add":
                for pair, score in value:  # a pair may come twice in one call, and again later
                    expected.setdefault(pair, score)
                with store.writer(KEY, shard_rows) as writer:
                    q, d = [p[0] for p, _ in value], [p[1] for p, _ in value]
                    digests = [digest_text(i) for i in q], [digest_text("", i) for i in d]
                    writer.add(q, d, *digests, [score for _, score in value])
            elif step == "look":
                assert look(store, value) == [expected.get(pair) for pair in value]
            else:
                store = ScoreStore(folder)
        everything = list(expected)
        for opened in (store, ScoreStore(folder)):
            assert look(opened, everything) == [expected[pair] for pair in everything]
            assert opened.count(KEY) == len(expected)
        if expected:
            rows = store.read(KEY).to_pylist()
            assert [(row["query_id"], row["document_id"]) for row in rows] == everything
            assert [row["score"] for row in rows] == list(expected.values())


def test_shards_are_cut_at_the_given_rows_whatever_the_batches(tmp_path):
    store = ScoreStore(tmp_path)
    with store.writer(KEY, shard_rows=10) as writer:
        for start in range(0, 35, 7):
            ids = [f"d{i}" for i in range(start, start + 7)]
            queries = [digest_text("q")] * 7
            writer.add(["q"] * 7, ids, queries, [digest_text("", i) for i in ids], np.ones(7))
            if start == 7:
                assert len(shard_paths(store.folder(KEY))) == 1
    sizes = [read_shard(path).num_rows for path in shard_paths(store.folder(KEY))]
    assert sizes == [10, 10, 10, 5]
    assert store.read(KEY)["document_id"].to_pylist() == [f"d{i}" for i in range(35)]


def test_what_was_added_before_an_exception_is_kept(tmp_path):
    store = ScoreStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        with store.writer(KEY) as writer:
            writer.add(["q"], ["d"], [digest_text("q")], [digest_text("", "d")], [3.5])
            raise KeyboardInterrupt
    assert look(store, [("q", "d")]) == [3.5]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_score_that_is_no_number_is_refused_with_its_pair(tmp_path, bad):
    store = ScoreStore(tmp_path)
    with pytest.raises(InputError, match="query q2 and document d7"):
        with store.writer(KEY) as writer:
            digests = [digest_text("a")] * 2, [digest_text("b"), digest_text("c")]
            writer.add(["q1", "q2"], ["d1", "d7"], *digests, [1.0, bad])
    assert store.count(KEY) == 0


@pytest.mark.parametrize("digest", ["12", "z" * 32, " " * 32, "ab " * 10 + "ab"])
def test_a_malformed_digest_is_refused(tmp_path, digest):
    with pytest.raises(InputError, match="32 hex digits"):
        ScoreStore(tmp_path).lookup(KEY, [digest], [digest_text("d")])


def test_columns_of_different_lengths_are_refused(tmp_path):
    with pytest.raises(InputError, match="different lengths"):
        with ScoreStore(tmp_path).writer(KEY) as writer:
            writer.add(["q"], ["d"], [digest_text("q")], [digest_text("d")], [1.0, 2.0])


def test_every_part_that_changes_an_answer_changes_the_fingerprint():
    changes = {
        "kind": "listwise",
        "digest": "cd34",
        "prompt": "Is it relevant?",
        "max_length": 512,
        "dtype": "float32",
    }
    keys = [KEY, *(dataclasses.replace(KEY, **{name: to}) for name, to in changes.items())]
    assert len({key.fingerprint for key in keys}) == len(keys)
    same = dataclasses.replace(KEY, model="moved/big", activation="Sigmoid")
    assert same.fingerprint == KEY.fingerprint
    with pytest.raises(InputError, match="digest"):
        TeacherKey("pointwise", "big", digest="")


def test_teachers_do_not_see_each_others_answers(tmp_path):
    store, other = ScoreStore(tmp_path), dataclasses.replace(KEY, dtype="float32")
    add(store, {("q", "d"): 1.0})
    add(store, {("q", "d"): 2.0}, other)
    assert look(store, [("q", "d")]) == [1.0] and look(store, [("q", "d")], other) == [2.0]
    assert set(store.teachers()) == {KEY, other}


def test_a_teacher_is_found_by_name_and_by_fingerprint_prefix(tmp_path):
    store = ScoreStore(tmp_path)
    add(store, {("q", "d"): 1.0})
    assert store.resolve("teachers/big") == store.resolve(KEY.fingerprint[:6]) == KEY
    with pytest.raises(InputError, match=rf"no such teacher.*{KEY.fingerprint}"):
        store.resolve("small")
    other = dataclasses.replace(KEY, max_length=512)
    add(store, {("q", "d"): 1.0}, other)
    with pytest.raises(InputError, match=rf"several.*{other.fingerprint}"):
        store.resolve("teachers/big")


def test_a_missing_store_knows_nothing_and_cannot_be_read(tmp_path):
    store = ScoreStore(tmp_path / "none")
    assert look(store, [("q", "d")]) == [None] and store.count(KEY) == 0
    for call in (store.teachers, store.verify, lambda: store.resolve("big")):
        with pytest.raises(InputError, match="no score store"):
            call()
    with pytest.raises(InputError, match="no scores of this teacher"):
        store.read(KEY)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a folder"):
        ScoreStore(tmp_path / "file")


def test_a_changed_text_is_not_found_but_its_ids_are_known(tmp_path):
    store = ScoreStore(tmp_path)
    scored = [query_digest("who?")] * 3, [document_digest("", t) for t in ("one", "two", "three")]
    ids = ["q"] * 3, ["d1", "d2", "d3"]
    with store.writer(KEY, shard_rows=2) as writer:
        writer.add(*ids, *scored, [1.0, 2.0, 3.0])
    edited = scored[0], [scored[1][0], document_digest("", "2"), document_digest("Title", "three")]
    assert np.isnan(store.lookup(KEY, *edited)).tolist() == [False, True, True]
    assert np.isin(hash_ids(*ids), store.id_pairs(KEY)).all()
    assert not np.isin(hash_ids(["q"], ["d4"]), store.id_pairs(KEY)).any()


def test_the_ids_of_an_import_without_texts_are_not_known(tmp_path):
    store = ScoreStore(tmp_path)
    with store.writer(KEY, texts="unknown") as writer:
        writer.add(["q"], ["d"], [digest_text("id", "q")], [digest_text("id", "d")], [1.0])
    assert len(store.id_pairs(KEY)) == 0


def test_another_writers_shards_are_seen_without_reopening(tmp_path):
    reader, writer = ScoreStore(tmp_path), ScoreStore(tmp_path)
    assert look(reader, [("q", "d")]) == [None]
    add(writer, {("q", "d"): 1.5})
    assert look(reader, [("q", "d")]) == [1.5]


def test_a_million_pairs_are_looked_up_in_seconds(tmp_path):
    random = np.random.default_rng(7)
    queries = random.bytes(16 * 10_000).hex()
    documents = random.bytes(16 * 50_000).hex()
    q = [queries[32 * i : 32 * i + 32] for i in np.repeat(np.arange(10_000), 100)]
    d = [documents[32 * i : 32 * i + 32] for i in random.integers(0, 50_000, 1_000_000)]
    values = random.normal(size=1_000_000).astype(np.float32)
    store = ScoreStore(tmp_path)
    with store.writer(KEY, shard_rows=250_000) as writer:
        writer.add(["q"] * len(q), ["d"] * len(d), q, d, values)
    start = time.process_time()
    found = store.lookup(KEY, q, d)
    assert time.process_time() - start < 15  # takes about two seconds
    assert (found == values).mean() > 0.99  # the same document drawn twice: its first score
    assert not np.isnan(found).any()
