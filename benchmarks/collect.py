"""Copies a finished run's results into benchmarks/results and prints the tables of docs/results.md.

rkd run configs/scifact.yaml && python -m benchmarks.collect runs/scifact
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measure import RESULTS
from retrieval_kd.files import read_json, write_json
from retrieval_kd.metrics.significance import format_p


def main() -> None:
    """Copy and print the results of each run folder on the command line."""
    for folder in map(Path, sys.argv[1:]):
        record = read_json(folder / "results.json")
        write_json(RESULTS / f"{folder.name}.json", without_texts(record))
        print(f"\n### {folder.name}\n\n{table(record)}\n\n{comparisons(record)}")


def without_texts(record: dict) -> dict:
    """Remove the collection's texts and the plots' points from the results."""
    kept = dict(record)
    if "audit" in record:
        kept["audit"] = {k: v for k, v in record["audit"].items() if k != "examples"}
    if "diagnostics" in record:
        students = {
            name: {k: v for k, v in facts.items() if k not in ("worst", "points")}
            for name, facts in record["diagnostics"]["students"].items()
        }
        kept["diagnostics"] = {**record["diagnostics"], "students": students}
    return kept


def table(record: dict) -> str:
    """Systems × measures: mean ± standard deviation over seeds, share of the teacher, costs."""
    measures = record["measures"]
    lines = [
        "| system | " + " | ".join(measures) + " | of teacher | layers | training s |",
        "|---" * (len(measures) + 4) + "|",
    ]
    teacher = record["systems"]["teacher"][measures[0]]["mean"]
    for system, values in record["systems"].items():
        cells = [_cell(values[measure]) for measure in measures]
        costs = record["costs"].get(system, {})
        share = f"{values[measures[0]]['mean'] / teacher:.1%}"
        seconds = costs.get("training_seconds")
        trained = f"{seconds:.0f}" if seconds else "–"
        lines.append(
            f"| {system} | {' | '.join(cells)} | {share} | {costs.get('layers', '–')} | {trained} |"
        )
    return "\n".join(lines)


def comparisons(record: dict) -> str:
    """List the paired tests of the first measure."""
    first = record["measures"][0]
    return "\n".join(
        f"- {c['a']} − {c['b']}: {c['difference']:+.4f} (95 % CI {c['low']:+.4f} to "
        f"{c['high']:+.4f}, Holm-corrected p {format_p(c['p_holm']).removeprefix('p ')}; "
        f"{c['wins']} won, {c['ties']} tied, {c['losses']} lost)"
        for c in record["comparisons"]
        if c["measure"] == first
    )


def _cell(values: dict) -> str:
    seeds = values["per_seed"]
    if len(seeds) < 2:
        return f"{values['mean']:.4f}"
    mean = sum(seeds) / len(seeds)
    spread = (sum((s - mean) ** 2 for s in seeds) / (len(seeds) - 1)) ** 0.5
    return f"{values['mean']:.4f} ± {spread:.4f}"


if __name__ == "__main__":
    main()
