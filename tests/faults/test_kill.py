from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.faults.counting_server import Call, Repeats, repeats


def test_killed_commands_end_the_same_and_ask_nothing_twice() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.faults.kill",
        "6",
        "1",
        "score",
        "index",
        "server lists",
    ]
    ran = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    counts = json.loads(ran.stdout.splitlines()[-1])
    assert sum(count["kills"] for count in counts.values()) == 6
    for count in counts.values():
        assert count["problems"] == []
        assert count["same"] == count["resumed"]
        assert count["redone"] == count["repeated"] == 0


def test_only_the_last_call_of_a_connection_was_in_flight() -> None:
    killed = [Call(1, 80, "a"), Call(1, 81, "b"), Call(1, 80, "c")]
    assert repeats(killed) == Repeats(0, 0)
    assert repeats([*killed, Call(2, 82, "c"), Call(2, 82, "b")]) == Repeats(0, 2)
    assert repeats([*killed, Call(2, 82, "a")]) == Repeats(1, 0)
