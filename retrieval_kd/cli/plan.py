"""The subcommand `plan`: what a run will take, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_kd.cli.options import bounded
from retrieval_kd.schema import Price

if TYPE_CHECKING:
    from retrieval_kd.evaluation.report.grid import Grid

plan_app = typer.Typer()


@plan_app.command()
def plan(
    config: Annotated[
        Path, typer.Argument(help="a YAML file, adapt, or the name of a method, as for `rkd run`")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="settings to change, such as first_stage.depth=30 collection=PATH"),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="estimate for this GPU: T4, L4, A10, L40S, A100, H100, H200; repeat"),
    ] = None,
    price_per_hour: Annotated[
        float | None, bounded(Price, "price of an hour of the machine, in any currency")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="measure this machine again, whatever was kept")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON")] = False,
) -> None:
    """Say what a run will take: pairs, hours, disk, memory, price, and what would save most.

    What will it take here?  rkd plan configs/quickstart.yaml

    What would it cost, here and on two GPUs?  rkd plan configs/squad.yaml --gpu L4 --gpu A100
    --price-per-hour 1.2

    What if I score fewer candidates?  rkd plan configs/squad.yaml first_stage.depth=20

    Counts the stages of `rkd run` that are not done, in its own words. This machine is measured on
    a few batches of the run's own texts, in about a minute; the speeds are kept. GPUs are estimated
    from their peak. Servers are asked nothing: their calls, tokens and price are counted. The plan
    is written to plan.json in the run's folder, and the report shows it beside what each stage
    took.
    """
    import json

    from retrieval_kd.config.methods import config_file
    from retrieval_kd.config.run import load_config
    from retrieval_kd.pipeline.forecast.gpus import GPUS, find_gpu

    chosen = [find_gpu(name) for name in gpu or GPUS]
    loaded = load_config(config_file(config), overrides or [])

    from retrieval_kd.pipeline.forecast.forecast import forecast
    from retrieval_kd.pipeline.forecast.plan_file import to_json, write_plan
    from retrieval_kd.pipeline.forecast.savings import savings
    from retrieval_kd.pipeline.forecast.took import PLAN

    made = forecast(loaded, again=again)
    record = to_json(made, savings(made), chosen, price_per_hour=price_per_hour)
    write_plan(record, Path(loaded.out, loaded.results, PLAN))
    if as_json:
        print(json.dumps(record, indent=2, ensure_ascii=False))
        return
    show(record)


def show(record: dict[str, Any]) -> None:
    """Print a plan for people."""
    from retrieval_kd.evaluation.report.formats import duration, scaled
    from retrieval_kd.evaluation.report.grid import print_grid
    from retrieval_kd.progress import say

    queries = ", ".join(f"{n:,} {part}" for part, n in record["collection"]["queries"].items() if n)
    say(f"{record['collection']['documents']:,} documents; queries: {queries}")
    print_grid(stage_grid(record))
    total = record["total"]
    price = _price(total["price"])
    say(
        f"In all {duration(total['seconds'])} on this machine{price}; {total['pairs']:,} pairs, "
        f"{scaled(total['operations'])} operations; {_gigabytes(total['disk_bytes'])} of disk at "
        f"most, and {_gigabytes(total['memory_bytes'])} of memory for models by formula (a process "
        "holds more)"
    )
    if total["server_price"] is not None:
        say(f"Servers: {total['server_price']:.2f} at the prices of the configuration")
    if record["not_measured"]:
        say(f"Not measured, so estimated: {', '.join(record['not_measured'])}")
    if total["seconds"]:
        print_grid(gpu_grid(record))
    for saving in record["savings"][:1]:
        say(
            f"The largest saving on offer: {saving['what']} ({' '.join(saving['overrides'])}) "
            f"takes {duration(saving['seconds'])} less, {saving['share']:.0%}; what that costs in "
            "quality is not known"
        )


def stage_grid(record: dict[str, Any]) -> Grid:
    """Tabulate a plan's stages."""
    from retrieval_kd.evaluation.report.formats import duration, scaled
    from retrieval_kd.evaluation.report.grid import Cell, Grid

    rows = []
    for stage in record["stages"]:
        if stage["done"]:
            took = f"done in {duration(stage['took_seconds'])}"
            rows.append([Cell(stage["title"]), Cell(""), *[Cell("")] * 4, Cell(took)])
            continue
        about = ("~" if stage["estimated"] else "") + duration(stage["seconds"])
        rows.append([
            Cell(stage["title"]),
            Cell(_counted(stage)),
            Cell(scaled(stage["tokens"]) if stage["tokens"] else ""),
            Cell(scaled(stage["operations"]) if stage["operations"] else ""),
            Cell(_gigabytes(stage["disk_bytes"])),
            Cell(_gigabytes(stage["memory_bytes"]) if stage["memory_bytes"] else ""),
            Cell("server" if stage["server"] else about),
        ])  # fmt: skip
    headers = [
        "Stage",
        "What",
        "Tokens",
        "Operations",
        "Disk, at most",
        "Model memory",
        "Time here",
    ]
    note = "Operations are floating-point ones"
    if any(stage["estimated"] for stage in record["stages"]):
        note += "; ~: estimated, not measured"
    if any(stage["at_most"] for stage in record["stages"]):
        note += "; ≤: an earlier stage decides how many"
    note += "."
    return Grid(headers, rows, note, left=2)


def _counted(stage: dict[str, Any]) -> str:
    """What a stage has to do, in words; of a server its calls, tokens and price."""
    calls = stage["server"]
    if calls:
        price = "" if calls["price"] is None else f", {calls['price']:.2f} in all"
        read, written = calls["prompt_tokens"], calls["answer_tokens"]
        return f"≤ {calls['calls']:,} calls, {read:,} tokens read, {written:,} written{price}"
    most = "≤ " if stage["at_most"] else ""
    shown = ("pairs", "questions", "steps", "layers_tried", "documents_encoded", "queries_encoded",
             "queries_searched", "words_encoded")  # fmt: skip
    counts = [(name, stage["counts"][name]) for name in shown if name in stage["counts"]]
    return ", ".join(f"{most}{number:,} {name.replace('_', ' ')}" for name, number in counts[:3])


def gpu_grid(record: dict[str, Any]) -> Grid:
    """Tabulate estimates for GPUs."""
    from retrieval_kd.evaluation.report.formats import duration
    from retrieval_kd.evaluation.report.grid import Cell, Grid

    rows = [
        [
            Cell(gpu["name"]),
            Cell(duration(gpu["seconds"])),
            Cell("yes" if gpu["fits"] else "no"),
            *([Cell(f"{gpu['price']:.2f}")] if gpu["price"] is not None else []),
        ]
        for gpu in record["gpus"]
    ]
    priced = record["price_per_hour"] is not None
    headers = ["GPU", "Time, estimated", "Fits its memory", *(["Price"] if priced else [])]
    share = f"{record['gpus'][0]['utilisation']:.0%}" if record["gpus"] else ""
    note = (
        f"Estimates: {share} of each GPU's peak, and beside it what runs on a processor, as here."
    )
    return Grid(headers, rows, note)


def _price(price: float | None) -> str:
    return "" if price is None else f", {price:.2f} at the given price"


def _gigabytes(size: float) -> str:
    """Write bytes in MB or GB, of powers of ten."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
