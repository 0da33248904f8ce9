"""Stages on disk: which are done, which must run again, and what each one cost.

A stage's key is the digest of its settings and of the keys of what it builds on. So a changed
setting reruns exactly what depends on it, and a plan is known without running anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_json, digest_text, read_json, write_json


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    `run` leaves `outputs` (paths in the workspace) and may give facts to remember. `settings` are
    everything it depends on besides the stages in `needs`; `about` says in words how much it is.
    """

    name: str
    run: Callable[[], dict[str, Any] | None]
    outputs: tuple[str, ...]
    settings: Any
    needs: tuple[str, ...] = ()
    about: str = ""


class Workspace:
    """A pipeline's folder: its stages' records in `.stages/`, their outputs beside it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.stages: list[Stage] = []
        self._keys: dict[str, str] = {}

    def add(self, stage: Stage) -> None:
        """Append a stage; what it needs must have been added before."""
        upstream = [self._keys[name] for name in stage.needs]
        self._keys[stage.name] = digest_json([stage.name, stage.settings, upstream])
        self.stages.append(stage)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def done(self, stage: Stage) -> bool:
        """Whether the stage has run with these settings and its outputs are still there."""
        record = self.record(stage.name)
        there = all(self.path(output).exists() for output in stage.outputs)
        return there and record.get("key") == self._keys[stage.name]

    def record(self, name: str) -> dict[str, Any]:
        """What is known of a stage that ran: key, seconds, facts; empty if it did not."""
        path = self._record_path(name)
        return read_json(path) if path.exists() else {}

    def execute(self, before: Callable[[Stage, bool, str], None]) -> list[str]:
        """Run what is not done, in order; gives the names of the stages that ran.

        Args:
            before: called with each stage, whether it is done already, and its number, as in 3/19.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            remedy = "wait for it, or give this run another `out`"
            raise InputError(
                "another run is at work here", file=self.folder, remedy=remedy
            ) from error
        try:
            return self._execute(before)
        finally:
            lock.release()

    def todo(self) -> list[Stage]:
        """What would run: stages that are not done, and all that builds on them."""
        waiting: list[Stage] = []
        for stage in self.stages:
            names = {other.name for other in waiting}
            if not self.done(stage) or names.intersection(stage.needs):
                waiting.append(stage)
        return waiting

    def _execute(self, before: Callable[[Stage, bool, str], None]) -> list[str]:
        ran = []
        waiting = {stage.name for stage in self.todo()}
        for number, stage in enumerate(self.stages, start=1):
            before(stage, stage.name not in waiting, f"{number}/{len(self.stages)}")
            if stage.name not in waiting:
                continue
            # From here on the outputs are those of no settings, until the stage is through.
            self._record_path(stage.name).unlink(missing_ok=True)
            started = time.monotonic()
            facts = stage.run() or {}
            seconds = round(time.monotonic() - started, 2)
            record = {"key": self._keys[stage.name], "seconds": seconds, "facts": facts}
            write_json(self._record_path(stage.name), record)
            ran.append(stage.name)
        return ran

    def seconds(self, names: Iterable[str]) -> float:
        """What the named stages took when they ran (s)."""
        return sum(float(self.record(name).get("seconds", 0.0)) for name in names)

    def _record_path(self, name: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        return self.path(".stages", f"{safe}-{digest_text(name)[:6]}.json")
