"""Which files and folders the arguments of a command name, and which of them are the same."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

# what commands read of a folder that they are given, and a later output must not replace
COLLECTION = re.compile(r"qrels/.*|.*/(corpus|queries)\.jsonl(\.gz)?")
READ = re.compile(
    rf"{COLLECTION.pattern}|.*\.(safetensors|bin|npy|arrow|faiss|model)|.*/shard-.*\.parquet|"
    r".*\b(report|results|config|modules|tokenizer|seal|teacher|manifest|training)\.json"
)


def places(text: str) -> Iterator[Path]:
    """Yield the files and folders that a value such as `yesno:MODEL?x=y` or `A+B:SPLIT` names.

    A file's name has a suffix, or a kind before it: `bm25` is not a file that is called so.
    """
    for part in {text, *text.split("+")}:
        words = part.partition("?")[0].partition("@")[0].split(":", 3)
        for start in range(len(words)):
            for end in range(start + 1, len(words) + 1):
                name = ":".join(words[start:end])
                is_file = os.path.isfile(name) and (start or Path(name).suffix)
                if name and (is_file or os.path.isdir(name)):
                    yield Path(name)


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths name one file or folder, through links too, and before it exists."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def is_read_from(file: Path, folder: Path, names: re.Pattern[str] = READ) -> bool:
    """Whether a file exists in a folder, and is one of those that a folder is read for.

    Args:
        names: of those files, with the name of the folder that they are in.
    """
    real, above = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if not (os.path.exists(real) and os.path.isdir(above) and real.is_relative_to(above)):
        return False
    return names.fullmatch("/".join(real.parts[-2:])) is not None
