"""Which teachers to use: students of single teachers, of their sum, and with pairs on top.

    python -m benchmarks.teachers                       # SciFact
    python -m benchmarks.teachers --collection squad    # and add it to results/teachers.json

Runs configs/teachers.yaml; a stopped run continues. The table shows each student with its teacher's
quality on the dev queries' candidates. Each student is tested against judgments alone, the fusion's
student against those of its members, and pairs on top of the fusion against the fusion; p-values
are corrected together. Overrides come last, such as train.steps=2.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.decoders import chance_of
from benchmarks.measure import RESULTS
from benchmarks.methods import UNTRAINED, costs, difference, report
from retrieval_kd import compare, evaluate, read_run
from retrieval_kd.config.methods import MEASURE, ROOT, mean_spread
from retrieval_kd.files import read_json, write_json
from retrieval_kd.hardware import describe, versions
from retrieval_kd.metrics.evaluation import Evaluation

CONFIG = ROOT / "configs" / "teachers.yaml"
RESULT = RESULTS / "teachers.json"
COLLECTIONS = {
    "squad": ["splits.dev=dev", "splits.test_queries=600"]
}  # overrides for other collections
LABELS, FUSION, ON_TOP = "labels", "of_fusion", "of_fusion_and_pairs"
TEACHER_OF = {  # student → its teacher's number; the fusion combines the first three
    "of_cross_encoder": 0, "of_bm25": 1, "of_encoder": 2, "of_decoder": 3, "of_pairs": 4,
}  # fmt: skip
FUSED = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, test, print and write results/teachers.json."""
    from retrieval_kd.pipeline.plan import run

    options = parse(arguments)
    config = configured(options)
    run(config, report)
    record = collect(config)
    earlier = read_json(options.results)["collections"] if options.results.exists() else {}
    name = Path(options.collection).stem
    write_json(options.results, {"collections": {**earlier, name: record}})
    print(table(record), options.results, sep="\n\n")


def configured(options: argparse.Namespace) -> Any:
    """Load the configuration for this collection."""
    from retrieval_kd.config.run import load_config

    name = Path(options.collection).stem
    changes = [
        f"collection={options.collection}",
        f"out={options.out or Path('runs/teachers', name)}",
    ]
    return load_config(CONFIG, [*changes, *COLLECTIONS.get(name, []), *options.overrides])


def collect(config: Any) -> dict[str, Any]:
    """Collect the results of a finished run."""
    from retrieval_kd.workspace import Workspace

    work = Workspace(config.out)
    facts = work.record("weights")["facts"]
    evaluation, untrained = evaluated(config, work)
    pairs = [(name, LABELS) for name in config.students if name != LABELS]
    pairs += [(FUSION, name) for name, number in TEACHER_OF.items() if number < FUSED]
    pairs.append((ON_TOP, FUSION))
    return {
        "queries": len(evaluation.queries),
        "seeds": config.seeds,
        "settings": config.model_dump(by_alias=True, include={"splits", "first_stage", "train"}),
        "untrained": untrained,
        "teachers": list(facts["dev_ndcg@10_alone"].values()),
        "fusion": facts["dev_ndcg@10"],
        "chance": chance(work),
        "students": {
            name: {MEASURE: evaluation.per_seed(name, MEASURE), **costs(config, name, work)}
            for name in config.students
        },
        "comparisons": [vars(test) for test in compare(evaluation, pairs=pairs)],
        "hardware": describe(),
        "versions": versions(),
    }


def chance(work: Any) -> float:
    """Mean nDCG of random orders of the dev queries' candidates: a teacher should be well above."""
    candidates = {
        query: list(documents)
        for query, documents in read_json(work.path("candidates", "dev.json")).items()
        if documents
    }
    judged = read_json(work.path("queries", "dev.json"))["qrels"]
    orders = chance_of({query: judged[query] for query in candidates}, candidates, seed=0)
    return round(float(orders.sum()) / len(judged), 4)


def evaluated(config: Any, work: Any) -> tuple[Evaluation, dict[str, float]]:
    """Evaluate all students on the test queries, and the untrained systems."""
    groups = {name: [f"{name}-seed{seed}" for seed in config.seeds] for name in config.students}
    names = [*UNTRAINED, *(member for group in groups.values() for member in group)]
    runs = {name: read_run(work.path("runs", f"{name}.trec")) for name in names}
    qrels = read_json(work.path("queries", "test.json"))["qrels"]
    evaluation = evaluate(qrels, runs, [MEASURE])
    untrained = {name: evaluation.mean(name, MEASURE) for name in UNTRAINED}
    return evaluation.group(groups), untrained


def table(record: Mapping[str, Any]) -> str:
    """Format a Markdown table: each student with its teacher and tests."""
    lines = [
        f"| student | its teacher on dev (chance: {record['chance']:.3f}) | nDCG@10 "
        "| − judgments alone | calls of teachers |",
        "|---" * 5 + "|",
    ]
    teachers = {name: record["teachers"][number] for name, number in TEACHER_OF.items()}
    teachers[FUSION] = record["fusion"]
    tests = {(test["a"], test["b"]): test for test in record["comparisons"]}
    for name, values in record["students"].items():
        teacher = f"{teachers[name]:.3f}" if name in teachers else "–"
        calls = f"{values['teacher_calls']['stored']:,}"
        against = difference(tests.get((name, LABELS)))
        cells = [name, teacher, mean_spread(values[MEASURE]), against, calls]
        lines.append(f"| {' | '.join(cells)} |")
    others = [f"- {a} − {b}: {difference(c)}" for (a, b), c in tests.items() if b != LABELS]
    return "\n".join([*lines, "", *others])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="scifact", help="scifact, squad, or a path")
    parser.add_argument("--out", help="folder of the run; default: runs/teachers/COLLECTION")
    parser.add_argument("--results", type=Path, default=RESULT)
    parser.add_argument("overrides", nargs="*", help="settings to change: key=value")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
