"""The built-in collection: Python code as documents, first sentences of docstrings as queries.

A query's document has the qualified name, the signature, the rest of the docstring and the code,
but not the query's sentence. Splits are by module, so no module of the test split is seen in
training. `python_code.py` takes a file apart.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from retrieval_kd.data.python_code import Piece, Unparsable, pieces
from retrieval_kd.data.rows import Judgment, Reader, Reading, Row
from retrieval_kd.errors import InputError

VERSION = 1  # raise it when the same code gives other documents or queries
SKIPPED = {"test", "tests", "__pycache__", "site-packages", "dist-packages", "idlelib"}
SHARES = (("train", 60), ("dev", 70), ("test", 100))  # cumulative per cent of the modules
FEWEST_MODULES = 10


def python_api_reader(folder: str | None = None) -> Reader:
    """Return a reader of a folder's Python code; default: Python's own standard library."""
    root = Path(folder or sysconfig.get_path("stdlib")).expanduser()
    if not root.is_dir():
        raise InputError("no such folder", file=root, remedy="name a folder of Python code")
    files = list(_files(root))
    if not files:
        remedy = "name a folder of Python code; folders called test or tests do not count"
        raise InputError("no Python file in this folder", file=root, remedy=remedy)
    stats = [(file.relative_to(root).as_posix(), file.stat()) for file in files]
    code = _Code(root, files)
    return Reader(
        name=f"python-api-{root.resolve().name}" if folder else "python-api",
        key=[
            "python-api",
            VERSION,
            sys.version,
            str(root.resolve()),
            [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        ],
        total=len(files),
        documents=code.documents,
        queries=code.queries,
        judgments={split: partial(code.judgments, split) for split in code.splits},
    )


def _files(root: Path) -> Iterator[Path]:
    """Yield Python files below a folder in a stable order, without tests and installed packages."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(n for n in folders if n not in SKIPPED and not n.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(".py"))


def split_of(group: str) -> str:
    """The split of a group of modules, by a hash of its name: the same on every machine.

    Example:
        >>> [split_of(name) for name in ("json", "argparse", "email")]
        ['train', 'train', 'test']
    """
    digest = hashlib.blake2b(group.encode("utf-8"), digest_size=8).digest()
    share = int.from_bytes(digest, "little") % 100
    return next(split for split, upper in SHARES if share < upper)


class _Code:
    """Streams documents and collects their first sentences, which are the queries."""

    def __init__(self, root: Path, files: list[Path]) -> None:
        self.root, self.files = root, files
        top = {_parts(root, file)[0] for file in files}
        self.by_file = len(top) < FEWEST_MODULES  # a single package would be one split
        self.splits = sorted({split_of(self._group(file)) for file in files})
        self.sentences: dict[str, list[str]] = {}  # first sentence → IDs of its documents
        self.split: dict[str, str] = {}  # first sentence → split, "" if it is in several

    def _group(self, file: Path) -> str:
        parts = _parts(self.root, file)
        return ".".join(parts) if self.by_file else parts[0]

    def documents(self, reading: Reading) -> Iterator[Row]:
        self.sentences.clear()
        self.split.clear()
        ids: dict[str, int] = {}
        for file in self.files:
            split, name = split_of(self._group(file)), ".".join(_parts(self.root, file))
            try:
                found = pieces(file, name)
            except Unparsable as error:
                reading.drops.add("file that does not parse as Python skipped", str(error))
                found = []
            for piece in found:
                if not piece.sentence and _is_private(piece.name):
                    continue  # nobody searches for it, and it would be a third of the corpus
                number = ids[piece.name] = ids.get(piece.name, 0) + 1
                id = piece.name if number == 1 else f"{piece.name}#{number}"
                self._remember(piece, id, split)
                yield Row(id, piece.name, piece.text, str(file), piece.line)
            reading.advance(1)

    def _remember(self, piece: Piece, id: str, split: str) -> None:
        if piece.sentence:
            self.sentences.setdefault(piece.sentence, []).append(id)
            if self.split.setdefault(piece.sentence, split) != split:
                self.split[piece.sentence] = ""

    def queries(self, reading: Reading) -> Iterator[Row]:
        for sentence, ids in self.sentences.items():
            if self.split[sentence]:
                yield Row(f"query:{ids[0]}", "", sentence, str(self.root))
            else:
                reading.drops.add("sentence of modules in several splits left out", ids[0])

    def judgments(self, split: str, reading: Reading) -> Iterator[Judgment]:
        for sentence, ids in self.sentences.items():
            if self.split[sentence] == split:
                for id in ids:
                    yield Judgment(f"query:{ids[0]}", id, 1, str(self.root))


def _is_private(name: str) -> bool:
    """Whether a part of a qualified name starts with an underscore: `json._default_decoder`."""
    return any(part.startswith("_") for part in name.split("."))


def _parts(root: Path, file: Path) -> list[str]:
    """The parts of a module's name: `json/decoder.py` → json, decoder."""
    parts = list(file.relative_to(root).with_suffix("").parts)
    return parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts
