"""Weighs the teachers of a run without judgments: by how well they find cut documents.

Each of up to 500 documents loses a sentence, and the teachers rank these documents for it
(`data/cloze.py`). Sentences are not real queries, so the weights that rank best for them are not
simply taken. Of all weights that are not clearly worse, those nearest to equal weights are.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from retrieval_kd.data.cloze import cut_out, write_cloze
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.scores import Scores
from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json, write_json
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.queries import MOST_READ, Queries
from retrieval_kd.pipeline.run_ensemble import RunEnsemble
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.targets.combine import Combination, fit_combination
from retrieval_kd.targets.weights import cautious, shares

FOLDER, SPLIT = "cloze", "test"
QUERIES, FEWEST = 500, 20


def check_cloze(context: RunContext) -> None:
    """Refuse `weights: cloze` where hardly any document can be cut, before anything runs.

    Of a larger collection than `MOST_READ` documents it is not known before they are cut.
    """
    documents, generator = context.collection.documents, np.random.default_rng(0)
    if context.config.teacher.weights != "cloze" or len(documents) > MOST_READ:
        return
    long_enough = (1 for one in documents.iterate() if cut_out(one, generator) is not None)
    count = sum(islice(long_enough, FEWEST))
    if count < FEWEST:
        raise _too_few(context, count)


def _too_few(context: RunContext, count: int) -> InputError:
    equal = [1] * len(context.config.teacher.members)
    return InputError(
        f"teacher.weights: cloze needs {FEWEST} documents that are long enough to be cut in two, "
        f"and there are {count}",
        file=context.config.collection,
        remedy=f"set teacher.weights={equal}: all teachers weigh the same",
    )


def cut_documents(context: RunContext) -> dict[str, Any]:
    """Write documents without a sentence, and the first stage's candidates for the sentences."""
    folder, config = context.work.path(FOLDER), context.config
    judged = {
        text for part in ("train", "dev", "test") for text in context.queries(part).texts.values()
    }
    count = write_cloze(context.collection, folder, QUERIES, exclude=judged)
    if count < FEWEST:
        raise _too_few(context, count)
    cloze, first = open_collection(folder), config.first_stage
    run = retrieve(
        cloze,
        cloze.query_texts(SPLIT),
        first.with_,
        first.depth,
        max_length=config.student.max_length,
    )
    write_json(folder / "candidates.json", run.results)
    return {"queries": count}


def cloze_ensemble(context: RunContext) -> RunEnsemble:
    """Return the run's teachers over the cut documents; the sentences are their part "dev"."""
    folder = context.work.path(FOLDER)
    cloze: Collection = open_collection(folder)
    queries = Queries(cloze.query_texts(SPLIT), cloze.qrels(SPLIT), {})
    return RunEnsemble(
        context.config,
        context.work,
        cloze,
        lambda part: queries,
        lambda part: read_json(folder / "candidates.json"),
    )


def score_cloze(context: RunContext, member: str) -> dict[str, Any]:
    """Score the candidates of the sentences with one teacher."""
    return cloze_ensemble(context).score(member, ["dev"])


def weigh(context: RunContext) -> dict[str, Any]:
    """Choose the teachers' weights, and write teacher.json.

    Returns:
        The facts of this stage: the weights, and nDCG@10 on the sentences of each teacher and all.
    """
    ensemble = cloze_ensemble(context)
    qrels = ensemble.queries("dev").qrels
    lists = {member: ensemble.scores("dev", member) for member in ensemble.members}
    teacher = context.config.teacher
    combination = fit_combination(teacher.fusion, lists, {}, teacher.calibration)
    weights = cautious_weights(combination, lists, qrels)
    ensemble.keep(weights, combination)
    fused = combination.fuse(lists, weights)
    return {
        "weights": weights,
        "cloze_queries": len(qrels),
        "cloze_ndcg@10_alone": {
            m: round(float(_ndcg(qrels, s).mean()), 4) for m, s in lists.items()
        },
        "cloze_ndcg@10": round(float(_ndcg(qrels, fused).mean()), 4),
    }


def cautious_weights(
    combination: Combination, lists: Mapping[str, Scores], qrels: Qrels
) -> dict[str, float]:
    """Return the weights nearest to equal ones that are not significantly worse than the best.

    Tried are equal weights, and all in tenths that sum to 1 (quarters of more than four teachers).
    Worse is less nDCG@10, by a paired t-test with p < .001.
    """
    names, tried = list(lists), shares(len(lists))
    each = (dict(zip(names, share, strict=True)) for share in tried)
    values = np.array([_ndcg(qrels, combination.fuse(lists, weights)) for weights in each])
    return dict(zip(names, cautious(tried, values), strict=True))


def _ndcg(qrels: Qrels, scores: Scores) -> np.ndarray:
    """nDCG@10 (queries,): with one relevant document, 1 / log2(1 + its rank), 0 beyond rank 10.

    Ties are broken by ID as in `metrics`, which would warn about all weights that are tried.
    """
    values = np.zeros(len(qrels))
    for row, (query, [relevant]) in enumerate(qrels.items()):
        documents = scores.get(query, {})
        if relevant in documents:
            own = (np.float32(documents[relevant]), relevant)
            rank = 1 + sum((np.float32(s), id) > own for id, s in documents.items())
            values[row] = 1 / np.log2(1 + rank) if rank <= 10 else 0.0
    return values
