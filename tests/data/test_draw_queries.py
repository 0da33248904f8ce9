"""Queries drawn for training never touch the evaluation's, and are the same for a seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.draw_queries import held_out, linked_groups, normalise, unlabelled_queries
from retrieval_kd.errors import Drops, InputError
from tests.data.files import write_beir

SENTENCES = [f"This is the sentence with number {k} of it." for k in range(5)]
DOCUMENTS = [
    ("d1", "Tides and the moon", " ".join(SENTENCES)),
    ("d2", "tides  and the moon.", "Too short to use."),
    ("d3", "", "Only one sentence in this document fits. No. Not this."),
    ("d4", "Why are there tides", ""),
]


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return open_collection(write_beir(tmp_path / "c", DOCUMENTS, qrels={}))


def test_titles_are_drawn_once_and_excluded_ones_never(collection: Collection) -> None:
    drops = Drops()
    exclude = {normalise(query.text) for query in collection.queries.iterate()}
    found = unlabelled_queries(collection, "titles", seed=1, exclude=exclude, drops=drops)
    assert len(found) == 1
    query_id, text, document_id = found[0]
    assert query_id == f"title:{document_id}"
    assert normalise(text) == "tides and the moon"
    assert sorted(drops.counts.values()) == [1, 1]  # d4 is a query, d1 and d2 are the same


def test_sentences_are_the_last_and_one_other(collection: Collection) -> None:
    found = unlabelled_queries(collection, "sentences", seed=1, drops=Drops())
    by_document = {d: [(q, t) for q, t, e in found if e == d] for d in ("d1", "d2", "d3", "d4")}
    assert by_document["d1"][0] == ("sentence:d1:4", SENTENCES[4])
    (other_id, other) = by_document["d1"][1]
    assert SENTENCES[int(other_id.rpartition(":")[2])] == other != SENTENCES[4]
    assert by_document["d3"] == [("sentence:d3:0", "Only one sentence in this document fits.")]
    assert by_document["d2"] == by_document["d4"] == []


def test_the_seed_decides_which_queries_are_drawn(collection: Collection) -> None:
    draws = [
        unlabelled_queries(collection, "sentences", seed=s, drops=Drops())
        for s in (1, 1, *range(2, 12))
    ]
    assert draws[0] == draws[1]
    assert any(draw != draws[0] for draw in draws)


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_a_limited_draw_is_a_prefix_of_the_whole(collection: Collection, limit: int) -> None:
    whole = unlabelled_queries(collection, "sentences", seed=1, drops=Drops())
    assert (
        unlabelled_queries(collection, "sentences", seed=1, limit=limit, drops=Drops())
        == whole[:limit]
    )


def test_an_unknown_kind_is_refused(collection: Collection) -> None:
    with pytest.raises(InputError, match="no unlabelled queries of kind 'words'"):
        unlabelled_queries(collection, "words", seed=1, drops=Drops())  # type: ignore[arg-type]


documents = st.dictionaries(st.sampled_from([f"d{i}" for i in range(12)]), st.integers(0, 2))
judgments = st.dictionaries(st.sampled_from([f"q{i}" for i in range(15)]), documents)


def relevant(qrels: dict[str, dict[str, int]], queries: set[str]) -> set[str]:
    return {d for q in queries for d, gain in qrels.get(q, {}).items() if gain > 0}


@given(judgments, st.integers(0, 10), st.integers(0, 3))
def test_held_out_queries_share_no_relevant_document_with_the_rest(qrels, count, seed):
    chosen = set(held_out(qrels, qrels, count, seed))
    assert len(chosen) <= count
    assert not relevant(qrels, chosen) & relevant(qrels, set(qrels) - chosen)


@given(judgments)
def test_every_query_is_in_one_group(qrels):
    members = [q for group in linked_groups(qrels) for q in group]
    assert sorted(members) == sorted(qrels)


@given(judgments, st.integers(0, 10))
def test_the_order_of_queries_does_not_matter(qrels, count):
    backwards = dict(reversed(qrels.items()))
    assert set(held_out(qrels, qrels, count, 1)) == set(held_out(backwards, backwards, count, 1))


def test_a_judgment_of_zero_links_nothing():
    assert linked_groups({"a": {"d": 1}, "b": {"d": 0}}) == [["a"], ["b"]]


def test_nothing_is_held_out_if_all_queries_are_one_group():
    qrels = {q: {"d": 1} for q in "abcdef"}
    assert held_out(qrels, qrels, 3, 0) == {}
