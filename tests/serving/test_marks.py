"""Words that matched are marked where they stand, and the shown part is where most of them are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.texts import Document
from retrieval_kd.indexing.index import Index
from retrieval_kd.serving import marks
from tests.serving.conftest import WORDS


def marked(text: str, weights: np.ndarray) -> list[str]:
    return [piece.text for piece in marks.pieces(text, weights) if piece.weight]


def test_terms_are_marked_as_bm25_reads_them():
    text = "The barking of dogs: a concat cat, 5-HT2A"
    assert marked(text, marks.QueryTerms("a dog barks the cat").marks(text)) == [
        "barking", "dogs", "cat",
    ]  # fmt: skip


def test_terms_of_scripts_without_spaces_are_marked_character_by_character():
    text = "私は東京都に住む cat"
    assert marked(text, marks.QueryTerms("東京都 cat").marks(text)) == ["東京都", "cat"]


@given(st.text(max_size=60), st.text(max_size=200), st.integers(1, 9))
def test_any_text_is_cut_into_pieces_that_join_to_it(query, text, words):
    weights = marks.QueryTerms(query).marks(text)
    assert "".join(piece.text for piece in marks.pieces(text, weights)) == text
    start, end = marks.window(text, weights, words)
    assert 0 <= start <= end <= len(text)


def test_the_window_has_the_strongest_marks():
    text = " ".join(f"w{i}" for i in range(100))
    weights = marks.QueryTerms("w70 w71").marks(text)
    start, end = marks.window(text, weights, 5)
    assert "w70 w71" in text[start:end] and len(text[start:end].split()) == 5


def test_a_passage_is_one_line_without_control_characters():
    passage = marks.Passage.of(Document("d", "a\x1b[31m\ntitle", "x" * 30_000))
    assert passage.title == "a[31m title" and len(passage.text) == marks.LONGEST
    assert passage.full[passage.text_start :] == passage.text
    assert marks.Passage("", "text").text_start == 0


@pytest.fixture(scope="module")
def opened(indexes) -> dict[str, Index]:
    return {kind: Index.open(indexes[kind]) for kind in ("sparse", "multi_vector")}


def test_a_sparse_models_matches_add_up_to_its_score(opened):
    index = opened["sparse"]
    [[(id, score), *_]] = index.search([WORDS], 1)
    text = marks.Passage.of(index.collection().documents[id]).full
    shared = index.encode([WORDS])
    all_words = marks.sparse_matches(index.model, shared, text, None)
    assert 0 < sum(word.score for word in all_words.words) <= score * 1.01
    assert [w.score for w in all_words.words] == sorted(w.score for w in all_words.words)[::-1]
    assert all_words.marks.shape == (len(text),) and 0 <= all_words.marks.max() <= 1


def test_the_token_most_like_a_querys_is_marked(opened):
    index = opened["multi_vector"]
    found = marks.token_matches(index.model, "sparrow", "a sparrow", None, None)
    assert marked("a sparrow", found.marks), "some token is the best for each of the query's"
    assert found.words and all(word.word not in ("[CLS]", "[SEP]") for word in found.words)


def test_a_texts_own_words_match_it_best(opened):
    index = opened["multi_vector"]
    text = "sparrow wing"
    found = marks.token_matches(index.model, text, text, None, None)
    assert "".join(marked(text, found.marks)).replace(" ", "") == "sparrowwing"


@pytest.mark.parametrize("text", ["", "🐦" * 3, "\u0301\u0302", "x" * 3_000])
def test_any_text_can_be_matched(opened, text):
    for query in ("sparrow", "🐦", "?"):
        sparse = opened["sparse"]
        encoded = sparse.encode([query])
        assert len(marks.sparse_matches(sparse.model, encoded, text, None).marks) == len(text)
        multi = opened["multi_vector"].model
        assert len(marks.token_matches(multi, query, text, None, None).marks) == len(text)
