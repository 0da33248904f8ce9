"""Every number that a command takes is refused where it makes no sense, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.models import OptionInfo

from retrieval_kd.cli.app import app, main
from retrieval_kd.cli.options import check_parent
from retrieval_kd.errors import InputError

HOSTILE = {
    "int": ["-1", "99999999999999999999", "-99999999999999999999", "nan", "1.5"],
    "float": ["-1", "nan", "inf", "-inf", "1e999"],
}


def numbers(app: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, str, str]]:
    """Each option that is a number: its command, its flag and its type."""
    for group in app.registered_groups:
        yield from numbers(group.typer_instance, (*path, str(group.name)))
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        for option, hint in get_type_hints(command.callback, include_extras=True).items():
            kind = next((kind for kind in HOSTILE if kind in str(get_args(hint)[:1])), None)
            if kind is not None:
                [about] = [given for given in get_args(hint) if isinstance(given, OptionInfo)]
                flag = [*(about.param_decls or ()), f"--{option.replace('_', '-')}"][0]
                yield (*path, name), flag, kind


OPTIONS = list(numbers(app))


def test_options_that_are_numbers_are_found() -> None:
    found = {(*path, flag) for path, flag, _ in OPTIONS}
    assert {
        ("index", "build", "--max-length"),
        ("train", "--weight"),
        ("teach", "compare", "--worst"),
    } < found
    assert len(found) > 30


@pytest.mark.parametrize(("path", "flag", "kind"), OPTIONS, ids=lambda value: "".join(value))
def test_a_hostile_number_is_one_line_that_names_the_option(path, flag, kind, capsys) -> None:
    for value in HOSTILE[kind]:
        with pytest.raises(SystemExit) as end:
            main([*path, f"{flag}={value}"])
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.count("\n") == 1, error
        assert f"Invalid value for '{flag}'" in error and "To fix" in error, error


@pytest.mark.parametrize("length", [0, 1, 7, 1_000_001])
@pytest.mark.parametrize("command", ["retrieve", "index", "score", "fit-teacher", "suite"])
def test_a_length_has_the_bounds_of_a_configuration(command, length, capsys) -> None:
    with pytest.raises(SystemExit):
        main([command, "--max-length", str(length)])
    assert "Invalid value for '--max-length'" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file/x.json", "file/x/y.json", "a/" * 300 + "x.json"])
def test_a_place_where_nothing_can_be_written_is_refused_at_once(tmp_path: Path, place) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no file can be written there"):
        check_parent(tmp_path / place)
    check_parent(tmp_path / "new" / "x.json")
