"""Scores in columns, against dictionaries of dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data import scores as columns
from retrieval_kd.data.rows import Row
from retrieval_kd.data.scores import STACK, Names, ScoreTable, with_relevant
from retrieval_kd.data.texts import Texts, UnknownID, build_texts

QUERIES, DOCUMENTS = ["q0", "q1", "q2", "q3"], ["d0", "d1", "d2", "d3", "d4"]
numbers = st.floats(-100, 100, width=32)
lists = st.dictionaries(
    st.sampled_from(QUERIES), st.dictionaries(st.sampled_from(DOCUMENTS), numbers)
)
gains = st.dictionaries(
    st.sampled_from(QUERIES),
    st.dictionaries(st.sampled_from([*DOCUMENTS, "gone"]), st.integers(-1, 2)),
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Texts:
    return build_texts([Row(id, "", id) for id in DOCUMENTS], tmp_path_factory.mktemp("t") / "t")


def in_order(scores):
    return [(query, list(documents.items())) for query, documents in scores.items()]


@given(lists)
def test_a_table_reads_like_the_dictionaries_it_is_made_of(texts, scores):
    for numbering in (None, texts):
        table = ScoreTable.of(scores, numbering)
        assert in_order(table) == in_order(scores) and table == scores and scores == table
        assert table.pairs == sum(map(len, scores.values()))
        assert all((query in table) == (query in scores) for query in QUERIES)
        assert table.get("other", {}) == {} and len(table) == len(scores)
        assert table.ids() == {query: list(found) for query, found in scores.items()}
        assert ScoreTable.of(table, numbering) is table


@given(lists, st.lists(st.sampled_from(QUERIES), unique=True), st.data())
def test_chosen_queries_and_kept_pairs(scores, wanted, data):
    table = ScoreTable.of(scores)
    asked = {query: scores.get(query, {}) for query in wanted}
    assert in_order(table.of_queries(wanted)) == in_order(asked)
    assert table.counts_of(wanted).tolist() == [len(found) for found in asked.values()]
    mask = np.array([data.draw(st.booleans()) for _ in range(table.pairs)], bool)
    left = iter(mask)
    kept = {q: {d: s for d, s in found.items() if next(left)} for q, found in scores.items()}
    assert in_order(table.keep(mask)) == in_order({q: found for q, found in kept.items() if found})


@given(lists, lists, st.integers(1, 9))
def test_pairs_are_found_whatever_the_size_of_a_block(scores, others, size):
    names = Names()
    table, other = ScoreTable.of(scores, names), ScoreTable.of(others, names)
    known = [(q, d) for q, found in scores.items() for d in found]
    asked = [(q, d) for q, found in others.items() for d in found]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "STACK", size)
        places = table.places(other).tolist()
    assert places == [known.index(pair) if pair in known else -1 for pair in asked]


@given(lists, lists)
def test_pairs_of_another_table_are_found(scores, others):
    names = Names()
    table, other = ScoreTable.of(scores, names), ScoreTable.of(others, names)
    expected = [scores.get(q, {}).get(d, np.nan) for q, found in others.items() for d in found]
    np.testing.assert_array_equal(table.scores_for(other), np.array(expected, np.float64))
    assert table.has_pairs_of(other) == (
        [(q, list(f)) for q, f in scores.items()] == [(q, list(f)) for q, f in others.items()]
    )


@given(lists)
def test_stacks_have_each_pair_once_in_its_querys_order(scores):
    table, seen = ScoreTable.of(scores), []
    for at in table.stacks():
        assert at.shape[1] and (np.diff(at, axis=1) == 1).all()
        assert set(at[:, 0]) <= set(table.starts.tolist())
        seen += at.ravel().tolist()
    assert sorted(seen) == list(range(table.pairs))


def test_stacks_stay_small():
    table = ScoreTable.of({str(query): map(str, range(500)) for query in range(1200)})
    sizes = [at.size for at in table.stacks()]
    assert len(sizes) > 1 and max(sizes) <= STACK + 500 and sum(sizes) == table.pairs


@given(lists, gains)
def test_relevant_documents_are_appended(texts, scores, qrels):
    extended = with_relevant(scores, qrels, texts)
    expected = {}
    for query, found in scores.items():
        relevant = [d for d, gain in qrels.get(query, {}).items() if gain > 0 and d in texts]
        expected[query] = list(dict.fromkeys([*found, *relevant]))
    assert extended.ids() == expected and list(extended) == list(expected)
    known = {query: {d: extended[query][d] for d in found} for query, found in scores.items()}
    assert known == scores


def test_a_document_without_a_number(texts):
    with pytest.raises(UnknownID, match="gone"):
        ScoreTable.of({"q": {"d1": 1.0, "gone": 2.0}}, texts)
    assert ScoreTable.of({"q": ["gone", "d1", "d1"]}, texts, known_only=True).ids() == {"q": ["d1"]}
    assert texts.positions(["d3", "gone", "d0"]).tolist() == [3, -1, 0]
    assert texts.ids_at(np.array([4, 0])) == ["d4", "d0"]
