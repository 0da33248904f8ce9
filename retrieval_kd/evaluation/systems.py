"""First-stage systems: their names and kinds, the names of their run files, keys for caching."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_json, digest_text
from retrieval_kd.models.names import resolve_model
from retrieval_kd.retrieval.bm25 import DEFAULT, LUCENE
from retrieval_kd.retrieval.lucene import is_lucene


def system_names(with_: Sequence[str]) -> dict[str, str]:
    """Map a name for each system to the system; a model folder is called by its last part.

    Where two folders end alike, their full paths are their names.

    Example:
        >>> system_names(["bm25", "bm25+package:x"])
        {'bm25': 'bm25', 'bm25+package:x': 'bm25+package:x'}
    """
    if not with_:
        raise InputError("no system to evaluate", remedy="name one, such as --with bm25")
    twice = next((name for name in with_ if list(with_).count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice", remedy="name it once")
    short = [Path(n).resolve().name if os.path.isdir(n) else n for n in with_]
    return {s if short.count(s) == 1 else n: n for s, n in zip(short, with_, strict=True)}


def check_systems(with_: Sequence[str], baseline: str | None = None) -> dict[str, str]:
    """Return `system_names` after refusing what can be seen to be wrong without loading a model."""
    for system in with_:
        parts = system.split("+") if kind_of(system) == "fusion" else [system]
        for part in map(str.strip, parts):
            if kind_of(part) == "dense":
                resolve_model(part)
    named_baseline(baseline, with_)
    return system_names(with_)


def kind_of(system: str) -> str:
    """Classify a name as `retrieve` does: `bm25`, `lucene`, `fusion`, or else `dense`.

    Example:
        >>> [kind_of(x) for x in ("bm25-lucene", "lucene+package:x", "lucene", "models/student")]
        ['bm25', 'fusion', 'lucene', 'dense']
    """
    if system in ("bm25", "bm25-lucene"):
        return "bm25"
    if "+" in system and not os.path.isdir(system):
        return "fusion"
    return "lucene" if is_lucene(system) else "dense"


def system_key(with_name: str) -> str:
    """Digest everything that determines a system's rankings, except texts and settings."""
    kind = kind_of(with_name)
    if kind == "bm25":
        parameters = DEFAULT if with_name == "bm25" else LUCENE
        return digest_json(["bm25s", *parameters.key()])
    if kind == "lucene":
        return digest_text(with_name, _version("pyserini"))
    if kind == "fusion":
        return digest_json(["fusion", *[system_key(p.strip()) for p in with_name.split("+")]])
    from retrieval_kd.hardware import dtype_name, fast_dtype
    from retrieval_kd.models.load import model_digest

    return digest_json(["model", model_digest(with_name), dtype_name(fast_dtype())])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def run_file(system: str) -> str:
    """Name a system's run file; the digest tells apart names that differ in special characters."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in system)
    return f"{safe[:80]}-{digest_text(system)[:6]}.trec.gz"


def named_baseline(baseline: str | None, with_: Sequence[str]) -> str | None:
    """Return the baseline's name; it may be given as a name or as what the system was made from."""
    names = {with_name: name for name, with_name in system_names(with_).items()}
    if baseline is not None and baseline not in names and baseline not in names.values():
        remedy = f"name one of {', '.join(names)}"
        raise InputError(f"the baseline {baseline!r} is none of the systems", remedy=remedy)
    return names.get(baseline, baseline) if baseline is not None else None
