"""Every method of configs/methods/: same collection, student and budget, three seeds, one table.

    python -m benchmarks.methods                          # SciFact, all methods
    python -m benchmarks.methods --collection squad --methods taid,skew_kl
    python -m benchmarks.methods --docs                   # writes docs/methods.md from the results

Killed, it goes on where it stopped: the work is that of `rkd run`, whose finished stages are kept.
After every method results/methods.json has all that is there, with tests between them. `--full` has
25 times the steps, bigger batches and longer texts, for a GPU. Settings to change come last, such
as train.steps=2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.methods_page import page, table
from retrieval_kd.config.methods import MEASURE, RESULTS, ROOT, Entry, list_methods
from retrieval_kd.files import read_json, write_json, write_text

# What a collection needs that is not as in configs/methods.yaml.
COLLECTIONS = {
    "scifact": [],
    "squad": [
        "splits={dev: dev, train_queries: 1500, dev_queries: 100, test_queries: 600}",
        "unlabelled={kind: queries, limit: 2000, share: 0.5}",
    ],
}
FULL = {
    "steps": 1000, "batch_queries": 32, "slate_size": 8, "slate_depth": 30, "max_tokens": 128,
    "eval_steps": 250, "save_steps": 250,
}  # fmt: skip
UNTRAINED = ("bm25", "encoder", "teacher")
TIMES_STEPS = 25  # of stages that say their own number; FULL's 1000 are as many times 40


def main(arguments: Sequence[str] | None = None) -> None:
    """Run methods one after the other, or write the page."""
    asked = parse(arguments)
    if asked.docs:
        target = ROOT / "docs" / "methods.md"
        write_text(target, page(list_methods(), read_results(RESULTS[0])))
        print(target)
        return
    entries = [entry for entry in list_methods() if entry.method.elsewhere is None]
    if asked.methods:
        unknown = set(asked.methods.split(",")) - {entry.name for entry in entries}
        if unknown:
            raise SystemExit(f"no method {', '.join(sorted(unknown))}; rkd methods lists them")
        entries = [entry for entry in entries if entry.name in asked.methods.split(",")]
    failed = {}
    for entry in entries:
        try:
            run_one(entry, asked)
        except Exception as error:  # one method must not take the others with it
            failed[entry.name] = f"{type(error).__name__}: {error}"
            print(f"{entry.name} failed: {failed[entry.name]}", flush=True)
    name = collection_name(asked)
    if name in read_results(asked.results):
        print(table(read_results(asked.results)[name]))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def run_one(entry: Entry, asked: argparse.Namespace) -> None:
    """Run one method and write what is now known of its collection."""
    from retrieval_kd.pipeline.plan import run

    config = configured(entry, asked)
    print(f"== {entry.name}", flush=True)
    run(config, say)
    results = read_results(asked.results)
    name = collection_name(asked)
    results[name] = collect(config, entry.student, results.get(name))
    write_json(asked.results, {"collections": results})


def say(stage: Any, done: bool, place: str) -> None:
    """One line for a stage that runs."""
    if not done:
        print(f"   {place} {stage.name}", flush=True)


def configured(entry: Entry, asked: argparse.Namespace) -> Any:
    """The method's configuration for this collection and budget."""
    from retrieval_kd.config.run import Config
    from retrieval_kd.schema import apply_overrides, read_extended, validate

    name = collection_name(asked)
    values = apply_overrides(
        read_extended(entry.config),
        [
            f"collection={asked.collection}",
            f"out={asked.out or Path('runs/methods', name)}",
            f"seeds=[{asked.seeds}]",
            *COLLECTIONS.get(asked.collection, []),
        ],
    )
    if asked.full:
        values["train"] = {**values["train"], **FULL}
        values["student"]["max_length"] = 256
        for training in values["students"].values():
            for stage in training.get("stages", []):
                stage["train"]["steps"] *= TIMES_STEPS
    return validate(Config, apply_overrides(values, asked.overrides), entry.config)


def collect(config: Any, student: str, before: dict[str, Any] | None) -> dict[str, Any]:
    """What is measured of a collection: `before` with this student and both baselines.

    Results of another budget or other seeds cannot stand beside these and are left out.
    """
    from retrieval_kd.data.runs import read_run
    from retrieval_kd.hardware import describe, versions
    from retrieval_kd.metrics.measures import evaluate
    from retrieval_kd.metrics.significance import compare
    from retrieval_kd.workspace import Workspace

    common = {
        "budget": config.train.model_dump(exclude={"seed"}),
        "student": config.student.model_dump(),
        "seeds": config.seeds,
    }
    same = before is not None and all(before[key] == common[key] for key in common)
    systems = dict(before["systems"]) if before and same else {}
    work = Workspace(config.out)
    for name in ("labels", "kl", student):
        systems[name] = costs(config, name, work)
    groups = {name: [f"{name}-seed{seed}" for seed in config.seeds] for name in systems}
    runs = {
        member: read_run(work.path("runs", f"{member}.trec"))
        for group in groups.values()
        for member in group
    }
    qrels = read_json(work.path("queries", "test.json"))["qrels"]
    untrained = [read_run(work.path("runs", f"{name}.trec")) for name in UNTRAINED]
    beside = evaluate(qrels, dict(zip(UNTRAINED, untrained, strict=True)), [MEASURE])
    evaluation = evaluate(qrels, runs, [MEASURE]).group(groups)
    for name in systems:
        systems[name][MEASURE] = evaluation.per_seed(name, MEASURE)
    pairs = [(name, base) for base in ("labels", "kl") for name in systems if name != base]
    pairs.remove(("labels", "kl"))
    return {
        **common,
        "queries": len(evaluation.queries),
        "untrained": {name: beside.mean(name, MEASURE) for name in UNTRAINED},
        "systems": systems,
        "comparisons": [vars(found) for found in compare(evaluation, pairs=pairs)],
        "hardware": describe(),
        "versions": versions(),
    }


def costs(config: Any, name: str, work: Any) -> dict[str, Any]:
    """Seconds of a training (mean over seeds) and the most its teachers are asked."""
    from retrieval_kd.pipeline.context import RunContext
    from retrieval_kd.pipeline.costs import teacher_calls
    from retrieval_kd.pipeline.students import student_folders

    context, training = RunContext(config, work), config.students[name]
    folders = [f for seed in config.seeds for f in student_folders(name, training, seed)]
    seconds = work.seconds(f"train:{folder.name}" for folder in folders)
    return {
        "training_seconds": round(seconds / len(config.seeds), 1),
        "teacher_calls": teacher_calls(context, training),
    }


def read_results(path: Path) -> dict[str, Any]:
    """What is measured so far, by collection."""
    return read_json(path)["collections"] if path.exists() else {}


def collection_name(asked: argparse.Namespace) -> str:
    """What the results call the collection and its budget."""
    return Path(asked.collection).stem + ("-full" if asked.full else "")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="scifact", help="scifact, squad, or a path")
    parser.add_argument("--methods", help="names, with commas; default: all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--full", action="store_true", help="the bigger budget, for a GPU")
    parser.add_argument("--out", help="folder of the runs; default: runs/methods/COLLECTION")
    parser.add_argument("--results", type=Path, default=RESULTS[0])
    parser.add_argument("--docs", action="store_true", help="write docs/methods.md, run nothing")
    parser.add_argument("overrides", nargs="*", help="settings to change: key=value")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
