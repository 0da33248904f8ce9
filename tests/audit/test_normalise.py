"""The normal form of texts, and their shingles and n-grams."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrieval_kd.audit.normalise import normalise, shingles, word_ngrams, words


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("What causes tides?", "what  causes\ttides"),
        ("don't", "don’t"),
        ("don't", "DONT"),
        ("ﬁne “quotes”", 'fine "quotes"'),
        ("state-of-the-art", "state of the art"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("Straße", "STRASSE"),
        ("cafe\u0301", "café"),
        ("a\u200d\u0301", "á"),  # taking out the joiner lets the accent join the letter
        ("潮汐，为什么？", "潮汐为什么"),
    ],
)
def test_texts_that_differ_in_form_only_are_the_same(left, right):
    assert normalise(left) == normalise(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("C++ templates", "C# templates"),
        ("C++", "C"),
        ("3.5 metres", "35 metres"),
        ("café", "cafe"),
        ("a + b", "a b"),
        ("???", "!!!"),
        ("re-sign", "resign"),
    ],
)
def test_texts_that_differ_in_meaning_are_not(left, right):
    assert normalise(left) != normalise(right)


def test_only_a_text_of_spaces_is_empty():
    assert normalise(" \t\n\u00a0") == "" and normalise("?") == "?"


@given(st.text(max_size=40))
@example("…")
@example("a\u200d\u0301")
@example("ᾼ´ͅ")
def test_normalising_again_changes_nothing(text):
    form = normalise(text)
    assert normalise(form) == form
    assert form == " ".join(form.split())


@given(st.text(alphabet=st.characters(max_codepoint=0x24F), max_size=40))
def test_width_case_and_composition_never_matter(text):
    for other in (unicodedata.normalize("NFD", text), f"  {text}\n", text.casefold()):
        assert normalise(other) == normalise(text)


@given(st.text(max_size=60), st.integers(1, 5))
def test_pieces_are_those_that_counting_by_hand_gives(text, n):
    form = normalise(text)
    runs = {form[i : i + 5] for i in range(max(1, len(form) - 4))} if form else set()
    assert len(shingles(form)) == len(runs)
    listed = words(form)
    ngrams = {tuple(listed[i : i + n]) for i in range(len(listed) - n + 1)}
    assert len(word_ngrams(form, n)) == len(ngrams)


def test_scripts_without_spaces_have_a_word_for_each_character():
    assert words(normalise("潮汐 tides")) == ["潮", "汐", "tides"]
    assert words(normalise("हिन्दी में")) == [normalise("हिन्दी"), normalise("में")]
