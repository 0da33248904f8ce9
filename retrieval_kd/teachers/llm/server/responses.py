"""Readers of the answers of OpenAI-compatible servers, once checked: texts, log-probabilities.

Servers differ: vLLM returns the log-probabilities of completions as parallel lists, llama.cpp's
server as in a chat; some ignore the request for them, others ignore that it includes the prompt's
tokens. Missing values stay missing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval_kd.errors import without_secrets

Json = dict[str, Any]
Token = tuple[str, float | None]  # its text, its log-probability

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def storable(text: str) -> str:
    """A server's text with whole characters, and without the key, which it may repeat."""
    return without_secrets(_HALF_CHARACTER.sub("\ufffd", text))


def is_answer(choice: Json) -> bool:
    """Whether an answer is complete: a text, a refusal, or one that was cut off at its limit."""
    cut_off = choice.get("finish_reason") == "length"
    return text_of(choice) is not None or is_refusal(choice) or cut_off


def is_refusal(choice: Json) -> bool:
    """Whether the server or its model declined to answer."""
    message = choice.get("message")
    declined = message.get("refusal") if isinstance(message, dict) else None
    return bool(declined) or choice.get("finish_reason") == "content_filter"


def why_refused(choice: Json) -> str:
    """Who declined to answer, the model or a filter before or after it."""
    if choice.get("finish_reason") == "content_filter":
        return "a filter stopped the answer (content_filter)"
    return f"the model refused to answer: {choice['message']['refusal']:.100}"


def text_of(choice: Json) -> str | None:
    """The text of an answer, from a chat or a completion."""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else None


def likeliest(choice: Json) -> list[tuple[str, float]] | None:
    """Return the likeliest first tokens of an answer with their log-probabilities.

    None if the server sent none.

    Example:
        >>> likeliest({"logprobs": {"tokens": [" no"], "token_logprobs": [-0.25],
        ...                         "top_logprobs": [{" no": -0.25, " yes": -1.5}]}})
        [(' no', -0.25), (' yes', -1.5)]
    """
    listed = _listed(choice)
    return None if listed is None else [(token, log) for token, log in listed if log is not None]


def unnumbered(choice: Json) -> list[str]:
    """Return the listed first tokens whose log-probability is no number: null, NaN, -9999."""
    return [token for token, log in _listed(choice) or () if log is None]


def _listed(choice: Json) -> list[Token] | None:
    logprobs = choice.get("logprobs", {})
    if "content" in logprobs:  # the format of chats
        first: Json = next(iter(logprobs["content"]), {})
        tokens = first.get("top_logprobs") or [first]
        return [(token["token"], token.get("logprob")) for token in tokens if token]
    if "top_logprobs" in logprobs:
        return list(next(iter(logprobs["top_logprobs"]), {}).items())
    return None


def option_logs(
    top: Sequence[tuple[str, float]], options: Sequence[str], before: str = ""
) -> np.ndarray:
    """Log-probabilities (options,) of the options' first tokens; NaN for an option without a match.

    An option matches the token that is `before` (a space after a word, else nothing) and the
    option; else the likeliest token that equals it apart from spaces; else the longest of at least
    two letters that this option, and no other, begins with.

    Example:
        >>> option_logs([(" yes", -0.25), ("yes", -1.0), ("n", -3.0)], ["yes", "no"]).tolist()
        [-1.0, nan]
        >>> option_logs([(" irre", -1.0), ("rel", -2.0)], ["relevant", "irrelevant"]).tolist()
        [-2.0, -1.0]
    """
    exact = dict(reversed(top))
    stripped: dict[str, float] = {}
    for spelling, log in top:
        token = spelling.strip(" \n\t▁Ġ")
        stripped[token] = max(log, stripped.get(token, -np.inf))
    logs = np.full(len(options), np.nan)
    for number, option in enumerate(options):
        wanted = option.strip()
        others = [other.strip() for other in options if other != option]
        begins = [
            token
            for token in stripped
            if len(token) > 1
            and wanted.startswith(token)
            and not any(other.startswith(token) for other in others)
        ]
        chosen = wanted if wanted in stripped else max(begins, key=len, default=None)
        if before + wanted in exact:
            logs[number] = exact[before + wanted]
        elif chosen is not None:
            logs[number] = stripped[chosen]
    return logs


def exact_logs(top: Sequence[tuple[str, float]], firsts: Sequence[tuple[str, str]]) -> np.ndarray:
    """Log-probabilities (options,) of options whose first tokens are known; NaN without a match.

    Args:
        top: the likeliest tokens in the server's spelling.
        firsts: each option's first token: its text, and its spelling by a server that drops leading
            spaces. The latter counts only if it is unambiguous: no token has a leading space, and
            this token occurs once.

    Example:
        >>> exact_logs([(" no", -0.25), ("yes", -2.0), (" yes", -3.0)],
        ...            [(" yes", "yes"), (" no", "no")]).tolist()
        [-3.0, -0.25]
        >>> exact_logs([("no", -0.25), ("yes", -2.0)], [(" yes", "yes"), (" no", "no")]).tolist()
        [-2.0, -0.25]
    """
    words = dict(reversed(top))
    counts = Counter(word for word, _ in top)
    bare = not any(word[:1].isspace() for word in counts)
    wanted = Counter(short for _, short in firsts)
    logs = [
        words[short] if bare and counts[short] == wanted[short] == 1 else words.get(text, np.nan)
        for text, short in firsts
    ]
    return np.array(logs)


def echoed(choice: Json) -> list[Token] | None:
    """Tokens of the prompt and the answer; None if those of the prompt are missing."""
    logprobs = choice.get("logprobs", {})
    tokens, logs = logprobs.get("tokens", []), logprobs.get("token_logprobs", [])
    if len(tokens) != len(logs) or len(tokens) < 2:  # only the answer's token: the prompt's lack
        return None
    return list(zip(tokens, logs, strict=True))


def continuation_logs(tokens: Sequence[Token], before: str, continuation: str) -> np.ndarray:
    """Log-probabilities (tokens of the continuation,) out of those of the whole text, or empty.

    A token with characters of both sides belongs to the continuation. Servers differ in the
    spelling of characters that take several tokens; then only ASCII characters are compared.

    Example:
        >>> tokens = [("<s>", None), ("Is", -3.0), (" it", -1.0), (" so", -2.0), ("?", -0.5)]
        >>> continuation_logs(tokens, "Is it", " so").tolist()
        [-2.0]
    """
    for plain in (str, _ascii):
        spelt = [plain(token) for token, _ in tokens]
        start = "".join(spelt).find(plain(before + continuation))
        if start < 0:
            continue
        begin = start + len(plain(before))
        end = begin + len(plain(continuation))
        ends = np.cumsum([len(text) for text in spelt])
        starts = ends - [len(text) for text in spelt]
        inside = ((ends > begin) | (starts == begin) & (ends == begin)) & (starts < end)
        logs = [log for (_, log), here in zip(tokens, inside, strict=True) if here]
        if logs and all(log is not None for log in logs):
            return np.array(logs, dtype=np.float32)
    return np.zeros(0, dtype=np.float32)


def last_logs(tokens: Sequence[Token], sent: int, count: int) -> np.ndarray:
    """Log-probabilities (count,) of the last `count` of `sent` tokens; empty if a token is missing.

    Example:
        >>> echo = [("<s>", None), ("Is", -3.0), (" it", -1.0), ("!", -4.0)]  # the last is written
        >>> last_logs(echo, 3, 2).tolist(), last_logs(echo[1:3], 3, 2).tolist()
        ([-3.0, -1.0], [])
    """
    logs = [log for _, log in tokens[:sent][-count:]]
    if len(tokens) < sent or any(log is None for log in logs):
        return np.zeros(0, dtype=np.float32)
    return np.array(logs, dtype=np.float32)


def _ascii(text: str) -> str:
    return re.sub(r"[^\x00-\x7f]", "", text)


def unwrapped(text: str) -> str | None:
    """The answer inside the JSON object of a structured response, or None if it is incomplete.

    Example:
        >>> unwrapped('{"answer": "[2] > [1]"}'), unwrapped('{"answer": "[2')
        ('[2] > [1]', None)
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    answer = value.get("answer") if isinstance(value, dict) else None
    return storable(answer) if isinstance(answer, str) else None


def wrapping(form: str) -> Json:
    """The response format that constrains an answer to a regular expression on every server."""
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "pattern": f"^({form})$"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    constraint = {"name": "answer", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": constraint}
