"""Stored scores of a collection's queries, against dictionaries filled row by row."""

from __future__ import annotations

import tempfile
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.data.rows import Row
from retrieval_kd.data.texts import build_texts
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store import scores as store_scores
from retrieval_kd.store.digests import document_digest, query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.stored import stored_scores

KEY = TeacherKey("pointwise", "made-up", digest="ab12")
# Two queries have one text, two documents have another; the order of IDs is not that of positions.
QUERIES = {"q2": "who", "q1": "where", "q3": "who", "q4": "when"}
DOCUMENTS = {"é": "a", "d10": "b", "d2": "c", "d1": "b", "z": "d"}


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    rows = [Row(id, "", text) for id, text in DOCUMENTS.items()]
    return SimpleNamespace(documents=build_texts(rows, tmp_path_factory.mktemp("texts") / "t"))


rows = st.lists(
    st.tuples(
        st.sampled_from([*QUERIES, "q9"]),
        st.sampled_from(["who", "where", "when", "another text"]),
        st.sampled_from([*DOCUMENTS, "gone"]),
        st.sampled_from(["a", "b", "c", "d", "an older text"]),
        st.floats(-9, 9, width=32),
    ),
    max_size=40,
)
asked = st.dictionaries(st.sampled_from(list(QUERIES)), st.lists(st.sampled_from(list(DOCUMENTS))))
gains = st.dictionaries(st.sampled_from(list(QUERIES)), st.just({"d2": 1, "z": 0, "gone": 1}))


def by_dictionaries(stored, candidates, qrels, drops):
    """The same scores and counts, row by row."""
    first = {}
    for query, query_text, document, document_text, score in stored:
        first.setdefault((query_text, document_text), (query, document, score))
    pairs = {}
    if candidates is None:
        for (text, _), (stored_query, document, _) in first.items():
            for query in [q for q, own in QUERIES.items() if own == text] or [stored_query]:
                if query in QUERIES and document in DOCUMENTS:
                    pairs.setdefault(query, set()).add(document)
                elif query in QUERIES:
                    what = "stored score of a document that the collection lacks"
                    drops.add(what, document)
        pairs = {query: sorted(documents) for query, documents in pairs.items()}
    else:
        pairs = {query: list(dict.fromkeys(documents)) for query, documents in candidates.items()}
    scores = {}
    for query, documents in pairs.items():
        relevant = [d for d, gain in qrels.get(query, {}).items() if gain > 0 and d in DOCUMENTS]
        for document in dict.fromkeys([*documents, *relevant]):
            found = first.get((QUERIES[query], DOCUMENTS[document]))
            if found is not None:
                scores.setdefault(query, {})[document] = found[2]
    missing = [(q, d) for q, ids in pairs.items() for d in ids if d not in scores.get(q, {})]
    if scores and missing:
        what = "pair without an answer of made-up about its present texts"
        drops.add(what, next(iter(pairs)), len(missing))
    return scores


@settings(max_examples=60, deadline=None)
@given(rows, st.none() | asked, gains, st.integers(1, 40), st.integers(1, 40))
def test_what_is_read_is_what_the_dictionaries_hold(
    collection, stored, candidates, qrels, shard_rows, read_rows
):
    drops, expected_drops = Drops(), Drops()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_scores, "READ_ROWS", read_rows)
        with ScoreStore(folder).writer(KEY, shard_rows) as writer:
            for query, query_text, document, document_text, score in stored:
                digests = [query_digest(query_text)], [document_digest("", document_text)]
                writer.add([query], [document], *digests, [score])
        if not stored:
            with pytest.raises(InputError, match="no such teacher"):
                stored_scores(collection, QUERIES, folder, ["made-up"], candidates, drops, qrels)
            return
        expected = by_dictionaries(stored, candidates, qrels, expected_drops)
        if not expected:
            with pytest.raises(InputError, match="none of these queries"):
                stored_scores(collection, QUERIES, folder, ["made-up"], candidates, drops, qrels)
            return
        [found] = stored_scores(collection, QUERIES, folder, ["made-up"], candidates, drops, qrels)
    assert [(q, list(d.items())) for q, d in found.items()] == [
        (q, list(d.items())) for q, d in expected.items()
    ]
    assert drops.summary() == expected_drops.summary()


@settings(max_examples=30, deadline=None)
@given(rows, st.integers(1, 40), st.integers(1, 40))
def test_a_store_is_read_piece_by_piece_each_pair_once(stored, shard_rows, read_rows):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_scores, "READ_ROWS", read_rows)
        store = ScoreStore(folder)
        with store.writer(KEY, shard_rows) as writer:
            for query, query_text, document, document_text, score in stored:
                digests = [query_digest(query_text)], [document_digest("", document_text)]
                writer.add([query], [document], *digests, [score])
        if not stored:
            with pytest.raises(InputError, match="no scores of this teacher"):
                store.read(KEY)
            return
        first = {}
        for query, query_text, document, document_text, score in stored:
            first.setdefault((query_text, document_text), (query, document, score))
        table = store.read(KEY).to_pylist()
        assert store.count(KEY) == len(first)
    read = [(row["query_id"], row["document_id"], row["score"]) for row in table]
    assert read == list(first.values())
