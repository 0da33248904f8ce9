"""Trains students from documents alone, by one fixed recipe, on eight collections.

    python -m benchmarks.adaptation                          # all, about five minutes a collection
    python -m benchmarks.adaptation --collections squad,cacm
    python -m benchmarks.adaptation --table                  # print the table of what is measured

The recipe is configs/adapt.yaml, the same for every collection: no judgment is trained on, and no
test query. It was chosen on the train claims of SciFact and the dev questions of SQuAD and WikiQA.
Uses `rkd run`, so a killed benchmark continues where it stopped. After every collection,
results/adaptation.json is updated. Overrides come last, such as train.steps=2.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import RESULTS
from retrieval_kd.files import read_json, write_json

CONFIG = Path(__file__).parent.parent / "configs" / "adapt.yaml"
OUT = RESULTS / "adaptation.json"
# Overrides of the split, and of nothing else. MedQuAD has train questions only: none is trained on.
COLLECTIONS = {
    "scifact": [],
    "squad": [],
    "wikiqa": [],
    "cranfield": [],
    "cacm": [],
    "vaswani": [],
    "python-api": ["splits.test_queries=500"],
    "medquad": ["splits.test=train", "splits.test_queries=1000"],
}
BASELINE, MEASURES = "encoder", ("ndcg@10", "recall@100")
UNTRAINED = ("bm25", "encoder", "teacher")
FUSED = {"static + bm25": ("static", "bm25"), "residual + bm25": ("residual", "bm25")}
COSTS = ("training_seconds", "queries_per_second", "documents_per_second", "bytes_per_document")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the recipe on each collection, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collections", default=",".join(COLLECTIONS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--results", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="only print what is measured")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    names = [] if options.table else options.collections.split(",")
    for name in names:
        run_one(name, options)
    if not options.results.exists():
        raise SystemExit(f"{options.results}: nothing is measured yet; leave --table out")
    print(table(read_json(options.results)["collections"]))


def run_one(name: str, options: argparse.Namespace) -> None:
    """Run the recipe on one collection, and update the results."""
    from retrieval_kd.config.run import load_config
    from retrieval_kd.hardware import describe, versions
    from retrieval_kd.pipeline.plan import run

    own = COLLECTIONS.get(name, [])
    spec = [f"collection={name}", f"out={options.out / name}", f"seeds=[{options.seeds}]"]
    config = load_config(CONFIG, [*spec, *own, *options.overrides])
    print(f"== {name}", flush=True)
    run(config, report)
    results = read_json(options.results) if options.results.exists() else {"collections": {}}
    results["collections"][name] = collect(config)
    write_json(options.results, {**results, "hardware": describe(), "versions": versions()})


def report(stage: Any, done: bool, place: str) -> None:
    """Print a line for a stage that runs."""
    if not done:
        print(f"   {place} {stage.name}", flush=True)


def collect(config: Any) -> dict[str, Any]:
    """Return the means of each system, their tests against the encoder, and their costs."""
    from retrieval_kd.data.runs import read_run
    from retrieval_kd.metrics.measures import evaluate
    from retrieval_kd.metrics.significance import compare
    from retrieval_kd.workspace import Workspace

    work = Workspace(config.out)
    groups = {name: [f"{name}-seed{seed}" for seed in config.seeds] for name in config.students}
    names = [*UNTRAINED, *(member for group in groups.values() for member in group)]
    runs = {name: read_run(work.path("runs", f"{name}.trec")) for name in names}
    for name, (student, other) in FUSED.items():
        groups[name] = [f"{name}-seed{seed}" for seed in config.seeds]
        for seed, member in zip(config.seeds, groups[name], strict=True):
            runs[member] = fused(member, runs[f"{student}-seed{seed}"], runs[other])
    qrels = read_json(work.path("queries", "test.json"))["qrels"]
    evaluation = evaluate(qrels, runs, list(MEASURES)).group(groups)
    costs = read_json(work.path("results.json"))["costs"]
    return {
        "queries": len(evaluation.queries),
        "settings": config.model_dump(by_alias=True, mode="json", exclude={"out"}),
        "systems": {
            system: {
                **{measure: evaluation.per_seed(system, measure) for measure in MEASURES},
                **{key: costs.get(system, {}).get(key) for key in COSTS},
            }
            for system in evaluation.systems
        },
        "comparisons": [
            vars(test) for test in compare(evaluation, baseline=BASELINE, measures=[MEASURES[0]])
        ],
    }


def fused(name: str, one: Any, other: Any) -> Any:
    """Fuse two runs by reciprocal ranks."""
    import ranx

    from retrieval_kd.data.runs import Run

    lists = [run.results for run in (one, other)]
    queries = [query for query in lists[0] if lists[0][query] and lists[1].get(query)]
    both = [ranx.Run.from_dict({q: dict(found[q]) for q in queries}) for found in lists]
    fused_lists = ranx.fuse(both, norm=None, method="rrf").to_dict()
    return Run(name, {**lists[1], **lists[0], **fused_lists})


def table(collections: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out nDCG@10 by collection, with a mark where a system differs from the encoder.

    `+` significantly better, `-` significantly worse (paired t-test, Holm over the systems).
    """
    systems = list(next(iter(collections.values()))["systems"])
    rows = []
    for name, result in collections.items():
        tests = {test["a"]: test for test in result["comparisons"]}
        cells = []
        for system in systems:
            mean = np.mean(result["systems"][system][MEASURES[0]])
            test = tests.get(system)
            sure = test is not None and test["p_holm"] < 0.05
            mark = ("+" if test["difference"] > 0 else "-") if test and sure else ""
            cells.append(f"{mean:.3f}{mark}".replace("0.", ".", 1))
        rows.append([name, str(result["queries"]), *cells])
    means = [
        np.mean([np.mean(r["systems"][system][MEASURES[0]]) for r in collections.values()])
        for system in systems
    ]
    rows.append(["mean", "", *(f"{mean:.3f}".replace("0.", ".", 1) for mean in means)])
    head = ["collection", "queries", *systems]
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
