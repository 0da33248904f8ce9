"""Answers of a server that are not in the store yet: whatever kills a command, no call is repeated.

Batches of answers are stored when they are complete; until then each answer is a line of a hidden
file in the teacher's folder. It is gone when the command ends and all is stored. One that a command
left that was stopped or killed is taken over by the next.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from retrieval_kd.files import digest_json, write_text
from retrieval_kd.store.shards import locked

try:
    import fcntl
except ImportError:  # no POSIX locks: do not run two commands on one teacher
    fcntl = None  # type: ignore[assignment]

LOGS = ".calls-*.jsonl"


@dataclass(frozen=True)
class Call:
    """What a server answered to a request, and what that took.

    Args:
        answer: the part of its response that is read.
        calls: requests sent until it came.
    """

    answer: dict[str, Any]
    calls: int = 1
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0


class CallLog:
    """A context manager, around everything that asks and stores.

    Example:
        >>> import tempfile
        >>> folder, request = Path(tempfile.mkdtemp()), {"prompt": "Is it?"}
        >>> try:
        ...     with CallLog(folder) as log:
        ...         log.add(request, Call({"text": "yes"}))
        ...         raise KeyboardInterrupt  # before it was stored
        ... except KeyboardInterrupt:
        ...     pass
        >>> with CallLog(folder) as log:
        ...     log.find(request).answer, len(log.left)
        ({'text': 'yes'}, 1)
        >>> list(folder.glob(LOGS))
        []
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left: list[Call] = []  # by commands before; a killed one noted no cost
        self._known: dict[str, Call] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> CallLog:
        with locked(self.folder):
            left = _left_behind(self.folder)
            path = self.folder / f".calls-{secrets.token_hex(8)}.jsonl"
            self._file = open(path, "x", encoding="utf-8")
            _lock(self._file)
            for handle in left:
                for line in handle:
                    self._take_over(line)
                Path(handle.name).unlink()
                handle.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        path = Path(self._file.name)
        if kind is None:  # all is stored
            path.unlink(missing_ok=True)
        else:  # the command still notes what it spent: the next one must not count it again
            lines = [_line(request, Call(call.answer, 0)) for request, call in self._known.items()]
            write_text(path, "".join(lines))
        self._file.close()

    def find(self, request: dict[str, Any]) -> Call | None:
        """What was answered to the very same request and is not stored yet."""
        return self._known.get(digest_json(request))

    def add(self, request: dict[str, Any], call: Call) -> None:
        """Keep an answer; when this returns it outlives the process."""
        self._write(digest_json(request), call)

    def _write(self, request: str, call: Call) -> None:
        assert self._file is not None
        self._known[request] = call
        self._file.write(_line(request, call))
        self._file.flush()

    def _take_over(self, line: str) -> None:
        try:
            told = json.loads(line)
            request, call = told.pop("request"), Call(**told)
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # torn by the kill: it is asked again
        self.left.append(call)
        self._write(request, call)


def _line(request: str, call: Call) -> str:
    return json.dumps({"request": request, **asdict(call)}) + "\n"


def _left_behind(folder: Path) -> list[IO[str]]:
    """Logs whose commands are gone, opened and locked."""
    left: list[IO[str]] = []
    for path in sorted(folder.glob(LOGS)):
        handle = path.open(encoding="utf-8", errors="replace")
        if _lock(handle):
            left.append(handle)
        else:
            handle.close()
    return left


def _lock(handle: IO[str]) -> bool:
    """Whether this process now holds the file; a killed holder lets go by dying."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
