"""What becomes of a suite's result: tables on the terminal, and the files that were asked for."""

from __future__ import annotations

from rich.console import Console

from retrieval_kd.evaluation.outputs import Outputs, system_of_card
from retrieval_kd.evaluation.report import grid
from retrieval_kd.evaluation.report.model_card import update_model_card
from retrieval_kd.evaluation.report.terminal import print_grid
from retrieval_kd.evaluation.suite.report import write_suite_report
from retrieval_kd.evaluation.suite.run import SuiteResult
from retrieval_kd.evaluation.suite.table import result_grids, suite_record, systems_grid
from retrieval_kd.files import write_json, write_text


def print_suite(result: SuiteResult, console: Console | None = None) -> None:
    """Quality and cost of the systems, then the collections, then what was left out and why."""
    console = console or Console()
    print_grid(systems_grid(result), console)
    if len(result.collections) > 1:
        console.print()
        print_grid(result_grids(result)[0], console)
    for name, message in result.missing.items():
        console.print(f"Left out: {name}: {message}", markup=False, highlight=False, emoji=False)


def write_outputs(result: SuiteResult, outputs: Outputs) -> None:
    """Each of the files, whole or not at all."""
    grids = [systems_grid(result), *result_grids(result)]
    # which system the card is of is asked first, before anything is written
    system = system_of_card(outputs, result.options.systems) if outputs.card is not None else ""
    record = suite_record(result)
    if outputs.json is not None:
        write_json(outputs.json, record)
    if outputs.markdown is not None:
        write_text(outputs.markdown, "\n\n".join(map(grid.to_markdown, grids)) + "\n")
    if outputs.latex is not None:
        write_text(outputs.latex, "\n\n".join(map(grid.to_latex, grids)) + "\n")
    if outputs.report is not None:
        write_suite_report(result, outputs.report)
    if outputs.card is not None:
        evaluations = {
            f"{name}, {found.located.split}": found.evaluation
            for name, found in result.collections.items()
        }
        update_model_card(outputs.card, evaluations, system, digest=record["digest"])
