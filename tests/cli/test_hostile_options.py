"""Whatever an option says, a command gives a result or one line that says what is wrong with it."""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.cli.app import app
from tests.cli.hostile import CALLS, Call, Option, add_special, everything, execute, write_world
from tests.mutations import FEW

EVERYTHING = list(everything(app))
LONGEST = 2_000  # characters of a message
KEPT = {"usage.jsonl", ".lock"}  # what a refused call may leave: the record of a server's calls
# values tried of each option, and pairs of each command; raise it for a long night
MANY = int(os.environ.get("RETRIEVAL_KD_HOSTILE", 3))


class World:
    """What the calls read; put back when a call that succeeds has written over it."""

    def __init__(self, top: Path, models: dict[str, Path], collection: Path) -> None:
        self.top, self.whole = top / "w", top / "whole"
        self.top.mkdir(parents=True)
        self.names = write_world(self.top, models, collection)
        shutil.copytree(self.top, self.whole)
        self.restore()

    def restore(self) -> None:
        shutil.rmtree(self.top)
        shutil.copytree(self.whole, self.top)
        add_special(self.names)
        self.was = self.state()

    def state(self) -> list[tuple[str, int, int]]:
        found = []
        for folder, folders, files in os.walk(self.top):
            for name in (*folders, *files):
                about = os.lstat(path := os.path.join(folder, name))
                size = 0 if name in folders else about.st_size
                found.append((path, size, 0 if name in folders else about.st_mtime_ns))
        return sorted(found)

    def call(self, call: Call) -> tuple[int, str]:
        """Execute a call in an empty folder, and check what holds of every call."""
        names = self.names
        line = [re.sub(r"\{(\w+)\}", lambda m: names.get(m[1], m[0]), w) for w in call.line()]
        with tempfile.TemporaryDirectory() as folder:
            here = os.getcwd()
            os.chdir(folder)
            try:
                code, said = execute(line)
            finally:
                os.chdir(here)
            check(code, said)
            now = self.state()
            if code == 2:
                left = [file.name for file in Path(folder).rglob("*") if file.is_file()]
                assert {*left} <= KEPT, f"left behind: {left}"
                assert now == self.was, set(now) ^ set(self.was)
            elif now != self.was:
                self.restore()
        return code, said


def check(code: int, said: str) -> None:
    assert code in (0, 1, 2)
    assert "Traceback" not in said, said
    hidden = {c for c in said if not c.isprintable() and c != "\n"}
    assert not hidden, (hidden, said)
    said.encode()
    if code == 2 and not said.startswith("Usage: "):
        told = [line for line in said.splitlines() if line.startswith("rkd: ")]
        assert len(told) == 1 and said.endswith(told[0] + "\n") and len(told[0]) < LONGEST, said


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_collection, tiny_encoder, tiny_cross_encoder, tiny_decoder):
    models = {"encoder": tiny_encoder, "cross": tiny_cross_encoder, "decoder": tiny_decoder}
    return World(tmp_path_factory.mktemp("hostile"), models, tiny_collection)


def call_with(option: Option) -> Call:
    """The cheap call of a command that has this option, or else the first one."""
    calls = [call for call in CALLS if call.path == option.path]
    return next((call for call in calls if option.is_in(call)), calls[0])


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call.path))
def test_the_calls_work_as_they_are(world, call) -> None:
    code, said = world.call(call)
    assert code == call.code, said


def test_every_option_is_found() -> None:
    assert {("search", "#0"), ("train", "--weight"), ("teach compare", "--worst")} < {
        (" ".join(option.path), option.name) for option in EVERYTHING
    }
    assert len(EVERYTHING) > 200


@pytest.mark.parametrize("option", EVERYTHING, ids=str)
def test_a_hostile_value(world, option) -> None:
    call = call_with(option)
    values = option.values
    for value in random.Random(str(option)).sample(values, min(MANY, len(values))):
        code, said = world.call(option.put(call, value))
        assert code == 2 or option.allows(value), (value, said)


REQUIRED = [option for option in EVERYTHING if option.required]


@pytest.mark.parametrize("option", REQUIRED, ids=str)
def test_what_is_required_is_asked_for(world, option) -> None:
    code, said = world.call(option.without(call_with(option)))
    assert code == 2 and "Missing" in said and "To fix: add it" in said, said


@pytest.mark.parametrize("path", sorted({option.path for option in EVERYTHING}), ids=" ".join)
@settings(FEW, max_examples=MANY)
@given(data=st.data())
def test_two_hostile_values(world, path, data) -> None:
    options = [option for option in EVERYTHING if option.path == path]
    call = data.draw(st.sampled_from([call for call in CALLS if call.path == path]))
    for option in data.draw(st.lists(st.sampled_from(options), min_size=2, max_size=2)):
        call = option.put(call, data.draw(st.sampled_from(option.values)))
    world.call(call)
