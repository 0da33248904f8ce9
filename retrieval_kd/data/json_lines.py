"""JSON in files: an object a line, or one list of objects in the whole file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.data import sources
from retrieval_kd.data.rows import Reading
from retrieval_kd.errors import InputError, kind_of


def first_value(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of the first of these fields that is present."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def parse_json(text: str, file: str | Path, line: int, remedy: str) -> Any:
    """Parse a JSON value. Raises `InputError` if it is broken, or names a field twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        problem = f"broken JSON: {error}"
        if "set_int_max_str_digits" in problem:  # Python's advice is for programmers
            problem = "a number of thousands of digits"
        raise InputError(problem, file=file, line=line, remedy=remedy) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the field {twice!r:.60} is there twice")
    return fields


def parse_object(text: str, file: str | Path, line: int, remedy: str) -> dict[str, Any]:
    """Parse one JSON object. Raises `InputError` for broken JSON, or a value of another kind."""
    return as_object(parse_json(text, file, line, remedy), file, line, remedy)


def as_object(value: Any, file: str | Path, line: int, remedy: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        problem = f"{kind_of(value)} where a JSON object is expected"
        raise InputError(problem, file=file, line=line, remedy=remedy)
    return value


def json_objects(path: Path, reading: Reading, remedy: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, object) of JSON lines, or (place from 1, object) of one list or one object.

    A file whose first line opens a list, or is `{` alone, is read as a whole.
    """
    lines = sources.file_lines(path, reading)
    for before, (number, text) in enumerate(lines):
        if before == 0 and (text.lstrip().startswith("[") or text.strip() == "{"):
            whole = _whole(text, lines, path)
            value = parse_json(whole, path, number, remedy)
            values = value if isinstance(value, list) else [value]
            for place, each in enumerate(values, start=1):
                record = as_object(each, path, place, remedy)
                _refuse_surrogates(record, whole, path, place)
                yield place, record
            return
        record = parse_object(text, path, number, remedy)
        _refuse_surrogates(record, text, path, number)
        yield number, record


def _whole(first: str, lines: Iterator[sources.Line], path: Path) -> str:
    parts, size = [first], len(first)
    for number, text in lines:
        parts.append(text)
        size += len(text)
        if size > sources.LONGEST_LINE:
            raise sources.too_long("one JSON value", str(path), number)
    return "\n".join(parts)


def _refuse_surrogates(record: dict[str, Any], source: str, file: Path, line: int) -> None:
    """Refuse half characters, which can be stored nowhere."""
    if not re.search(r"\\u[dD][89a-fA-F]", source):
        return
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        problem = f"half a character (lone surrogate U+{ord(error.object[error.start]):04X})"
        remedy = "write the character whole, or leave it out"
        raise InputError(problem, file=file, line=line, remedy=remedy) from None
