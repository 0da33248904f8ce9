"""`rkd score` as a user types it."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from retrieval_kd.cli.app import app
from retrieval_kd.errors import InputError


def words(collection: Path, candidates: Path, store: Path, teacher: str, *more: str) -> list[str]:
    """The command's arguments."""
    return [
        "score", "--collection", str(collection), "--candidates", str(candidates),
        "--store", str(store), "--teacher", teacher, *more,
    ]  # fmt: skip


def rkd(arguments: list[str]) -> str:
    """What it prints.

    Raises:
        InputError: what `rkd` would say in one line.
    """
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, InputError):
        raise result.exception
    # With a random model all answers may be unreadable: nothing is scored, which is status 1.
    unreadable = result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.exit_code == 0 or unreadable, f"{result.output}\n{result.exception!r}"
    return result.stdout
