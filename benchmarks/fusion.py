"""Compares ways to combine teachers, and calibration methods, on finished runs' stored scores.

    python -m benchmarks.fusion runs/scifact=scifact.zip runs/squad=squad.zip

For each run folder (with its collection, found in $RETRIEVAL_KD_DATA), everything is fitted on the
dev queries and measured on the test queries. Each combination is tested against z-scores with equal
weights. No model runs. One minute per run on two cores.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.measure import save
from retrieval_kd import Collection, ScoreStore, compare, evaluate, open_collection
from retrieval_kd.data.scores import Scores
from retrieval_kd.evaluation.diagnostics.calibration import expected_calibration_error, reliability
from retrieval_kd.evaluation.report.grid import print_grid
from retrieval_kd.evaluation.report.table import to_grid
from retrieval_kd.files import read_json
from retrieval_kd.targets import CalibrationMethod, Fusion
from retrieval_kd.targets.calibrate import fit_on, log_loss
from retrieval_kd.targets.combine import fit_combination
from retrieval_kd.targets.normalise import rerank
from retrieval_kd.teachers.score import scores_of

BASELINE = "z_scores"


def main() -> None:
    """Print the tables and write results/fusion.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="FOLDER=COLLECTION")
    results = {}
    for argument in parser.parse_args().runs:
        folder, _, collection = argument.partition("=")
        name = Path(folder).name
        print(f"== {name}")
        results[name] = measure(Path(folder), open_collection(collection))
    print(save("fusion", results))


def measure(folder: Path, collection: Collection) -> dict[str, Any]:
    """Measure one run's teachers and their combinations."""
    dev, dev_qrels = part(folder, collection, "dev")
    test, test_qrels = part(folder, collection, "test")
    weights = dict.fromkeys(dev, 1.0)
    runs = {name: rerank(name, scores) for name, scores in test.items()}
    for how in get_args(Fusion):
        fitted = fit_combination(how, dev, dev_qrels)
        runs[how] = rerank(how, fitted.fuse(test, weights))
    evaluation = evaluate(test_qrels, runs, ["ndcg@10"])
    tests = compare(evaluation, pairs=[(how, BASELINE) for how in runs if how != BASELINE])
    print_grid(to_grid(evaluation, tests))
    return {
        "queries": {"dev": len(dev_qrels), "test": len(test_qrels)},
        "ndcg@10": {name: evaluation.mean(name, "ndcg@10") for name in runs},
        "tests": [asdict(test) for test in tests],
        "calibration": {
            name: calibrations(dev[name], dev_qrels, test[name], test_qrels) for name in dev
        },
    }


def part(folder: Path, collection: Collection, name: str) -> tuple[dict[str, Scores], Any]:
    """Return a part's judgments, and its scores by each teacher that scored all its candidates."""
    queries = read_json(folder / "queries" / f"{name}.json")
    candidates = read_json(folder / "candidates" / f"{name}.json")
    store = ScoreStore(folder / "scores")
    stored = {
        key.model: scores_of(collection, queries["texts"], candidates, store, key)
        for key in store.teachers()
    }
    pairs = sum(map(len, candidates.values()))
    complete: dict[str, Scores] = {m: table for m, table in stored.items() if table.pairs == pairs}
    return complete, queries["qrels"]


def calibrations(fit_to: Scores, fit_qrels: Any, scores: Scores, qrels: Any) -> dict[str, Any]:
    """Log-loss and ECE on test of each map fitted on dev, of the raw scores and the base rate."""
    rows = [
        (score, qrels[query].get(document, 0) > 0)
        for query in qrels
        for document, score in scores.get(query, {}).items()
    ]
    values, labels = np.array(rows, dtype=np.float64).T
    flat = {query: dict.fromkeys(scored, 0.0) for query, scored in fit_to.items()}
    rate = fit_on(flat, fit_qrels, "platt").log_odds(np.zeros(1))
    table = {
        "raw": {"log_loss": log_loss(values, labels)},
        "base_rate": {"log_loss": log_loss(np.broadcast_to(rate, values.shape), labels)},
    }
    for method in get_args(CalibrationMethod):
        fitted = fit_on(fit_to, fit_qrels, method)
        ece = expected_calibration_error(reliability(fitted.probabilities(values), labels))
        table[method] = {"log_loss": log_loss(fitted.log_odds(values), labels), "ece": ece}
    print("  ".join(f"{name} {row['log_loss']:.4f}" for name, row in table.items()))
    return table


if __name__ == "__main__":
    main()
