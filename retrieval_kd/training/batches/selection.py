"""Which queries are worth learning from next: by what the student so far makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.models.encode import document_vectors, encode_queries
from retrieval_kd.models.load import kind_of, load_retriever
from retrieval_kd.models.vectors import maxsim_scores, sparse_rows, sparse_scores, token_rows
from retrieval_kd.students.dense import DenseStudent
from retrieval_kd.students.student import student_of
from retrieval_kd.training.batches.slates import Pool

Criterion = Literal["uncertainty", "divergence", "learnability"]


def select_pools(
    pools: Sequence[Pool],
    student_scores: Sequence[np.ndarray],
    share: float,
    by: Criterion,
    *,
    student_temperature: float = 0.05,
    teacher_temperature: float = 1.0,
) -> list[Pool]:
    r"""The `share` of queries with the highest value of a criterion, in their own order.

    With p = softmax(s / τ_s) of the student and q = softmax(t / τ_t) of the teacher over a query's
    candidates:

    - `uncertainty`: the entropy of p. Robust active distillation (https://arxiv.org/abs/2210.01213)
      asks for the teacher's labels where the student is unsure; it needs no teacher.
    - `divergence`: KL(q ‖ p): where the student is farthest from its teacher.
    - `learnability`: (−log p − (−log q)) of the best judged relevant candidate: hard for the
      student, easy for the teacher, the score of ACID (https://arxiv.org/abs/2411.18674), which
      takes it from JEST (https://arxiv.org/abs/2406.17711). Queries without a judgment take the
      teacher's best candidate.

    Args:
        student_scores: the student's scores (C,) of each pool's candidates.
        share: of the queries, above 0 and at most 1.

    Example:
        >>> flat, sharp = np.zeros(2), np.array([1.0, 0.0])
        >>> pool = Pool("q", np.arange(2), np.array([5.0, 0.0]), np.array([1, 0]))
        >>> chosen = select_pools([pool, pool], [sharp, flat], 0.5, "divergence")
        >>> len(chosen)
        1
    """
    if not 0 < share <= 1:
        raise InputError(f"a share of {share} of the queries", remedy="give one above 0, at most 1")
    values = [
        _value(pool, scores / student_temperature, by, teacher_temperature)
        for pool, scores in zip(pools, student_scores, strict=True)
    ]
    count = max(1, round(share * len(pools)))
    kept = np.sort(np.argsort(-np.array(values), kind="stable")[:count])
    return [pools[i] for i in kept]


def _value(pool: Pool, scores: np.ndarray, by: Criterion, temperature: float) -> float:
    known = np.isfinite(pool.teacher)
    log_p = _log_softmax(scores.astype(np.float64))
    if by == "uncertainty":
        return float(-(np.exp(log_p) * log_p).sum())
    if known.sum() < 2:
        return -np.inf  # of what the teacher is silent on nothing can be learnt from it
    log_p = _log_softmax(scores[known].astype(np.float64))
    log_q = _log_softmax(pool.teacher[known].astype(np.float64) / temperature)
    if by == "divergence":
        return float((np.exp(log_q) * (log_q - log_p)).sum())
    gains = pool.gains[known]
    relevant = np.flatnonzero(gains > 0)
    best = relevant[log_q[relevant].argmax()] if len(relevant) else log_q.argmax()
    return float(log_q[best] - log_p[best])


def _log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max()
    return shifted - np.log(np.exp(shifted).sum())


def pool_scores(
    model_spec: str, pools: Sequence[Pool], documents: Texts, *, max_length: int | None = None
) -> tuple[list[np.ndarray], float]:
    """A student's scores (C,) of every pool's candidates, and its usual temperature.

    Of a student with several scores they are those of its one vector per text.
    """
    model, texts = load_retriever(model_spec, max_length=max_length), [p.query for p in pools]
    if kind_of(model_spec) == "dense":
        vectors = document_vectors(model_spec, documents, max_length=max_length, model=model)
        queries = encode_queries(model, texts)  # (P, D)
        scores = [vectors[p.positions] @ query for p, query in zip(pools, queries, strict=True)]
        return scores, DenseStudent(model).temperature
    distinct = np.unique(np.concatenate([pool.positions for pool in pools]))  # (M,)
    places = [np.searchsorted(distinct, pool.positions) for pool in pools]
    found = [documents.at(int(at)).full for at in distinct]
    temperature = student_of(model).temperature
    if kind_of(model_spec) == "sparse":
        asked, known = sparse_rows(model, texts, "query"), sparse_rows(model, found, "document")
        return [
            sparse_scores(asked[row], known[at].T.tocsr())[0] for row, at in enumerate(places)
        ], temperature
    tokens = token_rows(model, found, "document")
    return [
        maxsim_scores([query], [tokens[i] for i in at])[0]
        for query, at in zip(token_rows(model, texts, "query"), places, strict=True)
    ], temperature
