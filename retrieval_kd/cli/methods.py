"""The subcommand `methods`: lists the published methods this project runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from retrieval_kd.config.methods import Entry

methods_app = typer.Typer()


@methods_app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="show one in full")] = None,
    configs: Annotated[
        Path | None, typer.Option(help="folder of their YAML files; default: configs/methods")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Published methods: paper, what is new, configuration, what was measured.

    Run one:  rkd run configs/methods/margin_mse.yaml
    """
    import json

    from retrieval_kd.config.methods import find_method, list_methods

    entries = [find_method(name, configs)] if name else list_methods(configs)
    if as_json:
        values = [entry.to_json() for entry in entries]
        print(json.dumps(values, indent=2, ensure_ascii=False))
    elif name:
        _print_one(entries[0])
    else:
        _print_all(entries)


def _print_all(entries: list[Entry]) -> None:
    from rich.table import Table

    from retrieval_kd.config.methods import MEASURE, SECTIONS, mean_spread
    from retrieval_kd.progress import console

    collections = sorted({name for entry in entries for name in entry.measured})
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for column in ("", "paper", "needs", *(f"nDCG@10 {name}" for name in collections)):
        table.add_column(column)
    for entry in entries:
        paper = entry.method.paper
        cells = [mean_spread(entry.measured.get(c, {}).get(MEASURE, [])) for c in collections]
        needs = ", ".join(entry.method.needs)
        source = f"{paper.authors} {paper.year}"
        table.add_row(entry.name, entry.method.section, source, needs, *cells)
    console.print(table, highlight=False)
    sections = "; ".join(f"{letter}: {title.lower()}" for letter, title in SECTIONS.items())
    console.print(f"\n{sections}.", highlight=False)
    console.print("More of one: rkd methods NAME. Run one: rkd run configs/methods/NAME.yaml")


def _print_one(entry: Entry) -> None:
    from retrieval_kd.config.methods import MEASURE, mean_spread, shown

    method, paper = entry.method, entry.method.paper
    where = f", https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else ""
    print(f"{entry.name}: {paper.authors} {paper.year}, {paper.title}{where}\n")
    print(f"{method.new}\n")
    print(f"objective  {entry.objective}")
    print(f"needs      {', '.join(method.needs)}")
    print(f"config     {shown(entry.config)}")
    for setting, source in method.settings_from.items():
        print(f"  {setting}: {source}")
    if method.left_out:
        print(f"left out   {method.left_out}")
    if method.elsewhere:
        print(f"elsewhere  {method.elsewhere}")
    for collection, values in entry.measured.items():
        print(f"measured   nDCG@10 {mean_spread(values[MEASURE])} on {collection}")
    if not entry.measured and not method.elsewhere:
        print("measured   not yet")
