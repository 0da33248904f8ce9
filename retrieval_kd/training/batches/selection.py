"""Chooses what a stage trains on: queries by the student's scores, candidates by the teacher's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.special import log_softmax

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.models.encode import document_vectors, encode_queries
from retrieval_kd.models.load import kind_of, load_retriever
from retrieval_kd.models.vectors import maxsim_scores, sparse_rows, sparse_scores, token_rows
from retrieval_kd.students.dense import DenseStudent
from retrieval_kd.students.student import student_of
from retrieval_kd.training.batches.pools import Pools
from retrieval_kd.training.batches.slates import Pool

Criterion = Literal["uncertainty", "divergence", "learnability"]


def select_pools(
    pools: Sequence[Pool],
    student_scores: Sequence[np.ndarray],
    share: float,
    by: Criterion,
    *,
    student_temperature: float = 0.05,
) -> Pools:
    r"""Keep the `share` of queries with the highest value of a criterion, in their order.

    With p = softmax(s / τ_s) of the student and q = softmax(t) of the teacher over a query's
    candidates:

    - `uncertainty`: the entropy of p. Robust active distillation (https://arxiv.org/abs/2210.01213)
      asks for the teacher's labels where the student is unsure; it needs no teacher.
    - `divergence`: KL(q ‖ p), high where the student is far from its teacher.
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
        _value(pool, scores / student_temperature, by)
        for pool, scores in zip(pools, student_scores, strict=True)
    ]
    count = max(1, round(share * len(pools)))
    kept = np.sort(np.argsort(-np.array(values), kind="stable")[:count])
    return Pools.of(pools[i] for i in kept.tolist())


def _value(pool: Pool, scores: np.ndarray, by: Criterion) -> float:
    scored = np.isfinite(pool.teacher)
    log_p = log_softmax(scores.astype(np.float64))
    if by == "uncertainty":
        return float(-(np.exp(log_p) * log_p).sum())
    if scored.sum() < 2:
        return -np.inf  # nothing to train on without teacher scores
    log_p = log_softmax(scores[scored].astype(np.float64))
    log_q = log_softmax(pool.teacher[scored].astype(np.float64))
    if by == "divergence":
        return float((np.exp(log_q) * (log_q - log_p)).sum())
    gains = pool.gains[scored]
    relevant = np.flatnonzero(gains > 0)
    best = relevant[log_q[relevant].argmax()] if len(relevant) else log_q.argmax()
    return float(log_q[best] - log_p[best])


def pool_scores(
    model_spec: str, pools: Sequence[Pool], documents: Texts, *, max_length: int | None = None
) -> tuple[list[np.ndarray], float]:
    """Score every pool's candidates (C,) with a student; also return its usual temperature.

    A student with several scores uses that of its one vector per text.
    """
    model, texts = load_retriever(model_spec, max_length=max_length), [p.query for p in pools]
    if kind_of(model_spec) == "dense":
        vectors = document_vectors(model_spec, documents, max_length=max_length, model=model)
        queries = encode_queries(model, texts)  # (P, D)
        scores = [vectors[p.positions] @ query for p, query in zip(pools, queries, strict=True)]
        return scores, DenseStudent(model).temperature
    distinct = np.unique(np.concatenate([pool.positions for pool in pools]))  # (M,)
    places = [np.searchsorted(distinct, pool.positions) for pool in pools]
    read = [documents.at(int(at)).full for at in distinct]
    temperature = student_of(model).temperature
    if kind_of(model_spec) == "sparse":
        queries, words = sparse_rows(model, texts, "query"), sparse_rows(model, read, "document")
        return [
            sparse_scores(queries[row], words[at].T.tocsr())[0] for row, at in enumerate(places)
        ], temperature
    tokens = token_rows(model, read, "document")
    return [
        maxsim_scores([query], [tokens[i] for i in at])[0]
        for query, at in zip(token_rows(model, texts, "query"), places, strict=True)
    ], temperature


def denoised(pools: Sequence[Pool], below: float, above: float, drops: Drops) -> Pools:
    """Leave out unjudged candidates that the teacher scores between `below` and `above`.

    An unjudged candidate with t > `above` counts as relevant (gain 1), one with t < `below` as not:
    the denoised half of RocketQAv2's hybrid data (Ren et al. 2021, section 3.3,
    https://arxiv.org/abs/2110.07367, with confidences 0.9 and 0.1); the unchanged pools are the
    other half. Candidates without a score and queries left without a relevant or
    without another candidate are left out; both are counted in `drops`.

    Args:
        below, above: on the scale of the teacher's targets.

    Example:
        >>> pool = Pool("q", np.arange(4), np.array([3.0, 1.0, 0.5, -2.0]), np.array([0, 1, 0, 0]))
        >>> found = denoised([pool], -1.0, 2.0, Drops())[0]
        >>> found.positions.tolist(), found.gains.tolist()
        ([0, 1, 3], [1, 1, 0])
    """

    def sure_ones() -> Iterator[Pool]:
        for pool in pools:
            relevant = (pool.gains > 0) | (pool.teacher > above)
            sure = relevant | (pool.teacher < below)
            if (~sure).any():
                what = "unsure candidate left out of denoised slates"
                drops.add(what, pool.query[:40], (~sure).sum())
            if not relevant.any() or not (sure & ~relevant).any():
                drops.add("query without a sure negative or positive", pool.query[:40])
                continue
            yield replace(
                pool.select(sure),
                gains=np.maximum(pool.gains, relevant)[sure],
                ignored=np.concatenate([pool.ignored, pool.positions[~sure]]),
            )

    kept = Pools.of(sure_ones())
    if not kept:
        raise InputError(
            "the teacher is sure of no query: none has a candidate that is surely relevant and one "
            "that is surely not",
            remedy="raise `below`, lower `above`, or leave `denoised` out",
        )
    return kept


def without_false_negatives(pools: Sequence[Pool], margin: float, drops: Drops) -> Pools:
    r"""Leave out unjudged candidates that the teacher scores about as high as a relevant one.

    Left out are those not judged relevant with t > max over relevant r of t_r, less `margin`:
    likely relevant documents that the judges have not seen (RocketQA's denoising, Qu et al. 2021,
    https://arxiv.org/abs/2010.08191, by the teacher's confidence there; NV-Retriever's margin,
    https://arxiv.org/abs/2407.15831, here). Queries without a judgment or with an unscored positive
    are kept as they are. What is left out is counted in `drops`, and is not a negative either if
    another query's slate brings it into the batch.

    Args:
        margin: on the scale of the teacher's targets; 0 removes only what is better than the best
            judged document, a negative margin less.

    Example:
        >>> drops = Drops()
        >>> pool = Pool("q", np.arange(3), np.array([1.5, 1.0, 0.0]), np.array([0, 1, 0]))
        >>> without_false_negatives([pool], 0.5, drops)[0].positions.tolist()
        [1, 2]
    """

    def left() -> Iterator[Pool]:
        for pool in pools:
            scored = pool.teacher[(pool.gains > 0) & np.isfinite(pool.teacher)]
            if not len(scored):
                yield pool
                continue
            likely = (pool.gains <= 0) & (pool.teacher > scored.max() - margin)
            if likely.any():
                drops.add("likely false negative left out", pool.query[:40], int(likely.sum()))
            if (~likely).sum() < 2:
                drops.add("query with nothing but likely relevant candidates", pool.query[:40])
                continue
            ignored = np.concatenate([pool.ignored, pool.positions[likely]])
            yield replace(pool.select(~likely), ignored=ignored)

    kept = Pools.of(left())
    if not kept:
        raise InputError(
            "no query is left: all have nothing but likely relevant candidates",
            remedy="lower `false_negatives`, or leave it out",
        )
    return kept
