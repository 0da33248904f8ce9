"""Seals: `seal.json` has the size and digest of every file in a folder that is built once.

Caches, checkpoints and trained models are compared with their seal before they are used: a damaged
one is built again, and never read. Files are digested once a process, in blocks on all cores, at
about 1 GB a second and core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from retrieval_kd.errors import log
from retrieval_kd.files import atomic_folder, digest_text, read_sealed, sealed, write_json

SEAL = "seal.json"
UNSEALED = ("README.md", SEAL)  # people and later commands write into a model's card
BLOCK = 2**20  # bytes
_DIGESTS: dict[tuple[int, ...], str] = {}


def seal(folder: Path, of: str = "") -> None:
    """Seal a folder's files, all but hidden ones and its README.md.

    Args:
        of: what the folder was made from, which `damage` compares too.
    """
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [n for n in names if n.name not in UNSEALED and not any(p[0] == "." for p in n.parts)]
    files = {name.as_posix(): _size_and_digest(folder / name) for name in kept}
    write_json(folder / SEAL, sealed({"of": of, "files": files}))


def damage(folder: Path, of: str = "") -> str:
    """Say how a folder differs from its seal; "" if it does not.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a").write_text("1")
        >>> damage(folder)
        'it has no seal.json'
        >>> seal(folder)
        >>> damage(folder)
        ''
        >>> _ = (folder / "a").write_text("2")
        >>> damage(folder)
        'a has changed'
    """
    if not (folder / SEAL).is_file():
        return f"it has no {SEAL}"
    try:
        kept = read_sealed(folder / SEAL)
        if kept["of"] != of:
            return "it was made from something else"
        for name, expected in kept["files"].items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _size_and_digest(folder / name) != expected:
                return f"{name} has changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return str(error)
    return ""


def is_whole(folder: Path, of: str = "", *, unsealed: bool = False) -> bool:
    """Whether a folder exists and is as it was built; says so if it is damaged.

    Args:
        unsealed: the answer for a folder without a seal, as earlier versions left it.
    """
    if not folder.exists() or (unsealed and not (folder / SEAL).exists()):
        return folder.exists()
    problem = damage(folder, of)
    if problem:
        log.warning("%s is damaged and is built again: %s", folder, problem)
    return not problem


def cached(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return a cache folder; if it is missing or damaged, `build` fills a new one first."""
    if not is_whole(folder):
        with atomic_folder(folder, keep=is_whole) as temporary:
            build(temporary)
            seal(temporary)
    return folder


def _size_and_digest(path: Path) -> list[int | str]:
    """Size and digest, by the file's number and times: a renamed file is not read again."""
    found = path.stat()
    stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if stamp not in _DIGESTS:
        with ThreadPoolExecutor() as pool:
            blocks = pool.map(lambda start: _digest_block(path, start), range(0, stamp[2], BLOCK))
            _DIGESTS[stamp] = digest_text(*blocks)
    return [found.st_size, _DIGESTS[stamp]]


def _digest_block(path: Path, start: int) -> str:
    with open(path, "rb") as handle:
        handle.seek(start)
        return hashlib.blake2b(handle.read(BLOCK), digest_size=16).hexdigest()
