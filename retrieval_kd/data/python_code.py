"""Takes a Python file apart: each definition's first docstring sentence, and its other text."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FEWEST_WORDS, MOST_WORDS = 4, 64  # of a first sentence, to serve as a query
FEWEST_LINES = 3  # of a definition without such a sentence, to serve as a document
MOST_CHARACTERS = 2_000  # of a document's text; the rest is cut

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SENTENCE = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)[.!?][\"')\]]*(?=\s+[^\sa-z]|\s*$)")


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
    found = (_piece(node, name, lines) for name, node in _definitions(tree, module))
    return [piece for piece in found if piece is not None]


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
        elif not _is_text(child):
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


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _without(text: str, sentence: str) -> str:
    """Remove the sentence from the text: code may quote its own docstring."""
    words = re.compile(r"\s+".join(map(re.escape, sentence.split())))
    while words.search(text):
        text = words.sub(" ", text)
    return text
