"""An order from the probabilities of the answer's first label alone, without writing it out."""

from __future__ import annotations

import numpy as np

from retrieval_kd.teachers.requests import Answer


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
