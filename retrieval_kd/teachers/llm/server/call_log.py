"""A log of a server's answers that are not in the store yet, so that no paid call is repeated.

Answers are stored in complete batches; until then each is a line of a hidden file in the teacher's
folder. The file is deleted when the command ends and all answers are stored. The next command takes
over the file of a command that was stopped or killed. Two commands at once would not see each
other's answers, so the second is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pydantic import NonNegativeFloat, NonNegativeInt, TypeAdapter

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_json, named_writes, write_text
from retrieval_kd.store.shards import locked
from retrieval_kd.teachers.llm.server.checks import CHOICE, Form

try:
    import fcntl
except ImportError:  # no POSIX locks, so nothing is refused: do not run two commands on one teacher
    fcntl = None  # type: ignore[assignment]

LOGS = ".calls-*.jsonl"


@dataclass(frozen=True)
class Call:
    """A server's answer to a request, and what it took.

    Args:
        answer: what is read of the response; empty where it is kept elsewhere.
        calls: requests sent until it came.
    """

    answer: dict[str, Any]
    calls: NonNegativeInt = 1
    prompt_tokens: NonNegativeInt = 0
    answer_tokens: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0


CALL = TypeAdapter(Call)


class CallLog:
    """A context manager around everything that queries the server and stores answers.

    Raises:
        InputError: another command queries the server for the same teacher now.

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
        # taken over from earlier commands; a killed one recorded no cost
        self.left: list[Call] = []
        self._calls: dict[str, Call] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> CallLog:
        with locked(self.folder):
            left = _left_behind(self.folder)
            path = self.folder / f".calls-{os.getpid()}-{secrets.token_hex(8)}.jsonl"
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
        with self._file, locked(self.folder):  # so that no other command takes over half of it
            if kind is None:  # all answers are stored
                path.unlink(missing_ok=True)
            else:  # zero calls: this command records their cost itself
                kept = [_line(request, Call(c.answer, 0)) for request, c in self._calls.items()]
                write_text(path, "".join(kept))

    def find(self, request: dict[str, Any], form: Form = CHOICE) -> Call | None:
        """The logged answer to exactly this request, if there is one that can be true."""
        call = self._calls.get(digest_json(request))
        with contextlib.suppress(ValueError):  # it cannot be true: paid for, and repeated
            return call and replace(call, answer=form.check(call.answer, request))
        return None

    def add(self, request: dict[str, Any], call: Call) -> None:
        """Log an answer; after this call it survives the process."""
        self._write(digest_json(request), call)

    def _write(self, request: str, call: Call) -> None:
        assert self._file is not None
        self._calls[request] = call
        with named_writes(self._file.name):
            self._file.write(_line(request, call))
            self._file.flush()

    def _take_over(self, line: str) -> None:
        try:
            row = json.loads(line)
            request, call = str(row.pop("request")), CALL.validate_python(row)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # incomplete because of a kill: the call is repeated
        if self._calls.get(request) == call:  # its copy, of a command killed while it took over
            return
        self.left.append(call)
        self._write(request, call)


def _line(request: str, call: Call) -> str:
    return json.dumps({"request": request, **asdict(call)}) + "\n"


def _left_behind(folder: Path) -> list[IO[str]]:
    """Open and lock the logs of ended commands; refuse to work beside one that has not ended."""
    left: list[IO[str]] = []
    for path in sorted(folder.glob(LOGS)):
        handle = path.open(encoding="utf-8", errors="replace")
        if not _lock(handle):
            for other in (*left, handle):
                other.close()
            raise InputError(
                f"another command (process {path.name.split('-')[1]}) is paying for answers of "
                "this teacher",
                file=folder,
                remedy="wait for it; what it has stored is then not paid for again",
            )
        left.append(handle)
    return left


def _lock(handle: IO[str]) -> bool:
    """Try to lock the file for this process; the lock of a killed process is released."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
