"""Names of scores: what is one, what is not, and that reading undoes writing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.training.objective.score_names import PAIRS, POSITIVE, STORED, ScoreName

WORDS = st.from_regex(r"[A-Za-z_][\w-]*", fullmatch=True).filter(
    lambda word: word not in (STORED, PAIRS, POSITIVE)
)
NUMBERS = st.integers(0, 10_000)
NAMES = st.one_of(
    st.builds(ScoreName, st.just(STORED), member=st.none() | NUMBERS),
    st.builds(ScoreName, st.just(PAIRS), member=NUMBERS),
    st.just(ScoreName(POSITIVE)),
    st.builds(
        ScoreName,
        WORDS,
        part=st.none() | WORDS,
        dimensions=st.none() | NUMBERS.filter(bool),
    ),
)


@given(NAMES)
def test_reading_undoes_writing(name):
    assert ScoreName.parse(str(name)) == name


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_list_of_names_is_read_in_order(names):
    assert ScoreName.parse_list(",".join(map(str, names))) == names


@given(st.text(max_size=12))
def test_any_text_is_a_name_or_is_refused(text):
    try:
        name = ScoreName.parse(text)
    except ValueError as error:
        assert repr(text) in str(error)
    else:
        assert ScoreName.parse(str(name)) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("score", ScoreName("score")),
        ("stored:1", ScoreName("stored", member=1)),
        ("pairs:0", ScoreName("pairs", member=0)),
        ("score@64", ScoreName("score", dimensions=64)),
        ("big.exit2", ScoreName("big", "exit2")),
        ("big.exit2@8", ScoreName("big", "exit2", dimensions=8)),
    ],
)
def test_the_documented_names(text, name):
    assert ScoreName.parse(text) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a name of scores"),
        ("a b", "not a name of scores"),
        ("big.", "not a name of scores"),
        ("a.b.c", "not a name of scores"),
        ("score@", "number of dimensions"),
        ("score@x", "number of dimensions"),
        ("score@0", "number of dimensions"),
        ("score@-8", "number of dimensions"),
        ("pairs", "number of a teacher"),
        ("stored:", "number of a teacher"),
        ("stored:x", "number of a teacher"),
        ("stored:-1", "number of a teacher"),
        ("score:1", "only stored and pairs"),
        ("stored@64", "neither parts nor dimensions"),
        ("stored:1.exit2", "neither parts nor dimensions"),
        ("positive@64", "neither parts nor dimensions"),
    ],
)
def test_other_forms_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        ScoreName.parse(text)


@pytest.mark.parametrize(
    ("text", "layer"),
    [("exit2", 2), ("big.exit0", 0), ("exit3@8", 3), ("big", None), ("exit", None)],
)
def test_an_exit_has_the_number_of_its_layer(text, layer):
    assert ScoreName.parse(text).exit == layer
