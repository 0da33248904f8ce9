"""The stages of a pipeline on disk: which are done, which must run again, what each one took.

A stage's key is the digest of its settings and of the keys of the stages it needs. So a changed
setting runs exactly those stages again that depend on it, and this is known without running any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retrieval_kd.errors import InputError, log
from retrieval_kd.files import (
    DamagedFile,
    digest_file,
    digest_json,
    digest_text,
    is_whole,
    read_sealed,
    sealed,
    sweep,
    write_json,
)


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    Attributes:
        name: unique in the workspace; the stage's record is kept under it.
        run: writes `outputs` (paths in the workspace); may return facts for the record.
        settings: all that decides the outputs, besides the stages in `needs`.
        label: the name shown to users; the name itself if empty.
    """

    name: str
    run: Callable[[], dict[str, Any] | None]
    outputs: tuple[str, ...]
    settings: Any
    needs: tuple[str, ...] = ()
    label: str = ""

    @property
    def title(self) -> str:
        """The name shown to users."""
        return self.label or self.name


class Workspace:
    """A pipeline's folder: its stages' records in `.stages/`, their outputs beside it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.stages: list[Stage] = []
        self.keys: dict[str, str] = {}

    def add(self, stage: Stage) -> None:
        """Append a stage; the stages it needs must have been added before."""
        upstream = [self.keys[name] for name in stage.needs]
        self.keys[stage.name] = digest_json([stage.name, stage.settings, upstream])
        self.stages.append(stage)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def done(self, stage: Stage) -> bool:
        """Whether the stage has run with this key and its outputs are as it left them."""
        record = self.record(stage.name)
        if record.get("key") != self.keys[stage.name]:
            return False
        if not all(is_whole(self.path(output), unsealed=True) for output in stage.outputs):
            return False
        files = record.get("files", {})
        changed = [name for name in stage.outputs
                   if name in files and files[name] != digest_file(self.path(name))]  # fmt: skip
        if changed:
            log.warning("%s: %s has changed, so %s runs again", self.folder, changed[0], stage.name)
        return not changed

    def record(self, name: str) -> dict[str, Any]:
        """Return the record of a stage that ran: key, seconds, facts; empty if it did not.

        A damaged record counts as none.
        """
        try:
            return read_sealed(self._record_path(name))
        except (OSError, DamagedFile):
            return {}

    def execute(self, before: Callable[[Stage, bool, str], None]) -> list[str]:
        """Run the stages that are not done, in order; returns the names of those that ran.

        Args:
            before: called with each stage, whether it is done already, and its number, as in 3/19.
        """
        self.check_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            remedy = "wait for it, or give this run a different `out`"
            raise InputError(
                "another run is at work here", file=self.folder, remedy=remedy
            ) from error
        try:
            for stage in self.stages:  # what a killed run left
                for path in (self._record_path(stage.name), *map(self.path, stage.outputs)):
                    sweep(path.parent, path.name)
            return self._execute(before)
        finally:
            lock.release()

    def check_folder(self) -> None:
        """Refuse a file, and a folder whose files are not of a run but would be replaced by it."""
        place = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        if not place.is_dir():
            problem = "this is a file, and a folder is to be written"
            raise InputError(problem, file=place, remedy="give a different `out`")
        if self.path(".stages").exists() or self.path(".lock").exists():
            return
        outputs = (self.path(name) for stage in self.stages for name in stage.outputs)
        found = next((path for path in outputs if path.is_file()), None)
        if found is not None:
            problem = "this file is not of an earlier run, and would be replaced"
            raise InputError(problem, file=found, remedy="give a different `out`")

    def todo(self) -> list[Stage]:
        """Return what would run: stages that are not done, and all that depend on them."""
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
            # Until the stage is through, its outputs belong to no key.
            self._record_path(stage.name).unlink(missing_ok=True)
            started = time.monotonic()
            facts = stage.run() or {}
            seconds = round(time.monotonic() - started, 2)
            files = [name for name in stage.outputs if self.path(name).is_file()]
            record = {
                "key": self.keys[stage.name],
                "seconds": seconds,
                "facts": facts,
                "files": {name: digest_file(self.path(name)) for name in files},
            }
            write_json(self._record_path(stage.name), sealed(record))
            ran.append(stage.name)
        return ran

    def seconds(self, names: Iterable[str]) -> float:
        """Return the seconds that the named stages took when they ran."""
        return sum(float(self.record(name).get("seconds", 0.0)) for name in names)

    def _record_path(self, name: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        return self.path(".stages", f"{safe}-{digest_text(name)[:6]}.json")
