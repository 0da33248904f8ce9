"""Formats docs/methods.md and its tables from the methods' YAML files and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_kd.config.methods import MEASURE, SECTIONS, Entry, mean_spread, shown

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
"""
NOT_YET = "not measured yet"


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
