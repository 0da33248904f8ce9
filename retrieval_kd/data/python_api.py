"""The built-in collection: Python code as documents, first sentences of docstrings as queries.

A query's document has the qualified name, the signature, the rest of the docstring and the code,
but not the query's sentence. Splits are by module, so no module of the test split is seen in
training.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import re
import sys
import sysconfig
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from retrieval_kd.data.rows import Judgment, Reader, Reading, Row
from retrieval_kd.errors import InputError

VERSION = 1  # raise it when the same code yields other documents or queries
SKIPPED = {"test", "tests", "__pycache__", "site-packages", "dist-packages", "idlelib"}
SHARES = (("train", 60), ("dev", 70), ("test", 100))  # cumulative per cent of the modules
FEWEST_MODULES = 10
FEWEST_WORDS, MOST_WORDS = 4, 64  # of a first sentence, to serve as a query
FEWEST_LINES = 3  # of a definition without such a sentence, to serve as a document
MOST_CHARACTERS = 2_000  # of a document's text; the rest is cut

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SENTENCE = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)[.!?][\"')\]]*(?=\s+[^\sa-z]|\s*$)")


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
                definitions = pieces(file, name)
            except Unparsable as error:
                reading.drops.add("file that does not parse as Python skipped", str(error))
                definitions = []
            for piece in definitions:
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


class Piece(NamedTuple):
    """A function, method or class; `sentence` is empty if it serves as a document only."""

    name: str
    sentence: str
    text: str
    line: int


class Unparsable(Exception):
    """A file that does not parse as Python."""


def pieces(file: Path, module: str) -> list[Piece]:
    """Return the functions, methods and classes of a file that are documents, in order."""
    try:
        with warnings.catch_warnings(), tokenize.open(file) as handle:
            warnings.simplefilter("ignore")  # about invalid escapes in strings
            source = handle.read()
            tree = ast.parse(source)
    except (SyntaxError, UnicodeError, ValueError, RecursionError, MemoryError) as error:
        raise Unparsable(f"{file}: {error}") from error
    lines = [line.encode("utf-8", errors="replace") for line in source.split("\n")]
    drawn = (_piece(node, name, lines) for name, node in _definitions(tree, module))
    return [piece for piece in drawn if piece is not None]


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Yield definitions of modules and classes, not those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            name = f"{prefix}.{child.name}"
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, name)
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _definitions(child, prefix)


def _piece(node: Definition, name: str, lines: list[bytes]) -> Piece | None:
    sentence, rest = split_docstring(ast.get_docstring(node, clean=False) or "")
    if not FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS:
        sentence, rest = "", "\n\n".join(part for part in (sentence, rest) if part)
    if not sentence and (node.end_lineno or 0) - node.lineno + 1 < FEWEST_LINES:
        return None
    body = _outline(node) if isinstance(node, ast.ClassDef) else _body(node, lines)
    text = "\n".join(part for part in (_signature(node), rest, body) if part)
    if sentence:
        text = _without(text, sentence)
    return Piece(name, sentence, text[:MOST_CHARACTERS].rstrip(), node.lineno)


def split_docstring(docstring: str) -> tuple[str, str]:
    """Split off the first sentence, with its whitespace normalised.

    Example:
        >>> split_docstring("Return the parent, e.g. of\\n    a node. Else None.\\n\\n    More.")
        ('Return the parent, e.g. of a node.', 'Else None.\\n\\nMore.')
    """
    clean = inspect.cleandoc(docstring).strip()
    first, _, _ = clean.partition("\n\n")
    end = match.end() if (match := SENTENCE.search(first)) else len(first)
    return " ".join(clean[:end].split()), clean[end:].strip()


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
        return f"class {node.name}({bases}):" if bases else f"class {node.name}:"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{word} {node.name}({ast.unparse(node.args)}){returns}:"


def _outline(node: ast.ClassDef) -> str:
    """A class's own statements and its methods' signatures; methods are documents of their own."""
    parts = []
    for child in node.body:
        if isinstance(child, Definition):
            parts.append(f"    {_signature(child)} ...")
        elif not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            parts.append("    " + ast.unparse(child).replace("\n", "\n    "))
    return "\n".join(parts)


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[bytes]) -> str:
    """A function's lines after its signature, with comments, without its docstring."""
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        start, column = first.end_lineno or first.lineno, first.end_col_offset or 0
    else:
        decorators = getattr(first, "decorator_list", [])
        start = min([first.lineno, *(d.lineno for d in decorators)])
        column = 0 if start > node.lineno else first.col_offset
    stop = node.end_lineno or start
    code = lines[start - 1 : stop]
    if stop == start:
        code = [code[0][: node.end_col_offset]]
    code[0] = code[0][column:]
    text = (line.decode("utf-8").rstrip().lstrip(";") for line in code)
    body = textwrap.dedent("\n".join(line for line in text if line.strip()))
    return textwrap.indent(body, "    ")


def _without(text: str, sentence: str) -> str:
    """Remove the sentence from the text: code may quote its own docstring."""
    words = re.compile(r"\s+".join(map(re.escape, sentence.split())))
    while words.search(text):
        text = words.sub(" ", text)
    return text
