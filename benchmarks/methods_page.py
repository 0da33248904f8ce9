"""docs/methods.md and its tables, from the YAML files and what was measured; nothing is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_kd.cli.methods import mean_spread
from retrieval_kd.config.methods import MEASURE, SECTIONS, Entry, shown

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
    """The whole page."""
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
    """Paper → configuration → result."""
    lines = ["| method | paper | what is new | needs | nDCG@10 |", "|---" * 5 + "|"]
    for entry in entries:
        method = entry.method
        name = f"[`{entry.name}`](../{shown(entry.config)})"
        needs = ", ".join(method.needs)
        lines.append(f"| {name} | {method.paper.link} | {method.new} | {needs} | {result(entry)} |")
    return "\n".join(lines)


def result(entry: Entry) -> str:
    """What was measured of a method, in a cell."""
    if entry.method.elsewhere:
        return entry.method.elsewhere
    told = [f"{c} {mean_spread(values[MEASURE])}" for c, values in entry.measured.items()]
    return "; ".join(told) or NOT_YET


def conditions(record: Mapping[str, Any]) -> str:
    """On what a collection was measured."""
    budget, seeds = record["budget"], record["seeds"]
    return (
        f"{record['queries']} test queries, seeds {', '.join(map(str, seeds))}; "
        f"{budget['steps']} steps of {budget['batch_queries']} queries with slates of "
        f"{budget['slate_size']}, {budget['max_tokens']} tokens. ± is the standard deviation over "
        "seeds. Differences have 95 % bootstrap intervals over queries and p-values of paired "
        "t-tests, Holm-corrected over all differences of this table; **bold** means p < .05. "
        "Teacher calls are upper bounds; training times are rough, because the machine was busy. "
        f"Measured on {hardware(record['hardware'])}.{beside(record.get('untrained', {}))}"
    )


def beside(untrained: Mapping[str, float]) -> str:
    """What the students stand beside, none of it trained."""
    told = {"bm25": "BM25", "encoder": "the whole encoder", "teacher": "the teacher"}
    found = [f"{told[name]} {value:.4f}" for name, value in untrained.items()]
    return f" For comparison, untrained: {', '.join(found)}." if found else ""


def hardware(found: Mapping[str, Any]) -> str:
    """The machine, in words."""
    gpu = f", {found['gpu']}" if found.get("gpu") else ""
    return f"{found['cores']} cores of {found['processor']}{gpu}, {found['fast_dtype']}"


def table(record: Mapping[str, Any]) -> str:
    """Every student of a collection, best first; those that do not help too."""
    systems = record["systems"]
    against = {(found["a"], found["b"]): found for found in record["comparisons"]}
    lines = [
        "| student | nDCG@10 | − labels | − kl | training s | stored teacher, pairs "
        "| live teacher, texts or pairs |",
        "|---" * 7 + "|",
    ]
    order = sorted(systems, key=lambda s: -sum(systems[s][MEASURE]) / len(systems[s][MEASURE]))
    for name in order:
        values = systems[name]
        cells = [name, mean_spread(values[MEASURE])]
        cells += [difference(against.get((name, base))) for base in ("labels", "kl")]
        cells.append(f"{values['training_seconds']:.0f}")
        cells += [f"{values['teacher_calls'][kind]:,}" for kind in ("stored", "live")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(found: Mapping[str, Any] | None) -> str:
    """A difference with its interval and corrected p; a dash for a student against itself."""
    from retrieval_kd.metrics.significance import format_p

    if found is None:
        return "–"
    size = f"{found['difference']:+.4f}"
    size = f"**{size}**" if found["p_holm"] < 0.05 else size
    return f"{size} [{found['low']:+.4f}, {found['high']:+.4f}], {format_p(found['p_holm'])}"


def settings(entry: Entry) -> str:
    """What a method minimises and whose each setting is."""
    method = entry.method
    lines = [f"**{entry.name}**: `{entry.objective}`", ""]
    lines += [f"- {name}: {source}" for name, source in method.settings_from.items()]
    if method.left_out:
        lines.append(f"- left out: {method.left_out}")
    return "\n".join([*lines, ""])
