"""Reads the files of a folder or zip, plain or gzipped, line by line.

Handles encodings, byte order marks, blank lines and damaged archives. The readers parse the lines.
"""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from retrieval_kd.data.rows import Reading
from retrieval_kd.errors import InputError

UTF8_MARK, UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
MOST_FILES = 100_000


class Line(NamedTuple):
    """A line's number (from 1) and its text without the line end."""

    number: int
    text: str


class Source:
    """The files of a folder or zip, by relative name.

    Example:
        >>> import tempfile; folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.tsv").write_text("1\\tx\\n\\n2\\ty\\n")
        >>> source = Source(folder); source.names
        ['a.tsv']
        >>> [line.number for line in source.lines("a.tsv", Reading())]
        [1, 3]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.is_zip = not self.path.is_dir()
        self._zip = _open_zip(self.path) if self.is_zip else None
        self._sizes = self._list()
        self.names = sorted(self._sizes)

    def _list(self) -> dict[str, int]:
        if self._zip is not None:
            return {i.filename: i.file_size for i in self._zip.infolist() if not i.is_dir()}
        sizes: dict[str, int] = {}
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in (Path(folder) / n for n in names if not n.startswith(".")):
                if file.is_file():
                    sizes[file.relative_to(self.path).as_posix()] = file.stat().st_size
            if len(sizes) > MOST_FILES:
                problem = f"more than {MOST_FILES} files below this folder"
                raise InputError(problem, file=self.path, remedy="name the collection's own folder")
        return sizes

    @property
    def name(self) -> str:
        return self.path.stem if self.is_zip else self.path.resolve().name

    def label(self, name: str) -> str:
        """A file's name in messages: its path, through the zip if it is in one."""
        return f"{self.path}/{name}"

    def total(self, names: list[str]) -> int:
        """Bytes by which `lines` advances the progress for these files."""
        return sum(self._sizes[name] for name in names)

    def key(self, names: list[str]) -> list[Any]:
        """A key that changes when one of these files, or their zip, changes."""
        files = [self.path] if self.is_zip else [self.path / name for name in sorted(names)]
        stats = [(str(f.resolve()), f.stat()) for f in files]
        return [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats] + sorted(names)

    def one(self, name: str) -> str | None:
        """Return `name` or `name.gz`, whichever exists; both at once are an error."""
        present = [n for n in (name, f"{name}.gz") if n in self._sizes]
        if len(present) == 2:
            problem = f"{name} is here both plain and gzipped"
            raise InputError(problem, file=self.path, remedy="keep one of the two")
        return present[0] if present else None

    def lines(self, name: str, reading: Reading, *, keep_blank: bool = False) -> Iterator[Line]:
        """Stream a file's lines; blank lines are skipped and counted, unless `keep_blank`."""
        label = self.label(name)
        try:
            raw = self._zip.open(name) if self._zip else (self.path / name).open("rb")
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise _damaged(label, None, error) from error
        with raw:
            yield from _lines(raw, label, name.endswith(".gz"), reading, keep_blank)


def file_lines(path: str | Path, reading: Reading) -> Iterator[Line]:
    """Stream the lines of one file, gzipped if its name ends in `.gz`."""
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", file=path, remedy="check the path")
    with open(path, "rb") as raw:
        yield from _lines(raw, str(path), path.suffix == ".gz", reading)


def _lines(
    raw: IO[bytes], label: str, gzipped: bool, reading: Reading, keep_blank: bool = False
) -> Iterator[Line]:
    handle = gzip.GzipFile(fileobj=raw) if gzipped else raw
    number, done = 0, 0
    try:
        for number, data in enumerate(handle, start=1):
            if number == 1 and data.startswith(UTF8_MARK):
                reading.drops.add("byte order mark skipped", label)
                data = data[len(UTF8_MARK) :]
            text = _decode(data, label, number).rstrip("\r\n")
            if number % 1024 == 0:
                reading.advance(raw.tell() - done)
                done = raw.tell()
            if keep_blank or text.strip():
                yield Line(number, text)
            else:
                reading.drops.add("blank line skipped", f"{label}:{number}")
        reading.advance(raw.tell() - done)
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(label, number + 1, error) from error


def _decode(data: bytes, label: str, number: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        encoding = "latin1"
        if number == 1 and data.startswith(UTF16_MARKS):
            encoding = "utf-16"
        raise InputError(
            f"not UTF-8 (byte 0x{data[error.start]:02x} at byte {error.start + 1} of the line)",
            file=label,
            line=number,
            remedy=f"convert the file, for example with iconv -f {encoding} -t utf-8",
        ) from None


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(str(path), None, error) from error


def _damaged(label: str, line: int | None, error: Exception) -> InputError:
    problem = f"damaged or cut off: {str(error) or type(error).__name__}"
    return InputError(problem, file=label, line=line, remedy="download or copy the file again")
