"""The command `rkd`: mounts all subcommands, and has `run` and `report`.

Commands only parse and print; the work is done in the modules they import. They import late, so
that `rkd --help` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from retrieval_kd.cli.audit import audit_app
from retrieval_kd.cli.command import Command
from retrieval_kd.cli.diagnose import diagnose_app
from retrieval_kd.cli.evaluate import evaluate_app
from retrieval_kd.cli.fit_teacher import fit_app
from retrieval_kd.cli.generate import generate_app
from retrieval_kd.cli.index import index_app
from retrieval_kd.cli.merge import merge_app
from retrieval_kd.cli.methods import methods_app
from retrieval_kd.cli.options import out_file
from retrieval_kd.cli.plan import plan_app
from retrieval_kd.cli.score import score_app
from retrieval_kd.cli.scores import scores_app
from retrieval_kd.cli.search import search_app
from retrieval_kd.cli.serve import serve_app
from retrieval_kd.cli.teach import teach_app
from retrieval_kd.cli.train import train_app
from retrieval_kd.errors import InputError, shown
from retrieval_kd.files import failed_write
from retrieval_kd.progress import say

USAGE_ERROR: Any = typer.BadParameter.__base__  # which typer does not export
# how a message about the command line is worded → what to do
REMEDIES = {
    "valid integer": "give a whole number",
    "valid number": "give a number",
    "Missing": "add it",
    "one of": "choose one of them",
    "No such": "check the spelling",
    "not take a value": "leave the value out",
    "unexpected": "leave it out",
}


class Commands(TyperGroup):
    """The subcommands; a wrong command line is reported like any other wrong input."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for argument in args:
            if not re.sub(r"^--[\w-]+=", "", argument).strip():
                raise InputError(
                    f"an argument is empty: {argument!r}", remedy="write a value, or leave it out"
                )
            if not argument.isascii() and any("\ud800" <= c <= "\udfff" for c in argument):
                raise InputError(
                    f"an argument is not UTF-8: {argument.encode(errors='replace').decode()!r}",
                    remedy="type it in a UTF-8 terminal; rename a file whose name is in another "
                    "encoding",
                )
        with _one_line():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _one_line():
            return super().invoke(ctx)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Raise what typer says about a command line as an InputError; a help text stays one."""
    try:
        yield
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        message = error.format_message().rstrip(".").replace("Value error, ", "")
        fix = next((fix for part, fix in REMEDIES.items() if part in message), "give another")
        command = error.ctx.command_path if error.ctx else "rkd"
        remedy = f"{fix}; {command} --help says what it means"
        raise InputError(message, remedy=remedy) from error


app = typer.Typer(
    name="rkd",
    cls=Commands,
    help="Distil rerankers into retrieval models: score once, train many students, index, "
    "evaluate.\n\nThe whole loop on built-in data:  rkd run configs/quickstart.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
COMMANDS = (
    search_app, serve_app, score_app, generate_app, fit_app, train_app, merge_app, evaluate_app,
    audit_app, diagnose_app, methods_app, plan_app,
)  # fmt: skip
for commands in COMMANDS:
    app.registered_commands += commands.registered_commands
app.add_typer(index_app, name="index")
app.add_typer(scores_app, name="scores")
app.add_typer(teach_app, name="teach")

# what they have finished is on the disk, and is found when they are started again
RESUMES = {"run", "plan", "suite", "score", "generate", "train", "fit-teacher", "index"}

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="settings to change, such as collection=PATH student.layers=[0,2,5]"),
]


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Argument(help="a YAML file, adapt, or the name of a method (see `rkd methods`)"),
    ] = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option(help="only count documents and queries, and list which stages would run")
    ] = False,
    schema: Annotated[bool, typer.Option(help="print the configuration's JSON Schema")] = False,
) -> None:
    """Run everything in one file: teacher, students, indexes, evaluation, report.

    Finished stages are skipped; an interrupted stage resumes where it stopped.
    """
    from retrieval_kd.config.methods import config_file
    from retrieval_kd.config.run import Config, load_config

    if schema:
        print(json.dumps(Config.model_json_schema(by_alias=True), indent=2))
        return
    if config is None:
        raise InputError("no configuration", remedy="rkd run configs/quickstart.yaml")
    loaded = load_config(config_file(config), overrides or [])
    from rich.markup import escape

    from retrieval_kd.pipeline import plan  # after the configuration is checked: loads torch
    from retrieval_kd.progress import console

    if dry_run:
        from retrieval_kd.pipeline.descriptions import describe_counts, describe_trainings
        from retrieval_kd.pipeline.queries import count_queries

        context = plan.planned(loaded)
        work, collection = context.work, context.collection
        work.check_folder()
        counts, at_most = count_queries(loaded, collection)
        said = describe_counts(len(collection.documents), counts, at_most)
        console.print(escape(said), highlight=False)
        trainings = describe_trainings(loaded, counts)
        todo = work.todo()
        for stage in work.stages:
            word = "would run" if stage in todo else "done     "
            about = f"  [dim]{trainings[stage.name]}[/dim]" if stage.name in trainings else ""
            console.print(f"{word}  {escape(stage.title)}{about}", highlight=False)
        return
    results = plan.run(
        loaded,
        lambda stage, done, number: console.print(
            f"[dim]{number:>7}  {'done' if done else 'run '}[/dim]  {escape(stage.title)}",
            highlight=False,
        ),
    )
    results.print()


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="the `out` folder of a run")],
    out: Annotated[Path | None, out_file(help="HTML file; default FOLDER/report.html")] = None,
) -> None:
    """Write the HTML report of a finished run again, for instance after an update."""
    from retrieval_kd.evaluation.report.data import ReportData
    from retrieval_kd.evaluation.report.page import write_report
    from retrieval_kd.files import read_json

    source = folder / "report.json"
    if not source.exists():
        raise InputError(
            "no finished run there", file=folder, remedy="run `rkd run CONFIG.yaml` to the end"
        )
    target = out or folder / "report.html"
    write_report(ReportData.from_json(read_json(source)), target)
    say(target)


for commands in (app, index_app, scores_app, teach_app):
    for command in commands.registered_commands:
        command.cls = Command


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Wrong input prints one line on standard error and exits with 2."""
    _quiet()
    for stream in (sys.stdout, sys.stderr):  # a terminal without "é" shows \xe9
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else arguments
    if threading.current_thread() is threading.main_thread():
        _catch_signals(next((word for word in given if not word.startswith("-")), ""))
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "160")  # in a file or a pipe no column need be cut
    try:
        try:
            app(given, prog_name="rkd")
        finally:
            _flush()
    except InputError as error:
        sys.exit(_say(str(error), 2))
    except MemoryError as error:
        what = f"not enough memory: {error or 'no more is known'}. To fix: choose smaller numbers"
        sys.exit(_say(what, 2))
    except RecursionError:
        sys.exit(_say("a path or a value is nested too deep. To fix: shorten it", 2))
    except SystemExit as end:  # typer and rich turn a closed pipe into an exit with 1
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(_nobody_reads())
        raise
    except BrokenPipeError:
        sys.exit(_nobody_reads())
    except Exception as error:
        refused = _of_system(error)
        if refused is None:
            sys.excepthook = _print_exception  # typer has set its own
            raise
        sys.exit(_say(refused, 2))


def _of_system(error: Exception) -> str | None:
    """Say what the system refused, whichever library asked; None if it was not the system."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if (number := failed_write(error)) is not None:
        places = f"the standard output or a file in {tempfile.gettempdir()}"
        return f"{os.strerror(number)}: {places}"
    is_loop = isinstance(error, RuntimeError) and str(error).startswith("Symlink loop")
    return str(error) if isinstance(error, OSError) or is_loop else None


def _catch_signals(command: str) -> None:
    """Turn signals that stop a command into an exit, so that what it was in is left in order."""

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second one stops at once
        resumes = "; what was finished is kept, the same command resumes from there"
        sys.exit(_say("interrupted" + (resumes if command in RESUMES else ""), 128 + number))

    for number in (signal.SIGINT, signal.SIGTERM):  # schedulers send the second
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGHUP, stop)


def _nobody_reads() -> int:
    """Report a closed pipe, as that of `rkd … | head`, with the status of one that SIGPIPE ends."""
    _drop_output()
    return _say("stopped, since its output is no longer read", 128 + signal.SIGPIPE)


def _flush() -> None:
    """Write what is left of the output now, so that an error is ours to report."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise OSError(error.errno, error.strerror, "standard output") from error


def _drop_output() -> None:
    """Send what is left of the output nowhere, as Python would try to write it once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str, code: int) -> int:
    with contextlib.suppress(OSError):  # the terminal may be gone
        say(f"rkd: {text}", error=True)
    return code


class _Formatter(logging.Formatter):
    """Lines that are safe to print, whatever a record quotes."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(shown, super().format(record).split("\n")))


class _OncePerMessage(logging.Filter):
    """Passes each message once, so that every stage of a run need not repeat a warning."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        first = message not in self._seen
        self._seen.add(message)
        return first


def _print_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print a traceback, the sign of a mistake in a program, without escapes and keys."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip(), error=True)


def _quiet() -> None:
    """Show our progress bars and warnings, cleaned, and not those of a dozen libraries."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)  # bm25s sets its own logger to DEBUG
    handler.addFilter(_OncePerMessage())
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.captureWarnings(True)  # those of Python's `warnings` too
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    # models/load.py reads this; setting it through transformers here would cost seconds of import
    os.environ["RETRIEVAL_KD_QUIET"] = "1"


if __name__ == "__main__":
    main()
