"""The log of a command's answers: after an error or a kill, no call is made or counted twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.llm.server.budget import Stopped
from retrieval_kd.teachers.llm.server.call_log import LOGS, Call, CallLog


def test_a_log_is_removed_when_its_command_succeeds(tmp_path):
    with CallLog(tmp_path) as log:
        log.add({"prompt": "a"}, Call({"text": "b"}))
        assert log.find({"prompt": "a"}) == Call({"text": "b"}) and log.find({}) is None
    assert not list(tmp_path.glob(LOGS))


def test_after_an_error_answers_stay_and_their_cost_is_not_counted_again(tmp_path):
    with pytest.raises(Stopped), CallLog(tmp_path) as log:
        log.add({"prompt": "a"}, Call({"text": "b"}, prompt_tokens=9))
        raise Stopped("enough")  # the command notes what it spent, whatever ends it
    with CallLog(tmp_path) as log:
        assert log.find({"prompt": "a"}).answer == {"text": "b"}
        assert sum(call.prompt_tokens + call.calls for call in log.left) == 0


KILLED = """
import sys, time
from pathlib import Path
from retrieval_kd.teachers.llm.server.call_log import Call, CallLog
with CallLog(Path(sys.argv[1])) as log:
    for prompt in "ab":
        log.add({"prompt": prompt}, Call({"text": prompt}, prompt_tokens=9))
    log._file.write('{"request": "torn')
    log._file.flush()
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_running_commands_log_bars_the_next_and_a_killed_ones_is_taken_over(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    told = rf"another command \(process {process.pid}\) is paying .* To fix: wait for it"
    with pytest.raises(InputError, match=told), CallLog(tmp_path):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with CallLog(tmp_path) as log:
        assert [log.find({"prompt": prompt}).answer["text"] for prompt in "ab"] == ["a", "b"]
        assert sum(call.prompt_tokens for call in log.left) == 18
        assert len(list(tmp_path.glob(LOGS))) == 1
    assert not list(tmp_path.glob(LOGS))


def test_a_command_killed_while_it_takes_over_a_log_counts_no_cost_twice(tmp_path):
    call = {"answer": {"text": "b"}, "calls": 1, "prompt_tokens": 9, "seconds": 0.25}
    for name in (".calls-1.jsonl", ".calls-2.jsonl"):  # copied, and the original not yet deleted
        (tmp_path / name).write_text(json.dumps({"request": "a1", **call}) + "\n")
    with CallLog(tmp_path) as log:
        assert sum(call.prompt_tokens for call in log.left) == 9


def test_a_log_holds_answers_and_no_prompts(tmp_path):
    with CallLog(tmp_path) as log:
        log.add({"prompt": "private"}, Call({"text": "b"}))
        [path] = tmp_path.glob(LOGS)
        [line] = path.read_text().splitlines()
    assert "private" not in line and json.loads(line)["answer"] == {"text": "b"}
