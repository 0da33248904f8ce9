"""Fidelity of a student to its teacher, query by query, whether the teacher is right or not.

The literature calls it loyalty: label and probability loyalty are defined by Xu et al., "Beyond
Preserved Accuracy", EMNLP 2021 (section 3), and Avram et al., "Distilling the Knowledge of Romanian
BERTs Using Multiple Teachers", LREC 2022 (section 5). Here they are transferred from classes to
rankings: a document's label is whether it is among the first k, a query's distribution is the
softmax over its candidates' scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_kd.targets.normalise import z_scores

if TYPE_CHECKING:
    from retrieval_kd.data.qrels import Qrels
    from retrieval_kd.data.runs import Run

Ranking = Mapping[str, float]  # document ID → score, best first, as a `Run` holds it
PERSISTENCE = 0.9  # of RBO: the first ten ranks have 86 % of the weight
MEASURES = ("top_1", "top_k", "relevant", "probability", "kendall", "rbo")


def top_1_fidelity(teacher: Ranking, student: Ranking) -> float:
    """Return 1 if both rank the same document first, else 0.

    Example:
        >>> top_1_fidelity({"a": 2.0, "b": 1.0}, {"a": 0.5, "c": 0.4})
        1.0
    """
    return float(bool(teacher) and next(iter(teacher)) == next(iter(student), None))


def top_k_fidelity(teacher: Ranking, student: Ranking, k: int = 10) -> float | None:
    """|first k of both| / |teacher's first k|; None if the teacher ranks nothing.

    Example:
        >>> top_k_fidelity({"a": 2.0, "b": 1.0}, {"a": 0.5, "c": 0.4}, k=2)
        0.5
    """
    wanted = set(list(teacher)[:k])
    return len(wanted & set(list(student)[:k])) / len(wanted) if wanted else None


def relevant_fidelity(
    teacher: Ranking, student: Ranking, relevant: Iterable[str], k: int = 10
) -> float | None:
    """Label loyalty: the share of relevant documents that both or neither have in their first k.

    It is 1 also if both miss them all: fidelity is not quality.
    None if there is no relevant document.

    Example:
        >>> relevant_fidelity({"a": 2.0, "b": 1.0}, {"a": 0.5}, ["a", "b", "x"], k=2)
        0.6666666666666666
    """
    of_teacher, of_student = set(list(teacher)[:k]), set(list(student)[:k])
    same = [(d in of_teacher) == (d in of_student) for d in relevant]
    return sum(same) / len(same) if same else None


def shared_scores(teacher: Ranking, student: Ranking) -> tuple[np.ndarray, np.ndarray]:
    """Return both scores (N,) of the documents that both ranked, in the teacher's order."""
    shared = [d for d in teacher if d in student]
    return np.array([teacher[d] for d in shared]), np.array([student[d] for d in shared])


def probability_fidelity(
    teacher: np.ndarray, student: np.ndarray, *, temperature: float = 1.0, normalise: bool = True
) -> float | None:
    """Probability loyalty: 1 − JS distance of the two softmaxes over the same candidates.

    P = softmax(teacher / T), Q = softmax(student / T), M = (P + Q) / 2, JS distance =
    √(½ KL(P‖M) + ½ KL(Q‖M)) with logarithms to base 2, so 0 to 1. None for fewer than two.

    Args:
        teacher: scores (N,), like `student`.
        normalise: z-normalise both first, because logits and cosines have different scales.

    Example:
        >>> probability_fidelity(np.array([3.0, 1.0]), np.array([0.6, 0.2]))
        1.0
    """
    from scipy.special import rel_entr, softmax

    if len(teacher) < 2:
        return None
    if normalise:
        teacher, student = z_scores(teacher), z_scores(student)
    p, q = softmax(teacher / temperature), softmax(student / temperature)  # (N,), (N,)
    if np.allclose(p, q, rtol=0, atol=1e-12):
        return 1.0  # the root of a tiny rounding error is not tiny
    middle = (p + q) / 2
    divergence = float((rel_entr(p, middle) + rel_entr(q, middle)).sum()) / (2 * np.log(2))
    return 1.0 - float(np.sqrt(np.clip(divergence, 0, 1)))  # rounding may make it negative


def kendall(teacher: np.ndarray, student: np.ndarray) -> float | None:
    """Kendall's τ-b of two lists of scores (N,), by scipy; None if one is constant or N < 2.

    Example:
        >>> kendall(np.array([3.0, 2.0, 1.0]), np.array([0.1, 0.2, 0.3]))
        -1.0
    """
    from scipy.stats import kendalltau

    if len(teacher) < 2 or np.ptp(teacher) == 0 or np.ptp(student) == 0:
        return None
    return round(float(kendalltau(teacher, student).statistic), 12)


def rbo(left: Sequence[str], right: Sequence[str], p: float = PERSISTENCE) -> float | None:
    """Rank-biased overlap, extrapolated: 1 for equal lists, 0 without a common document.

    None if a list is empty. With the shorter list S of length s, the other L of length l, and X_d =
    |S_{1..d} ∩ L_{1..d}|:
    (1 − p)/p · (Σ_{d=1}^{l} X_d/d · pᵈ + Σ_{d=s+1}^{l} X_s (d − s)/(s d) · pᵈ)
    + ((X_l − X_s)/l + X_s/s) · pˡ.  Webber, Moffat and Zobel, TOIS 2010, equation 32.

    Example:
        >>> rbo(["a", "b", "c"], ["a", "b", "c"]), rbo(["a"], ["b"])
        (1.0, 0.0)
    """
    short, long = sorted((list(left), list(right)), key=len)
    s, l = len(short), len(long)
    if not s:
        return None
    overlap, seen_short, seen_long = [0], set(), set()  # X_0, X_1, …
    for d in range(l):
        new = 0
        if d < s:
            seen_short.add(short[d])
            new += short[d] in seen_long
        seen_long.add(long[d])
        overlap.append(overlap[-1] + new + (long[d] in seen_short))
    depths = np.arange(1, l + 1)
    x, weights = np.array(overlap[1:]), p**depths  # (l,), (l,)
    tail = np.where(depths > s, x[s - 1] * (depths - s) / (s * depths), 0.0)
    total = (1 - p) / p * ((x / depths + tail) * weights).sum()
    total += ((x[-1] - x[s - 1]) / l + x[s - 1] / s) * p**l
    return round(float(total), 12)


def fidelity(
    teacher: Run, student: Run, qrels: Qrels, *, k: int = 10, temperature: float = 1.0
) -> dict[str, Any]:
    """Measure a student's fidelity: means, numbers of queries with a value, values per query.

    Scores are compared on the documents that both ranked, so if the teacher reranks candidates, on
    these. The queries are those of the teacher that have a relevant document.

    Example:
        >>> from retrieval_kd.data.runs import Run
        >>> teacher = Run("t", {"q": {"a": 2.0, "b": 1.0}})
        >>> found = fidelity(teacher, Run("s", {"q": {"a": 0.9, "b": 0.1}}), {"q": {"a": 1}})
        >>> found["mean"]["kendall"], found["mean"]["probability"], found["queries"]["rbo"]
        (1.0, 1.0, 1)
    """
    per_query: dict[str, dict[str, float | None]] = {}
    for query, judged in qrels.items():
        relevant = [d for d, gain in judged.items() if gain > 0]
        if not relevant or query not in teacher.results:
            continue
        reference, ranking = teacher.results[query], student.results.get(query, {})
        a, b = shared_scores(reference, ranking)
        per_query[query] = {
            "top_1": top_1_fidelity(reference, ranking),
            "top_k": top_k_fidelity(reference, ranking, k),
            "relevant": relevant_fidelity(reference, ranking, relevant, k),
            "probability": probability_fidelity(a, b, temperature=temperature),
            "kendall": kendall(a, b),
            "rbo": rbo(list(reference), list(ranking)),
            "shared": float(len(a)),
        }
    defined = {
        name: [v for values in per_query.values() if (v := values[name]) is not None]
        for name in (*MEASURES, "shared")
    }
    mean = {name: float(np.mean(values)) if values else None for name, values in defined.items()}
    return {
        "k": k,
        "temperature": temperature,
        "persistence": PERSISTENCE,
        "mean": mean,
        "queries": {name: len(values) for name, values in defined.items()},
        "per_query": per_query,
    }
