"""Evaluation speed against `pytrec_eval`: all measures on 10,000 queries × 1,000 documents.

    python -m benchmarks.evaluation [--queries 10000] [--documents 1000] [--rounds 3]

Both sides start from the same dictionaries of unsorted scores and of gains, and return a value per
query and measure. Ours includes sorting the run (`Run`). The values are compared. Needs 5 GB of
memory and about three minutes on two cores.
"""

from __future__ import annotations

import argparse

import numpy as np
import pytrec_eval

from benchmarks.measure import interleaved, save
from retrieval_kd import Run, evaluate

# ours → trec_eval's
SAME = {
    "ndcg": "ndcg",
    "ndcg@10": "ndcg_cut_10",
    "ndcg@100": "ndcg_cut_100",
    "mrr": "recip_rank",
    "map": "map",
    "map@100": "map_cut_100",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "recall@1000": "recall_1000",
    "precision@10": "P_10",
    "hit_rate@10": "success_10",
    "r-precision": "Rprec",
    "bpref": "bpref",
}


def main() -> None:
    """Print both sides' times and write results/evaluation.json."""
    arguments = parse()
    qrels, scores = make(arguments.queries, arguments.documents)
    sides = {
        "retrieval_kd": lambda: evaluate(qrels, [Run("run", scores)], SAME).per_query["run"],
        "pytrec_eval": lambda: pytrec_eval.RelevanceEvaluator(qrels, set(SAME.values())).evaluate(
            scores
        ),
    }
    few = dict(list(qrels.items())[:10])
    evaluate(few, [Run("run", scores)], SAME)  # let numba compile
    timed = interleaved(sides, arguments.rounds)
    ours, theirs = timed["retrieval_kd"], timed["pytrec_eval"]
    largest = max(
        abs(by_query[query] - theirs.result[query][SAME[measure]])
        for measure, by_query in ours.result.items()
        for query in qrels
    )
    ratio = theirs.median / ours.median
    for name, side in timed.items():
        print(f"{name:13} {side.median:6.2f} s")
    print(f"{ratio:.2f} times as fast; largest difference of any value {largest:.1e}")
    record = {
        "settings": vars(arguments) | {"measures": list(SAME), "judgments_per_query": 30},
        "seconds": {name: [round(t, 3) for t in side.wall] for name, side in timed.items()},
        "median_seconds": {name: round(side.median, 3) for name, side in timed.items()},
        "times_as_fast": round(ratio, 3),
        "largest_difference": largest,
    }
    print(save("evaluation", record))


def make(queries: int, documents: int) -> tuple[dict, dict]:
    """Draw judgments (30 per query, gains 0 to 3, most of them in the run) and unsorted scores."""
    rng = np.random.default_rng(0)
    size = 50 * documents
    ids = [f"doc{i}" for i in range(size)]
    qrels, run = {}, {}
    for number in range(queries):
        drawn = rng.choice(size, documents + 20, replace=False)
        # distinct and exact in single precision, which trec_eval uses
        scores = rng.permutation(documents) / 64
        run[f"q{number}"] = dict(
            zip([ids[d] for d in drawn[:documents]], scores.tolist(), strict=True)
        )
        judged = rng.choice(drawn, 30, replace=False)
        gains = [3, *rng.integers(0, 4, 29).tolist()]
        qrels[f"q{number}"] = dict(zip([ids[d] for d in judged], gains, strict=True))
    return qrels, run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--documents", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
