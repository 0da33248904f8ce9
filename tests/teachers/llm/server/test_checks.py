"""What cannot be true of a server's answer is missing or garbled, and never reaches the store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from retrieval_kd.teachers.llm.server.checks import CHOICE, checked, tokens_of
from retrieval_kd.teachers.llm.server.responses import echoed, likeliest, unwrapped
from tests.teachers.llm.server.raw_server import chat


def likeliest_of(*top: tuple[object, object]) -> list[tuple[str, float]] | None:
    return likeliest(CHOICE.read(chat("yes", list(top)), {}))


@pytest.mark.parametrize("log", [-9999.0, -9999, -1e30, -(10**400), float("-inf"), float("nan")])
def test_a_word_that_is_not_listed_is_missing(log):
    assert likeliest_of(("yes", log), ("no", -1.5)) == [("no", -1.5)]
    lists = {"tokens": ["a", "b"], "token_logprobs": [None, log]}
    assert echoed(checked({"text": "ab", "logprobs": lists})) == [("a", None), ("b", None)]


def test_rounding_above_zero_is_zero():
    assert likeliest_of(("yes", 1e-6), ("no", -20)) == [("yes", 0.0), ("no", -20.0)]


@pytest.mark.parametrize("log", [0.3, 10**400, float("inf"), True, "-1.5", [], {}])
def test_what_is_no_log_probability_makes_the_answer_garbled(log):
    with pytest.raises(ValueError, match="is no log-probability"):
        likeliest_of(("yes", log), ("no", -1.5))
    with pytest.raises(ValueError, match="is no log-probability"):
        checked({"text": "yes", "logprobs": {"top_logprobs": [{"yes": log}]}})
    with pytest.raises(ValueError, match="is no log-probability"):
        checked({"text": "yes", "logprobs": {"token_logprobs": [log]}})


def test_probabilities_add_up_to_one_at_most():
    with pytest.raises(ValueError, match="more than 1"):
        likeliest_of(("yes", -0.1), ("no", -0.2))
    with pytest.raises(ValueError, match="more than 1"):
        checked({"text": "yes", "logprobs": {"top_logprobs": [{"yes": 0.0, "no": 0.0}]}})


WRONG: list[Any] = [5, "text", True, ["a"], {"a": 1}]


@pytest.mark.parametrize("wrong", [*WRONG, None])
def test_a_response_without_an_answer_is_garbled(wrong):
    for response in (wrong, {"choices": wrong}, {"choices": [wrong]}, {"choices": []}):
        with pytest.raises(ValueError, match=r"."):
            CHOICE.read(response, {})


def test_a_wrong_type_anywhere_is_garbled_or_ignored():
    whole = chat("yes", [("yes", -0.1), ("no", -3.0)], index=0)

    def places(value: Any) -> list[tuple[Any, Any]]:
        """Every container in the response with each of its keys."""
        if not isinstance(value, dict | list):
            return []
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        return [(value, key) for key in keys] + [p for key in keys for p in places(value[key])]

    for number in range(len(places(whole))):
        for wrong in [*WRONG, None, -1, "\ud800", float("nan")]:
            response = json.loads(json.dumps(whole))
            container, key = places(response)[number]
            container[key] = wrong
            try:
                choice = CHOICE.read(response, {})
            except ValueError:
                continue
            json.dumps(choice).encode()
            assert checked(choice) == choice, "an answer in a log is checked once more"
            for word, log in likeliest(choice) or []:
                word.encode()
                assert -9999 < log <= 0
            assert min(tokens_of(response) or (0,)) >= 0


def test_half_a_character_is_replaced():
    assert checked({"text": "[2] \ud83d > [1]"}) == {"text": "[2] \ufffd > [1]"}
    assert checked({"text": "\U0001f600"}) == {"text": "\U0001f600"}
    assert unwrapped(r'{"answer": "[2] \ud83d"}') == "[2] \ufffd", "escaped once more"
    assert unwrapped("[" * 100_000) is None


@pytest.mark.parametrize("count", [-5, True, 10**30, "7", 1.5, None, [7]])
def test_a_count_of_tokens_that_cannot_be_true_is_none(count):
    assert tokens_of({"usage": {"prompt_tokens": count}}) is None
    if count is not None:
        assert tokens_of({"usage": {"prompt_tokens": 3, "completion_tokens": count}}) is None
    assert tokens_of({"usage": {"prompt_tokens": 3, "completion_tokens": None}}) == (3, 0)
