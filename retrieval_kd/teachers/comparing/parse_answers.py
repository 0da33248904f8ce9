"""Parsing a model's output into an answer: an order or a choice in words, or label probabilities.

Nothing is invented: a missing candidate stays unordered and garbage stays unparsable. Putting
either where the first stage had it would teach the first stage's order as if the teacher had
confirmed it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import numpy as np

from retrieval_kd.store.requests import Answer, Status

_STRICT = re.compile(r"\s*\[\d+\](?:\s*>\s*\[\d+\])*\s*")
_IN_BRACKETS = r"\[\d+\]"
_BARE = r"(?<![\w\[.])\d+(?![\w\]]|\.\d| ?: ?\d)"  # no share and no key: 0.5, {4: 1}


def _chain(between: str, number: str) -> re.Pattern[str]:
    return re.compile(rf"{number}(?: ?{between} ?{number})+")


_EXPLICIT = [  # what can only be an order; the first group that is found counts
    [_chain(">{1,3}=?", number), _chain("<{1,3}=?", number)] for number in (_IN_BRACKETS, _BARE)
] + [[re.compile(r"\[\s?\d+(?:\s?,\s?\d+)+\s?\]")]]  # a list in JSON
_IMPLICIT = [[_chain("[,\n]", number)] for number in (_IN_BRACKETS, _BARE)]
_QUOTED = re.compile(r"[\"'`](\[?\d+\]?)[\"'`](?! ?:)")
_DENIAL = re.compile(
    r"\b(?:not|no|none|neither|nor|cannot|unable|impossible|sorry|apolog\w+|refus\w+|declin\w+)\b"
    r"|n['’]t\b",
    re.IGNORECASE,
)
_REST_OF_SENTENCE = re.compile(rf"(?:{_DENIAL.pattern})[^.!?\n]*", re.IGNORECASE)
_BRACKETED = re.compile(r"\[(\d+)\]")
_NUMBERED = re.compile(r"^\d+[.):] (?=\[?\d)", re.MULTILINE)
_NUMBER = re.compile(r"\d+")
# colours of a terminal; control characters, half ones and what stands for them, invisible ones
_NOISE = re.compile(
    "\x1b\\[[0-9;]*m|[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e"
    "\u2060-\u2069\ud800-\udfff\ufeff\ufffd]"
)
_NAMES = r"(?i:passage|document|answer|option|choice|letter|label)[\s:*\"'(\[]*\b{label}\b"
LONGEST = 20_000  # characters read, from the end; no order of passages is longer


def parse_order(text: str, count: int) -> tuple[tuple[int, ...] | None, Status]:
    """Parse `[2] > [1] > [3]` into positions from 0, best first, and a status.

    `ok` is exactly that form with every number from 1 to `count` once. Otherwise the answer is
    `repaired`: the longest chain of numbers counts, separated by `>` (or `<`, then the last is
    best), in brackets or else without, or else a JSON list, or else numbers separated by commas or
    line ends; failing that, all numbers in brackets. Repeated numbers and those of no passage are
    left out, missing ones stay missing. Fewer than two numbers, several different longest chains,
    and numbers that a refusal names, are `unparsable`. An answer that counts from 0 is `repaired`
    if it names every number from 0 to `count` - 1, else `unparsable`.

    Example:
        >>> parse_order("[2] > [1] > [3]", 3)
        ((1, 0, 2), 'ok')
        >>> parse_order("The order is: 2 > 1 > 2 > 9. I hope this helps.", 3)
        ((1, 0), 'repaired')
        >>> parse_order('{"ranking": [3, 1, 2]}', 3), parse_order("[2] < [1]", 2)
        (((2, 0, 1), 'repaired'), ((0, 1), 'repaired'))
        >>> parse_order("I cannot rank passages 1, 2 and 3.", 3)
        (None, 'unparsable')
        >>> parse_order("[2] > [0] > [1]", 3), parse_order("[2] > [0] > [1]", 4)
        (((2, 0, 1), 'repaired'), (None, 'unparsable'))
    """
    answer = _tidy(text)
    if _STRICT.fullmatch(answer):
        order = _places(answer, count)
        if len(order) == count == len(_NUMBER.findall(answer)):
            return order, "repaired" if _from_zero(answer, count) else "ok"
    answer = _NUMBERED.sub("", _QUOTED.sub(r"\1", answer))
    told, listed = _REST_OF_SENTENCE.sub("", answer), _before_denial(answer)
    chains = [_places(" ".join(_BRACKETED.findall(listed)), count)]
    for patterns, where in [(p, told) for p in _EXPLICIT] + [(p, listed) for p in _IMPLICIT]:
        found = (match[0] for pattern in patterns for match in pattern.finditer(where))
        matches = [_places(chain, count) for chain in found]
        if any(len(chain) > 1 for chain in matches):
            chains = matches
            break
    longest = max(map(len, chains))
    best = {chain for chain in chains if len(chain) == longest}
    if longest < min(2, count) or len(best) > 1:
        return None, "unparsable"
    return best.pop(), "repaired"


def parse_choice(text: str, labels: Sequence[str]) -> tuple[int | None, Status]:
    """Parse the one label that an answer names into its position, and a status.

    `ok` is the label alone, with or without brackets and a full stop. Otherwise exactly one label
    must occur as a word, and it must be meant as a label: "I cannot tell" does not name I, and "I
    cannot choose B" chooses nothing.

    Example:
        >>> parse_choice(" B.", "ABC"), parse_choice("Passage B is better", "ABC")
        ((1, 'ok'), (1, 'repaired'))
        >>> parse_choice("A or B", "ABC")
        (None, 'unparsable')
    """
    answer = _tidy(text)
    bare = answer.strip("[]().: \n")
    if bare in list(labels):
        return list(labels).index(bare), "ok"
    words = set(re.findall(r"\w+", answer))
    places = [place for place, label in enumerate(labels) if label in words]
    if len(places) != 1 or not _is_named(labels[places[0]], answer):
        return None, "unparsable"
    label = labels[places[0]]
    if label not in re.findall(r"\w+", _before_denial(answer)) and not _DENIAL.fullmatch(label):
        return None, "unparsable"
    return places[0], "repaired"


def choice_answer(text: str, labels: Sequence[str]) -> Answer:
    """The answer that names one label in words. Of two labels, the other ranks second.

    Example:
        >>> choice_answer("B", "AB").order, choice_answer("neither", "AB").status
        ((1, 0), 'unparsable')
    """
    best, status = parse_choice(text, labels)
    if best is None:
        return Answer(text, status="unparsable")
    rest = [place for place in range(len(labels)) if place != best]
    return Answer(text, order=(best, *rest) if len(rest) == 1 else (best,), status=status)


def order_by_logits(logs: np.ndarray) -> Answer | None:
    """Order labels by their log-probabilities (n,) as the first token of the answer, best first.

    FIRST (Reddy et al. 2024, https://arxiv.org/abs/2406.15657, section 3): one forward pass, where
    writing the order takes one per token. A label without a probability (NaN; servers report only
    the most likely) stays unordered. Of equal labels (bfloat16 has few numbers) the one shown last
    ranks first, so a tie never confirms the order shown; if all are equal, the answer is
    unparsable. All NaN is a failed call: None.

    Example:
        >>> order_by_logits(np.array([-3.0, -0.5, -1.0])).order
        (1, 2, 0)
        >>> order_by_logits(np.array([-3.0, -0.5, np.nan])).status
        'repaired'
        >>> order_by_logits(np.array([-3.0, -0.5, -3.0])).order
        (1, 2, 0)
    """
    if np.isnan(logs).all():
        return None
    values = tuple(float(log) for log in logs)
    present = [place for place, value in enumerate(values) if not np.isnan(value)]
    different = {values[place] for place in present}
    if len(different) == 1 < len(values):
        return Answer(logs=values, status="unparsable")
    order = tuple(sorted(present, key=lambda place: (-values[place], -place)))
    whole = len(different) == len(values)
    return Answer(logs=values, order=order, status="ok" if whole else "repaired")


def _is_named(label: str, answer: str) -> bool:
    """Whether a label is meant rather than the English word "I" or "A"."""
    if label not in ("A", "I"):
        return True
    after = _NAMES.format(label=label), rf"\b{label}\b(?! [a-z])", rf"\b{label} (?:is|answers)\b"
    return any(re.search(pattern, answer) for pattern in after)


def _tidy(text: str) -> str:
    """Remove reasoning, empty lines, repeated spaces and what cannot be seen.

    Cut-off reasoning is not an answer.
    """
    answer = _NOISE.sub("", text)
    answer = answer.rpartition("</think>")[2].partition("<think>")[0][-LONGEST:]
    lines = html.unescape(answer).splitlines()
    return "\n".join(" ".join(line.split()) for line in lines if line.strip())


def _before_denial(answer: str) -> str:
    """What stands before the first sentence that denies something: after it, nothing is implied."""
    denial = _DENIAL.search(answer)
    if denial is None:
        return answer
    return answer[: max(answer.rfind(end, 0, denial.start()) + 1 for end in ".!?\n")]


def _places(text: str, count: int) -> tuple[int, ...]:
    """The distinct numbers from 1 to `count` in a text, counted from 0; a `<` turns them round.

    Of numbers from 0, all have to be there: then they cannot mean the passages before them.
    """
    first = int(not _from_zero(text, count))
    found = _NUMBER.findall(text)
    numbers = [int(n) - first for n in (found[::-1] if "<" in text else found) if len(n) < 9]
    places = tuple(dict.fromkeys(number for number in numbers if 0 <= number < count))
    if first:
        return places
    is_order = count > 2 or re.search(r"[<>]|\[\d+\]", text)  # 1, 0 may be labels of two
    return places if is_order and set(numbers) == set(range(count)) else ()


def _from_zero(text: str, count: int) -> bool:
    """Whether numbers count from 0: the first passage is named so, and the last one by no other."""
    numbers = {number.lstrip("0") or "0" for number in _NUMBER.findall(text)}
    return "0" in numbers and str(count) not in numbers
