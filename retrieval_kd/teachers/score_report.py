"""What one asking of a teacher did, counted as it goes; `score.py` and `ask.py` fill it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ScoreReport:
    """How many pairs were wanted, and of these: known before, scored now, missing, stale.

    Of a pairwise or listwise teacher all counts are of its questions.

    Args:
        reused: in the store before.
        scored: answered now.
        stale: of `scored`, asked before about other texts under the same IDs.
        missing: the call failed; they are not in the store, and asked the next time.
        noun: what was counted.
        unfinished: queries (not questions) of which no more was asked because a call had failed.
        repaired: of `scored`, orders with doubles, strangers or gaps; what is wrong is left out.
        unparsable: of `scored`, answers without an order; they rank nothing.
    """

    teacher: str
    fingerprint: str
    pairs: int = 0
    reused: int = 0
    scored: int = 0
    stale: int = 0
    seconds: float = 0.0
    missing: int = 0
    noun: str = "pairs"
    unfinished: int = 0
    repaired: int = 0
    unparsable: int = 0
