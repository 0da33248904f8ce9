"""Runs the methods of configs/methods/ on equal terms, and writes docs/methods.md.

    python -m benchmarks.methods                          # SciFact, all methods
    python -m benchmarks.methods --collection squad --methods taid,skew_kl
    python -m benchmarks.methods --docs                   # writes docs/methods.md from the results

Uses `rkd run`, so a killed benchmark continues where it stopped. After every method,
results/methods.json is updated, with tests between all methods so far. `--full` has 25 times the
steps, bigger batches and longer texts, for a GPU. Overrides come last, such as train.steps=2.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.config.methods import (
    MEASURE,
    RESULTS,
    ROOT,
    SECTIONS,
    Entry,
    list_methods,
    mean_spread,
    shown,
)
from retrieval_kd.files import read_json, write_json, write_text

# Overrides of configs/methods.yaml for each collection.
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
TIMES_STEPS = 25  # for stages with their own number of steps; FULL's 1000 is 25 × 40

HEAD = """\
# Methods

Published methods as configurations of one program: paper, configuration, measured result. This page
is written by `python -m benchmarks.methods --docs` from [configs/methods/](../configs/methods) and
[benchmarks/results/methods.json](../benchmarks/results/methods.json). `rkd methods` prints the
same.

```sh
rkd methods margin_mse                        # one method in full, with the source of each setting
rkd run configs/methods/margin_mse.yaml       # on SciFact; collection=PATH out=FOLDER for another
python -m benchmarks.methods                  # all of them, with tests between them
```

Nothing here reproduces a paper's figures: teachers, students and data are smaller. The question is
what each idea adds to **the same student at the same budget**, compared with judgments alone
(`labels`) and with plain distillation (`kl`). [experiments/methods.md](experiments/methods.md) says
what came out.

Four objectives stay although no method here uses them. `embedding_mse` and `embedding_cosine` teach
a student to search its teacher's index, which no objective on scores can, and
`embedding_similarity` teaches it which texts are alike, at any width
([training.md](training.md#vectors-of-a-model)); `configs/smaller.yaml` begins with two of them.
`bce` is how re-rankers are usually trained on soft labels, and the only pointwise one that does not
ask for the teacher's scale.
"""
NOT_YET = "not measured yet"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the methods one after the other, or write docs/methods.md."""
    options = parse(arguments)
    if options.docs:
        target = ROOT / "docs" / "methods.md"
        write_text(target, page(list_methods(), read_results(RESULTS[0])))
        print(target)
        return
    entries = [entry for entry in list_methods() if entry.method.elsewhere is None]
    if options.methods:
        unknown = set(options.methods.split(",")) - {entry.name for entry in entries}
        if unknown:
            raise SystemExit(f"no method {', '.join(sorted(unknown))}; rkd methods lists them")
        entries = [entry for entry in entries if entry.name in options.methods.split(",")]
    failed = {}
    for entry in entries:
        try:
            run_one(entry, options)
        except Exception as error:  # the other methods still run
            failed[entry.name] = f"{type(error).__name__}: {error}"
            print(f"{entry.name} failed: {failed[entry.name]}", flush=True)
    name = collection_name(options)
    if name in read_results(options.results):
        print(table(read_results(options.results)[name]))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def run_one(entry: Entry, options: argparse.Namespace) -> None:
    """Run one method and update its collection's results."""
    from retrieval_kd.pipeline.plan import run

    config = configured(entry, options)
    print(f"== {entry.name}", flush=True)
    run(config, report)
    results = read_results(options.results)
    name = collection_name(options)
    results[name] = collect(config, entry.student, results.get(name))
    write_json(options.results, {"collections": results})


def report(stage: Any, done: bool, place: str) -> None:
    """Print a line for a stage that runs."""
    if not done:
        print(f"   {place} {stage.name}", flush=True)


def configured(entry: Entry, options: argparse.Namespace) -> Any:
    """Load the method's configuration for this collection and budget."""
    from retrieval_kd.config.run import Config
    from retrieval_kd.schema import apply_overrides, read_extended, validate

    name = collection_name(options)
    values = apply_overrides(
        read_extended(entry.config),
        [
            f"collection={options.collection}",
            f"out={options.out or Path('runs/methods', name)}",
            f"seeds=[{options.seeds}]",
            *COLLECTIONS.get(options.collection, []),
        ],
    )
    if options.full:
        values["train"] = {**values["train"], **FULL}
        values["student"]["max_length"] = 256
        for training in values["students"].values():
            for stage in training.get("stages", []):
                stage["train"]["steps"] *= TIMES_STEPS
    return validate(Config, apply_overrides(values, options.overrides), entry.config)


def collect(config: Any, student: str, earlier: dict[str, Any] | None) -> dict[str, Any]:
    """Return a collection's `earlier` results, with this student and both baselines added.

    Earlier results of another budget, student or seeds are not comparable and are dropped.
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
    same = earlier is not None and all(earlier[key] == common[key] for key in common)
    systems = dict(earlier["systems"]) if earlier and same else {}
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
    others = evaluate(qrels, dict(zip(UNTRAINED, untrained, strict=True)), [MEASURE])
    evaluation = evaluate(qrels, runs, [MEASURE]).group(groups)
    for name in systems:
        systems[name][MEASURE] = evaluation.per_seed(name, MEASURE)
    pairs = [(name, base) for base in ("labels", "kl") for name in systems if name != base]
    pairs.remove(("labels", "kl"))
    return {
        **common,
        "queries": len(evaluation.queries),
        "untrained": {name: others.mean(name, MEASURE) for name in UNTRAINED},
        "systems": systems,
        "comparisons": [vars(test) for test in compare(evaluation, pairs=pairs)],
        "hardware": describe(),
        "versions": versions(),
    }


def costs(config: Any, name: str, work: Any) -> dict[str, Any]:
    """Return seconds of training (mean over seeds) and upper bounds of teacher calls."""
    from retrieval_kd.pipeline.context import RunContext
    from retrieval_kd.pipeline.costs import teacher_calls
    from retrieval_kd.pipeline.train_students import student_folders

    context, training = RunContext(config, work), config.students[name]
    folders = [f for seed in config.seeds for f in student_folders(name, training, seed)]
    seconds = work.seconds(f"train:{folder.name}" for folder in folders)
    return {
        "training_seconds": round(seconds / len(config.seeds), 1),
        "teacher_calls": teacher_calls(context, training),
    }


def read_results(path: Path) -> dict[str, Any]:
    """Read the results so far, by collection."""
    return read_json(path)["collections"] if path.exists() else {}


def collection_name(options: argparse.Namespace) -> str:
    """The name of collection and budget in the results."""
    return Path(options.collection).stem + ("-full" if options.full else "")


def page(entries: Sequence[Entry], results: Mapping[str, Any]) -> str:
    """Format the whole page."""
    parts = [HEAD]
    for section, title in SECTIONS.items():
        chosen = [entry for entry in entries if entry.method.section == section]
        parts.append(f"## {title}\n\n{overview(chosen)}\n")
    parts.append("## Measured\n")
    if not results:
        parts.append(f"{NOT_YET.capitalize()}.\n")
    for collection, record in results.items():
        parts.append(f"### {collection}\n\n{conditions(record)}\n\n{table(record)}\n")
    parts.append("## Where the settings come from\n")
    parts += [settings(entry) for entry in entries]
    return "\n".join(parts)


def overview(entries: Sequence[Entry]) -> str:
    """Format the table paper → configuration → result."""
    lines = ["| method | paper | what is new | needs | nDCG@10 |", "|---" * 5 + "|"]
    for entry in entries:
        method = entry.method
        name = f"[`{entry.name}`](../{shown(entry.config)})"
        needs = ", ".join(method.needs)
        lines.append(f"| {name} | {method.paper.link} | {method.new} | {needs} | {result(entry)} |")
    return "\n".join(lines)


def result(entry: Entry) -> str:
    """Format a method's result for a table cell."""
    if entry.method.elsewhere:
        return entry.method.elsewhere
    cells = [f"{c} {mean_spread(values[MEASURE])}" for c, values in entry.measured.items()]
    return "; ".join(cells) or NOT_YET


def conditions(record: Mapping[str, Any]) -> str:
    """Describe the conditions of a collection's measurement."""
    budget, seeds = record["budget"], record["seeds"]
    return (
        f"{record['queries']} test queries, seeds {', '.join(map(str, seeds))}; "
        f"{budget['steps']} steps of {budget['batch_queries']} queries with slates of "
        f"{budget['slate_size']}, {budget['max_tokens']} tokens. ± is the standard deviation over "
        "seeds. Differences have 95 % bootstrap intervals over queries and p-values of paired "
        "t-tests, Holm-corrected over all differences of this table; **bold** means p < .05. "
        "Teacher calls are upper bounds; training times are rough, because the machine was busy. "
        f"Measured on {hardware(record['hardware'])}."
        + untrained_systems(record.get("untrained", {}))
    )


def untrained_systems(untrained: Mapping[str, float]) -> str:
    """List the results of the untrained systems."""
    titles = {"bm25": "BM25", "encoder": "the whole encoder as it is", "teacher": "the teacher"}
    results = [f"{titles[name]} {value:.4f}" for name, value in untrained.items()]
    return f" For comparison, untrained: {', '.join(results)}." if results else ""


def hardware(machine: Mapping[str, Any]) -> str:
    """Describe the machine."""
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    return f"{machine['cores']} cores of {machine['processor']}{gpu}, {machine['fast_dtype']}"


def table(record: Mapping[str, Any]) -> str:
    """Format the table of a collection's students, best first."""
    systems = record["systems"]
    tests = {(test["a"], test["b"]): test for test in record["comparisons"]}
    lines = [
        "| student | nDCG@10 | − labels | − kl | training s | stored teacher, pairs "
        "| live teacher, texts or pairs |",
        "|---" * 7 + "|",
    ]
    order = sorted(systems, key=lambda s: -sum(systems[s][MEASURE]) / len(systems[s][MEASURE]))
    for name in order:
        values = systems[name]
        cells = [name, mean_spread(values[MEASURE])]
        cells += [difference(tests.get((name, base))) for base in ("labels", "kl")]
        cells.append(f"{values['training_seconds']:.0f}")
        cells += [f"{values['teacher_calls'][kind]:,}" for kind in ("stored", "live")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(test: Mapping[str, Any] | None) -> str:
    """Format a difference with its interval and corrected p; a dash if there is no test."""
    from retrieval_kd.metrics.significance import format_p

    if test is None:
        return "–"
    size = f"{test['difference']:+.4f}"
    size = f"**{size}**" if test["p_holm"] < 0.05 else size
    return f"{size} [{test['low']:+.4f}, {test['high']:+.4f}], {format_p(test['p_holm'])}"


def settings(entry: Entry) -> str:
    """List a method's objective and the source of each setting."""
    method = entry.method
    lines = [f"**{entry.name}**: `{entry.objective}`", ""]
    lines += [f"- {name}: {source}" for name, source in method.settings_from.items()]
    if method.left_out:
        lines.append(f"- left out: {method.left_out}")
    return "\n".join([*lines, ""])


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
