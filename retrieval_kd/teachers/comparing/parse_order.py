"""Reading an order, or a choice, from what a model wrote. What is not there is not made up.

A missing candidate stays unordered and garbage stays unparsable: putting either where the first
stage had it would teach the first stage's order as if the teacher had confirmed it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from retrieval_kd.store.requests import Answer, Status

_STRICT = re.compile(r"\s*\[\d+\](?:\s*>\s*\[\d+\])*\s*")
_CHAINS = [  # the first that is found decides: what was asked for, then what is often written
    re.compile(rf"{number}(?: ?{between} ?{number})+")
    for between in (">", "[,\n]")
    for number in (r"\[\d+\]", r"(?<![\w\[])\d+(?![\w\]])")
]
_BRACKETED = re.compile(r"\[(\d+)\]")
_NUMBERED = re.compile(r"^\d+[.):] (?=\[?\d)", re.MULTILINE)
_NUMBER = re.compile(r"\d+")
_NAMES = r"(?i:passage|document|answer|option|choice|letter|label)[\s:*\"'(\[]*\b{label}\b"
LONGEST = 20_000  # characters looked at: an answer of more is no order of a prompt's passages


def parse_order(text: str, count: int) -> tuple[tuple[int, ...] | None, Status]:
    """`[2] > [1] > [3]` as places counted from 0, best first, and how much it needed repair.

    `ok` is exactly that form with every number from 1 to `count` once. Else the longest chain of
    numbers is taken: divided by `>`, or else by commas or line ends, in brackets or else without;
    at last, all numbers in brackets. A number that comes again or that no passage has is left out,
    a missing one stays missing: `repaired`. `unparsable` are fewer than two numbers, and several
    longest chains that say different things.

    Example:
        >>> parse_order("[2] > [1] > [3]", 3)
        ((1, 0, 2), 'ok')
        >>> parse_order("The order is: 2 > 1 > 2 > 9. I hope this helps.", 3)
        ((1, 0), 'repaired')
        >>> parse_order("I cannot rank these passages.", 3)
        (None, 'unparsable')
    """
    answer = _tidy(text)
    if _STRICT.fullmatch(answer):
        order = _places(answer, count)
        if len(order) == count == len(_NUMBER.findall(answer)):
            return order, "ok"
    answer = _NUMBERED.sub("", answer)
    found = [_places(" ".join(_BRACKETED.findall(answer)), count)]
    for pattern in _CHAINS:
        chains = [_places(chain[0], count) for chain in pattern.finditer(answer)]
        if any(len(chain) > 1 for chain in chains):
            found = chains
            break
    longest = max(map(len, found))
    best = {chain for chain in found if len(chain) == longest}
    if longest < min(2, count) or len(best) > 1:
        return None, "unparsable"
    return best.pop(), "repaired"


def parse_choice(text: str, labels: Sequence[str]) -> tuple[int | None, Status]:
    """The place of the one label that an answer names.

    `ok` is the label alone (brackets and a full stop allowed); else it must be the only one of the
    labels that occurs as a word of its own, and no other word: "I cannot tell" does not name I.

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
    named = [place for place, label in enumerate(labels) if label in words]
    if len(named) != 1 or not _is_named(labels[named[0]], answer):
        return None, "unparsable"
    return named[0], "repaired"


def _is_named(label: str, answer: str) -> bool:
    """Whether a label is meant, and not the English word that is written like it ("I", "A")."""
    if label not in ("A", "I"):
        return True
    after = _NAMES.format(label=label), rf"\b{label}\b(?! [a-z])", rf"\b{label} (?:is|answers)\b"
    return any(re.search(pattern, answer) for pattern in after)


def _tidy(text: str) -> str:
    """Without thinking aloud, empty lines and runs of blanks; a thought cut off is no answer."""
    answer = text.rpartition("</think>")[2].partition("<think>")[0][-LONGEST:]
    return "\n".join(" ".join(line.split()) for line in answer.splitlines() if line.strip())


def _places(text: str, count: int) -> tuple[int, ...]:
    """The distinct numbers from 1 to `count` in a text, counted from 0."""
    numbers = (int(number) - 1 for number in _NUMBER.findall(text) if len(number) < 9)
    return tuple(dict.fromkeys(number for number in numbers if 0 <= number < count))


def order_by_logits(logs: np.ndarray) -> Answer | None:
    """Log-probabilities (n,) of labels as the answer's first token, as an order: likeliest first.

    FIRST (Reddy et al. 2024, https://arxiv.org/abs/2406.15657, section 3): one forward pass where
    writing the order takes one per token. A label of which the model did not tell (NaN; servers
    give the likeliest few) stays unordered. Of equal ones (bfloat16 has few numbers) the one shown
    last goes first, so that a tie never confirms the order shown; if all are equal there is none.
    All NaN is a failed call.

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
    told = tuple(float(log) for log in logs)
    known = [place for place, log in enumerate(told) if log == log]
    different = {told[place] for place in known}
    if len(different) == 1 < len(told):
        return Answer(logs=told, status="unparsable")
    order = tuple(sorted(known, key=lambda place: (-told[place], -place)))
    whole = len(different) == len(told)
    return Answer(logs=told, order=order, status="ok" if whole else "repaired")
