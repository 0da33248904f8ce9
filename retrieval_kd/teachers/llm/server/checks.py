"""What a server's answer may be: every answer is checked here before anything else sees it.

Only the fields that are read are kept, in the server's own form, so that an answer in a log is
checked like one that has just come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from retrieval_kd.errors import shown
from retrieval_kd.teachers.llm.server.responses import Json, is_answer, storable

UNLISTED = -9999.0  # what OpenAI and vLLM write for a word that is not listed, like -Infinity
ROUNDING = 1e-5  # a log-probability above 0 by no more than this is 0
MOST_CERTAIN = 1.05  # the probabilities of different words add up to 1, apart from rounding
WEB_PAGE = "a web page and no JSON, as from a wrong address; most servers' addresses end in /v1"
MOST_TOKENS = 10**9  # no call reads or writes more


def checked(choice: Any) -> Json:
    """Return what is read of an answer: its text, its log-probabilities, how it ended.

    Raises:
        ValueError: it is no answer, or cannot be true; the message says why.

    Example:
        >>> checked({"text": "y\\ud800", "index": 0, "logprobs": {"token_logprobs": [-9999, 1e-7]}})
        {'text': 'y\ufffd', 'logprobs': {'token_logprobs': [None, 0.0]}}
        >>> checked({"text": "yes", "logprobs": {"top_logprobs": [{"yes": 0.5}]}})
        Traceback (most recent call last):
        ValueError: logprobs: top_logprobs: 0.5 is no log-probability
    """
    kept = _fields(choice, text=_text, message=_message, finish_reason=_text, logprobs=_logprobs)
    if not is_answer(kept):
        raise ValueError("there is no text")
    return kept


@dataclass(frozen=True)
class Form:
    """The form of an endpoint's answers. Both functions raise ValueError where there is none.

    Args:
        take: the part of a response that is the answer.
        check: the answer to this request with what is read of it; it cannot be anything else. Also
            of an answer in a log.
    """

    take: Callable[[Any], Any]
    check: Callable[[Any, Json], Json]

    def read(self, response: Any, request: Json) -> Json:
        """The checked answer in a response."""
        if isinstance(response, str) and response.lstrip().startswith("<"):
            raise ValueError(WEB_PAGE)
        return self.check(self.take(response), request)


def _first_choice(response: Any) -> Any:
    choices = response.get("choices") if isinstance(response, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ValueError("there is no answer in them")
    return choices[0]


CHOICE = Form(_first_choice, lambda answer, request: checked(answer))  # of chats and completions


def tokens_of(response: Any) -> tuple[int, int] | None:
    """Tokens read and written by the server's own count; None if it sent none that can be true.

    Example:
        >>> tokens_of({"usage": {"total_tokens": 9}})  # of a re-ranker, which writes none
        (9, 0)
    """
    usage = response.get("usage") if isinstance(response, dict) else None
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens") or 0
    read = usage.get("total_tokens") if read is None and not written else read
    if type(read) is not int or type(written) is not int:
        return None
    return (read, written) if 0 <= min(read, written) <= max(read, written) < MOST_TOKENS else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_quoted(value)} is no text")
    return storable(value)


def _log(value: Any) -> float | None:
    """A log-probability; None if it is missing."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or value > ROUNDING:
        raise ValueError(f"{_quoted(value)} is no log-probability")
    return None if value <= UNLISTED or math.isnan(value) else min(float(value), 0.0)


def _message(value: Any) -> Json:
    return _fields(value, content=_text, refusal=_text)


def _logprobs(value: Any) -> Json:
    if not isinstance(value, dict):
        return {}  # as if the server sent none
    return _fields(
        value,
        content=_each(_position),  # of a chat
        tokens=_each(_text),  # of a completion, like the rest
        token_logprobs=_each(_log),
        top_logprobs=_each(_words),
    )


def _position(value: Any) -> Json:
    return _token(value) | _fields(value, top_logprobs=_tokens)


def _tokens(value: Any) -> list[Json]:
    tokens = _each(_token)(value)
    _add_up(token.get("logprob") for token in tokens)
    return tokens


def _token(value: Any) -> Json:
    token = _fields(value, token=_text, logprob=_log)
    if "token" not in token:
        raise ValueError("a token has no text")
    return token


def _words(value: Any) -> dict[str, float | None]:
    """The likeliest words at one position, with their log-probabilities; null is none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{_quoted(value)} is not an object")
    words = {_text(word): _log(log) for word, log in value.items()}
    _add_up(words.values())
    return words


def _add_up(logs: Iterable[float | None]) -> None:
    if sum(math.exp(log) for log in logs if log is not None) > MOST_CERTAIN:
        raise ValueError("the probabilities add up to more than 1")


def _fields(value: Any, **checks: Callable[[Any], Any]) -> Json:
    """The checked values of an object's fields, without those that are missing."""
    if not isinstance(value, dict):
        raise ValueError(f"{_quoted(value)} is not an object")
    kept = {}
    for name, check in checks.items():
        if value.get(name) is not None:
            try:
                kept[name] = check(value[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return {name: value for name, value in kept.items() if value is not None}


def _each(check: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def checked_list(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"{_quoted(value)} is not a list")
        return [check(item) for item in value]

    return checked_list


def _quoted(value: Any) -> str:
    return shown(type(value).__name__ if isinstance(value, list | dict) else repr(value), 60)
