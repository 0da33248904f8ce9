"""Writing is atomic, and destroys nothing but the file that is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from retrieval_kd.cli.app import app
from retrieval_kd.errors import InputError
from retrieval_kd.files import SEAL, DamagedFile, check_replaceable, damage, read_json, write_text


def test_a_device_a_pipe_and_a_folder_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in ("/dev/null", "/dev/stdout", "/dev/fd/2", tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(InputError, match="a device or a pipe"):
            write_text(path, "x")
    with pytest.raises(InputError, match="this is a folder"):
        write_text(tmp_path, "x")
    assert Path("/dev/null").is_char_device() and (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_what_the_shell_has_opened_is_not_replaced(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as handle:
        with pytest.raises(InputError, match="a device or a pipe"):
            write_text(f"/dev/fd/{handle.fileno()}", "x")


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    for text in ("one", "two"):
        write_text(tmp_path / "link", text)
        assert (tmp_path / "there" / "file").read_text() == text
    assert (tmp_path / "link").is_symlink()


def test_a_command_refuses_a_device_before_it_works(tmp_path: Path) -> None:
    arguments = ["retrieve", "--collection", "nowhere", "--out", "/dev/null"]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, InputError) and error.file == Path("/dev/null")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\ud800", "[" * 10**5, '{"a": 1'])
def test_damaged_json_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with pytest.raises(DamagedFile, match=r"a\.json: .*To fix"):
        read_json(path)


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    check_replaceable(tmp_path, "dense", "parts")
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="does not hold parts, and would be replaced"):
        check_replaceable(tmp_path, "dense", "parts")
    (tmp_path / "dense").mkdir()
    check_replaceable(tmp_path, "dense", "parts")
    with pytest.raises(InputError, match="this is no folder"):
        check_replaceable(tmp_path / "mine", "dense", "parts")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"files": 3}'])
def test_a_seal_that_is_none_is_named_as_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / SEAL).write_text(text)
    assert damage(tmp_path, None) == "its seal.json is damaged"
