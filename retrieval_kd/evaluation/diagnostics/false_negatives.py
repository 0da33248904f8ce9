"""Suspected false negatives: training negatives that the teacher scores like positives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_kd.errors import InputError

if TYPE_CHECKING:
    from retrieval_kd.data.qrels import Qrels

DEPTHS = (1, 5, 10, 16, 30, 50, 100)
QUANTILES = (0.1, 0.25, 0.5)


def false_negatives(scores: Mapping[str, Mapping[str, float]], qrels: Qrels) -> dict[str, Any]:
    """Measure which shares of the negatives the teacher scores like positives.

    A negative is a candidate without a positive judgment. It is *suspected* if the teacher scores
    it above the query's best positive (`above_best`), above its worst (`above_worst`), or above a
    quantile of the scores of all queries' positives (`above_quantile`, which needs scores that are
    comparable between queries: logits, or fused z-scores). The teacher errs too, so these shares
    are no bounds: they tell how often teacher and labels disagree. RocketQA (Qu et al., NAACL 2021,
    section 4.2) drops negatives by such a threshold.

    Example:
        >>> scores = {"q": {"good": 2.0, "twin": 3.0, "bad": 0.0}}
        >>> found = false_negatives(scores, {"q": {"good": 1}})
        >>> found["negatives"], found["above_best"], found["by_depth"][0]
        (2, 0.5, {'depth': 1, 'negatives': 1, 'above_best': 1.0})
    """
    queries = []
    for query, judged in qrels.items():
        by_id = scores.get(query, {})
        positive = np.array([s for d, s in by_id.items() if judged.get(d, 0) > 0])
        negative = np.array([s for d, s in by_id.items() if judged.get(d, 0) <= 0 and d != query])
        if len(positive) and len(negative):
            queries.append((positive, np.sort(negative)[::-1]))
    if not queries:
        raise InputError(
            "no query has a positive and a negative that the teacher scored",
            remedy="give scores of a judged split's candidates, its relevant documents included",
        )
    negatives = np.concatenate([n for _, n in queries])  # (N,)
    positives = np.concatenate([p for p, _ in queries])  # (P,)
    best = np.concatenate([np.full(len(n), p.max()) for p, n in queries])  # (N,)
    worst = np.concatenate([np.full(len(n), p.min()) for p, n in queries])  # (N,)
    rank = np.concatenate([np.arange(len(n)) for _, n in queries])  # (N,) from 0
    limits = {str(q): float(np.quantile(positives, q)) for q in QUANTILES}
    return {
        "queries": len(queries),
        "queries_left_out": len(qrels) - len(queries),
        "positives": len(positives),
        "negatives": len(negatives),
        "above_best": float((negatives > best).mean()),
        "above_worst": float((negatives > worst).mean()),
        "queries_with_one_above_best": float(np.mean([n[0] > p.max() for p, n in queries])),
        "quantile_scores": limits,
        "above_quantile": {q: float((negatives > limit).mean()) for q, limit in limits.items()},
        "by_depth": [
            {
                "depth": d,
                "negatives": int((rank < d).sum()),
                "above_best": float((negatives > best)[rank < d].mean()),
            }
            for d in DEPTHS
            if d == DEPTHS[0] or d <= int(rank.max()) + 1
        ],
    }
