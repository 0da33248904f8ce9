"""Reads the files of a folder or zip, plain or gzipped, line by line.

Handles encodings, byte order marks, line ends, blank lines, damaged archives and lines that no
memory holds. The readers parse the lines.
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from retrieval_kd.data.rows import Reading
from retrieval_kd.errors import InputError

GZIP = b"\x1f\x8b"
# how files that are no lines of text begin → what they are
OTHER_FILES = {
    GZIP: "gzipped twice",
    b"PK\x03\x04": "a zip file",
    b"\xfd7zXZ": "an xz file",
    b"BZh": "a bzip2 file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"PAR1\x15": "a Parquet file",
}
MARKS = {  # byte order marks, the longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MOST_FILES = 100_000
LONGEST_LINE = 1 << 28  # bytes; a line, a document or a JSON value must fit into memory
Parsed = TypeVar("Parsed")
DAMAGE = (
    EOFError, OSError, NotImplementedError, OverflowError, RuntimeError, ValueError,
    lzma.LZMAError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


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
            files = (entry for entry in self._zip.infolist() if not entry.is_dir())
            return {file.filename: file.file_size for file in files if not _hidden(file.filename)}
        sizes: dict[str, int] = {}
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not _hidden(name)]
            for file in (Path(folder) / name for name in names if not _hidden(name)):
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
        except DAMAGE as error:
            raise _damaged(label, None, error) from error
        with raw:
            yield from _lines(raw, label, reading, keep_blank)


def parsed(
    parse: Callable[[Iterator[Line], str, Reading], Iterator[Parsed]],
    source: Source,
    name: str,
    reading: Reading,
) -> Iterator[Parsed]:
    """Parse one file of a folder or zip."""
    return parse(source.lines(name, reading), source.label(name), reading)


def file_lines(path: str | Path, reading: Reading) -> Iterator[Line]:
    """Stream the lines of one file, plain or gzipped."""
    with _open(Path(path)) as raw:
        yield from _lines(raw, str(path), reading)


def first_bytes(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, unzipped."""
    with _open(path) as raw:
        handle, _ = _unzipped(raw, str(path))
        try:
            return handle.read(size)
        except DAMAGE as error:
            raise _damaged(str(path), None, error) from error


def too_long(what: str, file: str, line: int) -> InputError:
    """Return the error for something of more than `LONGEST_LINE` bytes or characters."""
    problem = f"{what} of more than {LONGEST_LINE >> 20} MiB"
    remedy = "write one record a line, and shorter texts"
    return InputError(problem, file=file, line=line, remedy=remedy)


def _open(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise InputError("no such file", file=path, remedy="check the path")
    return open(path, "rb")


def _lines(
    raw: IO[bytes], label: str, reading: Reading, keep_blank: bool = False
) -> Iterator[Line]:
    handle, zipped = _unzipped(raw, label)
    done = 0
    for number, data in _raw_lines(handle, label):
        text = _decode(data, label, number, zipped).rstrip("\r\n")
        if text.startswith("\ufeff"):
            reading.drops.add("byte order mark skipped", label)
            text = text.lstrip("\ufeff")
        if number % 1024 == 0:
            reading.advance(raw.tell() - done)
            done = raw.tell()
        if keep_blank or text.strip():
            yield Line(number, text)
        else:
            reading.drops.add("blank line skipped", f"{label}:{number}")
    reading.advance(raw.tell() - done)


def _unzipped(raw: IO[bytes], label: str) -> tuple[io.BufferedReader[Any], bool]:
    """Return a reader of the file's text and whether it is gzipped, which its first bytes say."""
    handle = io.BufferedReader(raw)  # type: ignore[type-var]
    try:
        start = handle.peek(2)[:2]
    except DAMAGE as error:
        raise _damaged(label, 1, error) from error
    if start == GZIP:
        return io.BufferedReader(gzip.GzipFile(fileobj=handle)), True  # type: ignore[type-var]
    if start and label.endswith(".gz"):
        remedy = "take .gz out of its name if it is whole, or download or copy it again"
        raise InputError("not gzipped, though its name says so", file=label, remedy=remedy)
    return handle, False


def _raw_lines(handle: io.BufferedReader[Any], label: str) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines. In a file without any line feed, they end in carriage returns."""
    number = 0
    try:
        start = handle.peek(8)
        for first, kind in OTHER_FILES.items():
            if start.startswith(first):
                raise InputError(f"{kind}, not lines of text", file=label, remedy="unpack it")
        while data := handle.readline(LONGEST_LINE + 1):
            number += 1
            if len(data) > LONGEST_LINE:
                raise too_long("a line", label, number)
            if number > 1 or data.endswith(b"\n") or b"\r" not in data:
                yield number, data
            else:
                yield from enumerate(data.splitlines(), start=1)
    except DAMAGE as error:
        raise _damaged(label, number + 1, error) from error


def _decode(data: bytes, label: str, number: int, zipped: bool) -> str:
    """Decode a line. A zero byte in the first one means UTF-16 without a mark, or no text."""
    mark = next((m for m in MARKS if data.startswith(m)), b"") if number == 1 else b""
    try:
        if number > 1 or mark or b"\0" not in data:
            return data.decode("utf-8")
        problem, remedy = "a zero byte: UTF-16, or no text", "give a file of text in UTF-8"
    except UnicodeDecodeError as error:
        at = error.start
        problem = f"not UTF-8 (byte 0x{data[at]:02x} at byte {at + 1} of the line)"
        convert = (
            f"convert the file, for example with iconv -f {MARKS.get(mark, 'ENCODING')} -t utf-8"
        )
        if not mark:  # any guess would make other characters of some texts
            convert = f"find out its encoding, as `file` or chardet do, and {convert}"
        remedy = f"unpack it, and {convert}" if zipped else convert
        if b"\0" in data and not mark:
            remedy = "give a file of text in UTF-8"
    raise InputError(problem, file=label, line=number, remedy=remedy)


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except DAMAGE as error:
        raise _damaged(str(path), None, error) from error


def _hidden(name: str) -> bool:
    """Whether a file is the system's, such as `.DS_Store`, or in a folder such as `__MACOSX`."""
    parts = name.split("/")
    return any(part == "__MACOSX" or (part != "." and part.startswith(".")) for part in parts)


def _damaged(label: str, line: int | None, error: Exception) -> InputError:
    problem = f"damaged or cut off: {' '.join(str(error).split()) or type(error).__name__}"
    return InputError(problem, file=label, line=line, remedy="download or copy the file again")
