"""Kills commands of `rkd` at random moments, resumes them, and compares what they leave.

One process imports everything and forks for each attempt, so that a kill costs no imports. A moment
is the n-th change of a file or folder, a share of the command's time, or the n-th question to a
server, before or after its answer. So kills meet the narrow gaps between two renames as well as the
middle of a write.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import openai  # noqa: F401  as the next ones: imported once, not by each child
import ranx  # noqa: F401
import sklearn.linear_model  # noqa: F401
import torch

import retrieval_kd.evaluation.diagnostics.diagnose
import retrieval_kd.evaluation.report.page
import retrieval_kd.indexing.build
import retrieval_kd.indexing.multi_vector
import retrieval_kd.pipeline.plan
import retrieval_kd.pipeline.results
import retrieval_kd.pipeline.train_stored
import retrieval_kd.retrieval.retrieve  # noqa: F401
from retrieval_kd.cli.app import main as rkd
from retrieval_kd.files import read_json
from retrieval_kd.models import encode
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.teachers import score
from retrieval_kd.teachers.comparing.listwise import ListwiseTeacher
from retrieval_kd.teachers.comparing.pairwise import PairwiseTeacher
from tests.faults.commands import CONCURRENCY, Inputs, calls_recorded, left_over
from tests.faults.counting_server import CountingServer, counting_server, repeats

KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)  # statuses
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PIECES = (
    "shard-*.parquet",
    ".shards-*/*.npz",
    "seal.json",
    ".stages/*.json",
    "index/manifest.json",
    "indexes/*/manifest.json",
)
AT_WORK = (".part", ".saving", ".old")  # ends of the names of folders that are not finished
SHARE_TERM = 0.2  # of the kills, with SIGTERM in place of SIGKILL

Stamp = tuple[int, int]  # a file's number and time of change


class Moment(NamedTuple):
    """When a command gets which signal: at a change, after seconds, or at a call; 0 is never."""

    signal: int = signal.SIGKILL
    change: int = 0
    seconds: float = 0.0
    call: int = 0
    answered: bool = False  # after that call's answer, not before


@dataclass
class Whole:
    """A command that was left alone."""

    result: Any
    seconds: float
    changes: int
    calls: int


@dataclass
class Count:
    """What became of the kills of one kind of command."""

    kills: int = 0
    terms: int = 0  # of the kills, by SIGTERM
    resumed: int = 0  # commands that were killed once or more, and resumed until done
    same: int = 0  # of these, ended in the result of a command left alone
    redone: int = 0  # finished pieces that were made again
    calls: int = 0
    repeated: int = 0  # calls whose answer had come
    in_flight: int = 0  # calls whose answer had not come, made again
    left: dict[str, int] = field(default_factory=dict)  # what nothing needs any more
    problems: list[str] = field(default_factory=list)


class Killer:
    """All commands, run once in `folder` without a kill."""

    def __init__(
        self, folder: Path, seed: int, server: CountingServer, names: Sequence[str]
    ) -> None:
        self.folder, self.dice, self.server = folder, random.Random(seed), server
        inputs = Inputs(folder / "inputs")
        inputs.folder.mkdir(parents=True)
        in_child(inputs.write)
        self._changes = mmap.mmap(-1, 8)  # shared with children: how many they made
        for words in inputs.first():
            assert self._attempt(words, inputs.folder) == 0, _log(inputs.folder)
        every = inputs.commands(server.url)
        self.commands = {name: every[name] for name in names or every}
        self.whole = {name: self._run_whole(name) for name in self.commands}
        self.counts: dict[str, Count] = defaultdict(Count)
        self._cases = 0

    def _run_whole(self, name: str) -> Whole:
        folder, command = self.folder / "whole" / name, self.commands[name]
        folder.mkdir(parents=True)
        started = time.monotonic()
        self.server.clear()
        assert self._attempt(command.words(folder), folder) == 0, _log(folder)
        seconds, changes = time.monotonic() - started, self._made()
        calls = self.server.calls() if command.calls else []
        assert repeats(calls) == (0, 0)
        return Whole(in_child(lambda: command.result(folder)), seconds, changes, len(calls))

    def kill(self, name: str, most: int) -> None:
        """Run a command in a new folder; kill it once or a few times in a row; let it end."""
        command, count = self.commands[name], self.counts[name]
        self._cases += 1
        folder = self.folder / "killed" / f"{self._cases} {name}"
        folder.mkdir(parents=True)
        self.server.clear()
        kept: dict[Path, Stamp] = {}
        moments = [self._moment(name, n) for n in range(min(most, self.dice.randint(1, 4)))]
        hit = []
        for moment in [*moments, Moment()]:
            status = self._attempt(command.words(folder), folder, moment)
            redone = [piece for piece, stamp in kept.items() if _redone(piece, stamp)]
            count.redone += len(redone)
            count.problems += [f"{folder.name}: made again: {piece} {hit}" for piece in redone]
            kept = {piece: stamp for piece, stamp in kept.items() if piece not in redone}
            if status == 0:
                break
            if status not in KILLED:
                count.problems.append(f"{folder.name}: {hit}, status {status}\n{_log(folder)}")
                break
            hit.append(moment)
            kept |= _pieces(folder)
        if hit:
            count.kills += len(hit)
            count.terms += sum(moment.signal == signal.SIGTERM for moment in hit)
            self._compare(name, folder, hit, kept)
            print(f"{folder.name}: {len(hit)} kills", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(folder)

    def _compare(self, name: str, folder: Path, hit: list[Moment], kept: dict[Path, Stamp]) -> None:
        command, count, whole = self.commands[name], self.counts[name], self.whole[name]
        count.resumed += 1
        try:
            same = in_child(lambda: command.result(folder)) == whole.result
        except RuntimeError as error:
            same = False
            count.problems.append(str(error))
        count.same += same
        for name in left_over(folder):
            count.left[name] = count.left.get(name, 0) + 1
        restarted = _restarted(folder, kept) if same else 0
        count.redone += restarted
        problems = ["a training restarted"] * restarted if same else ["another result"]
        if command.calls:
            calls = self.server.calls()
            again = repeats(calls)
            count.calls += len(calls)
            count.repeated += again.answered
            count.in_flight += again.in_flight
            if again.answered:
                problems.append(f"{again.answered} answered calls repeated")
            # a client counts what it has begun to send, and the server what has come
            if calls_recorded(folder) > len(calls) + CONCURRENCY * len(hit):
                problems.append(f"{calls_recorded(folder)} calls recorded of {len(calls)}")
        count.problems += [f"{folder.name}: {problem} {hit}" for problem in problems]
        if not problems:
            shutil.rmtree(folder)

    def _moment(self, name: str, number: int) -> Moment:
        whole, dice = self.whole[name], self.dice
        how = signal.SIGTERM if dice.random() < SHARE_TERM else signal.SIGKILL
        share = dice.random() * (1.0 if number == 0 else 0.5)  # a resumed command has less to do
        kind = dice.random()
        if whole.calls and kind < 0.5:
            call = 1 + int(share * whole.calls)
            return Moment(how, call=call, answered=dice.random() < 0.5)
        if kind < 0.75:
            return Moment(how, change=1 + int(share * whole.changes))
        return Moment(how, seconds=share * whole.seconds)

    def _attempt(self, words: list[str], folder: Path, moment: Moment = Moment()) -> int:
        """Run a command in a child; returns its status, negative if a signal ended it."""
        child = os.fork()
        if child == 0:
            self._in_child(words, folder, moment)
        if moment.seconds:
            time.sleep(moment.seconds)
            os.kill(child, moment.signal)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def _in_child(self, words: list[str], folder: Path, moment: Moment) -> None:
        code = 70
        try:
            out = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.environ["RETRIEVAL_KD_CACHE"] = str(folder / "cache")
            in_small_parts()
            self.server.begin(moment.call, moment.signal, answered=moment.answered)
            self._watch(str(folder), moment)
            rkd(words)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _watch(self, folder: str, moment: Moment) -> None:
        """Count this process's changes in the folder; end it before the one of the moment."""
        made = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal made
            if event == "open":
                changes = isinstance(arguments[2], int) and arguments[2] & FOR_WRITING
            else:
                changes = event in CHANGES
            if changes and (str(arguments[0]).startswith(folder) or _relative(event, arguments)):
                made += 1
                self._changes[:] = made.to_bytes(8, "little")
                if made == moment.change:
                    os.kill(os.getpid(), moment.signal)

        sys.addaudithook(hook)

    def _made(self) -> int:
        return int.from_bytes(self._changes[:], "little")


def _relative(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether the path is relative to an open folder, as where a whole folder is deleted."""
    return event in ("os.remove", "os.rmdir") and arguments[-1] != -1


def in_small_parts() -> None:
    """Store the work of tiny models in as many parts as that of large ones."""
    score.SHARD_PAIRS = score.SERVER_SHARD_PAIRS = 16
    encode._shard_size = lambda: 10  # type: ignore[assignment]
    AnswerStore.writer.__defaults__ = (16, 30.0)  # type: ignore[attr-defined]
    for teacher in (ListwiseTeacher, PairwiseTeacher):
        teacher.__init__.__kwdefaults__["at_once"] = 16  # type: ignore[misc]


def in_child(function: Callable[[], Any]) -> Any:
    """Return what a function returns in a forked process; this one starts no thread by it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result: Any = (True, function())
        except BaseException:
            result = (False, traceback.format_exc())
        with os.fdopen(write, "wb") as out:
            pickle.dump(result, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as source:
        good, value = pickle.load(source)
    os.waitpid(child, 0)
    if not good:
        raise RuntimeError(value)
    return value


def _pieces(folder: Path) -> dict[Path, Stamp]:
    """The finished pieces in a folder: what no resumed command may make again."""
    found = [path for pattern in PIECES for path in folder.rglob(pattern)]
    whole = [p for p in found if not any(part.endswith(AT_WORK) for part in p.parts)]
    stats = [(path, path.stat()) for path in whole]
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats}


def _redone(piece: Path, stamp: Stamp) -> bool:
    """Whether a finished piece was changed, or has gone and is not part of a greater one."""
    if piece.exists():
        return (piece.stat().st_ino, piece.stat().st_mtime_ns) != stamp
    if piece.suffix == ".npz":  # merged
        return not (piece.parents[1] / "seal.json").exists()
    return not piece.parent.name.startswith("checkpoint-")


def _restarted(folder: Path, kept: dict[Path, Stamp]) -> int:
    """Count the checkpoints, finished before a kill, that their training did not resume from."""
    count = 0
    for piece in kept:
        checkpoint, work = piece.parent, piece.parents[1]
        student = work.parent / work.name[1:].removesuffix(".training")
        if checkpoint.name.startswith("checkpoint-") and student / "seal.json" not in kept:
            resumed = read_json(student / "training.json")["resumed_from_step"]
            count += resumed < int(checkpoint.name.removeprefix("checkpoint-"))
    return count


def _log(folder: Path) -> str:
    return (folder / "log").read_text()[-2_000:]


def kill_all(
    folder: Path, kills: int, seed: int, names: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Kill commands so often, all kinds equally often; returns the counts by kind."""
    with counting_server() as server:
        killer = Killer(folder, seed, server, names)
        turn = list(killer.commands)
        shares = {
            name: kills // len(turn) + (at < kills % len(turn)) for at, name in enumerate(turn)
        }
        for name, share in shares.items():
            while (missing := share - killer.counts[name].kills) > 0:
                killer.kill(name, missing)
    return {name: asdict(count) for name, count in killer.counts.items()}


def main() -> None:
    """Print the counts as JSON: `python -m tests.faults.kill KILLS SEED [COMMAND …]`."""
    kills, seed, *names = sys.argv[1:]
    torch.set_num_threads(1)  # a process with threads cannot be forked
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(kill_all(Path(folder), int(kills), int(seed), names)))


if __name__ == "__main__":
    main()
