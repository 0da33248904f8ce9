"""Orders are parsed strictly; repairs are reported, and nothing is invented."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.teachers.comparing.parse_answers import parse_choice, parse_order

orders = st.integers(2, 25).flatmap(lambda n: st.permutations(range(n)))


@given(orders)
def test_an_order_in_the_requested_form_is_parsed_unchanged(order):
    text = " > ".join(f"[{place + 1}]" for place in order)
    assert parse_order(text, len(order)) == (tuple(order), "ok")
    assert parse_order(f"\n {text} \n", len(order)) == (tuple(order), "ok")
    assert parse_order(f"<think>[2] > [1]?</think>{text}", len(order)) == (tuple(order), "ok")


@given(orders, st.sampled_from(["{}", "Sure! {}", "{}\nI hope this helps.", "**{}**", "```{}```"]))
def test_words_around_an_order_are_repaired(order, around):
    for form, between in (("[{}]", " > "), ("{}", " > "), ("[{}]", ", "), ("[{}]", "\n")):
        text = between.join(form.format(place + 1) for place in order)
        found, status = parse_order(around.format(text), len(order))
        assert found == tuple(order)
        assert status == ("ok" if (around, form, between) == ("{}", "[{}]", " > ") else "repaired")


@given(st.text(max_size=80), st.integers(2, 12))
def test_any_text_parses_to_distinct_valid_places_or_none(text, count):
    for shown in (text, f"[{text}]", text.replace("a", "[1] > ").replace("b", "[2]")):
        order, status = parse_order(shown, count)
        assert (order is None) == (status == "unparsable")
        if order is not None:
            assert 2 <= len(order) == len(set(order)) <= count
            assert set(order) <= set(range(count))
            assert status == "repaired" or len(order) == count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[2] > [2] > [1]", (1, 0)),  # a double
        ("[2] > [7] > [1] > [3]", (1, 0, 2)),  # a stranger
        ("[3] > [1]", (2, 0)),  # one is missing, and stays so
        ("1. [3]\n2. [1]\n3. [2]", (2, 0, 1)),  # a numbered list
        ("Passage [3] is best, then [1], finally [2].", (2, 0, 1)),
        ("I rank 3 passages: [3] > [1] > [2]", (2, 0, 1)),
        ("Of passages 1, 2, 3 the order is 3 > 1 > 2", (2, 0, 1)),  # what was asked for counts
        ("[2] > [1] > [3", (1, 0)),  # not closed: it might have been [30]
        ("[3, 1, 2]", (2, 0, 1)),  # lists in JSON
        ('```json\n{"ranking": [\n  3,\n  1,\n  2\n]}\n```', (2, 0, 1)),
        ('["[3]", "[1]", "[2]"]', (2, 0, 1)),
        ("['3', '1', '2']", (2, 0, 1)),
        ("[[3], [1], [2]]", (2, 0, 1)),
        ("[3] >> [1] >>> [2]", (2, 0, 1)),
        ("3 >= 1 > 2", (2, 0, 1)),
        ("3 &gt; 1 &gt; 2", (2, 0, 1)),
        ("[2] < [1] < [3]", (2, 0, 1)),  # the worst comes first
        ("2 << 1 << 3", (2, 0, 1)),
        ("[2] &lt; [1] &lt; [3]", (2, 0, 1)),
        ("[3] > [1], because [1] < [3]", (2, 0)),
        ("[3]\n[1]\n[2]\nPassage [2] does not mention it.", (2, 0, 1)),
        ("I'm sorry for the wait. [3] > [1] > [2]", (2, 0, 1)),
        ("[2] > [0] > [1]", (2, 0, 1)),  # counted from 0
        ("0 < 1 < 2", (2, 1, 0)),
        ("[0] > [3] > [1] > [2]", (2, 0, 1)),  # counted from 1, with a stranger
    ],
)
def test_repairs(text, expected):
    assert parse_order(text, 3) == (expected, "repaired")


@pytest.mark.parametrize(
    "noise", ["\0", "\ud800", "\ufffd", "\x1b[31m", "\u202e", "\u200b", "\x7f"]
)
def test_what_cannot_be_seen_hides_no_passage(noise):
    text = f"{noise}[2]{noise} > {noise}[1] {noise}> [{noise}3]{noise}"
    assert parse_order(text, 3) == ((1, 0, 2), "ok")
    assert parse_choice(f"{noise}B{noise}.", "AB") == (1, "ok")


@pytest.mark.parametrize(
    "text",
    [
        "[0] > [1]", "[9] > [2] > [1] > [0]", "[0, 1]", "1, 0",  # from 0, but not all
        "", "[2]", "2", "none of them", "[9] > [8]", "[1] > [2] > [3] or rather [3] > [2] > [1]",
        "[1] < [2] > [3]", '{"1": 3, "2": 1, "3": 2}', "{1: 3, 2: 1, 3: 2}", "[2.1, 3.4]",
        '[{"passage": 3, "score": 2}, {"passage": 1, "score": 1}]',
    ],
)  # fmt: skip
def test_what_is_no_order_is_none(text):
    assert parse_order(text, 3) == (None, "unparsable")


@pytest.mark.parametrize(
    "text",
    [
        "I cannot rank passages 1 and 2",
        "I cannot rank passages [1] and [2].",
        "I can't rank passages 1, 2 and 3.",
        "I can’t rank these: [1, 2, 3]",
        "I'm unable to say whether [1] > [2] > [3].",
        "Passages [1], [2] and [3] cannot be ranked.",
        "I'm sorry, but I can't help with that. [1], [2], [3] are off topic.",
        "None of [1], [2], [3] answers the query",
        "Passages 1, 2, 3 do not answer it",
    ],
)
def test_numbers_that_a_refusal_names_are_no_order(text):
    assert parse_order(text, 3) == (None, "unparsable")


@pytest.mark.parametrize(
    "text", ["I cannot choose passage A.", "I refuse to pick B", "Passage A isn't relevant"]
)
def test_a_label_that_a_refusal_names_is_no_choice(text):
    assert parse_choice(text, "AB") == (None, "unparsable")
    assert parse_choice("Passage B. It does not ramble.", "AB") == (1, "repaired")
    assert parse_choice("no, never", ("yes", "no")) == (1, "repaired")


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 100_000,
        " " * 100_000 + "x",
        "[1" * 50_000,
        "1 > " * 50_000,
        "9" * 100_000,
        "1\n" * 50_000,
        "[1, " * 50_000,
        "[1" + ", 1" * 50_000,
        "1 < 2 > " * 50_000,
        "not " * 50_000,
    ],
)
def test_long_garbage_costs_no_time(text):
    """Backtracking would take minutes on these."""
    started = time.process_time()
    parse_order(text, 20)
    parse_choice(text, "ABC")
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "text",
    ["<think>\nThe passages are [1], [2], [3] and I", "<think>[2] > [1] > [3]", "<think>Passage A"],
)
def test_a_thought_that_was_cut_off_is_no_answer(text):
    """Else the order in which passages were shown would be stored as the teacher's."""
    assert parse_order(text, 3) == (None, "unparsable")
    assert parse_choice(text, "ABC") == (None, "unparsable")
    assert parse_order(f"{text}</think>[3] > [1] > [2]", 3) == ((2, 0, 1), "ok")


def test_english_words_are_no_labels():
    labels = "ABCDEFGHI"
    for text in (
        "I cannot tell.",
        "Neither. A clear answer is missing",
        "A winner cannot be named",
    ):
        assert parse_choice(text, labels) == (None, "unparsable")
    for text in (
        "Passage A is better",
        "The answer: A",
        "A is better",
        "It must be A.",
        "[A] wins",
    ):
        assert parse_choice(text, labels) == (0, "repaired")
    assert parse_choice("I think it is B", labels) == (None, "unparsable")  # two of the labels
    assert parse_choice("I think it is B", "AB") == (1, "repaired")


def test_a_choice_is_one_label():
    for text in ("B", " b".upper(), "[B]", "B.", "(B)"):
        assert parse_choice(text, "ABC") == (1, "ok")
    assert parse_choice("I choose B because it fits", "ABC") == (1, "repaired")
    for text in ("", "D", "A or B", "Because"):
        assert parse_choice(text, "ABC") == (None, "unparsable")
    assert parse_choice("true", ("true", "false")) == (0, "ok")
