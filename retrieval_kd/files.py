"""Atomic writes of files and folders, JSON, digests, and the cache folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it into place only if the block succeeds.

    The file's data reaches the disk before the rename, so a crash leaves the old file or the new.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(
    path: str | Path, keep: Callable[[Path], bool] = lambda existing: False
) -> Iterator[Path]:
    """Yield a temporary sibling folder of `path`; rename it into place if the block succeeds.

    The folder appears whole or not at all, so concurrent builders cannot harm one another. A folder
    that already exists is replaced, unless `keep` returns True for it.

    Example:
        >>> target = Path(tempfile.mkdtemp()) / "built"
        >>> with atomic_folder(target) as folder:
        ...     _ = (folder / "a").write_text("1")
        ...     target.exists()
        False
        >>> [file.name for file in target.iterdir()]
        ['a']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield temporary
        _flush(temporary)
        _publish(temporary, path, keep)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, path: Path, keep: Callable[[Path], bool]) -> None:
    for _ in range(100):
        try:
            os.rename(temporary, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if keep(path):
            return
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
        with contextlib.suppress(FileNotFoundError):  # another builder was faster
            os.rename(path, aside / path.name)
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(errno.EBUSY, "another process keeps replacing this folder", str(path))


def _flush(folder: Path) -> None:
    """Sync every file to disk and give the folder the permissions of a plain mkdir."""
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
    folder.chmod(0o777 & ~_umask())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest_text(*parts: str) -> str:
    """Digest the parts, as 32 hex digits (128 bits); ("ab", "c") and ("a", "bc") differ."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", errors="surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def digest_file(path: str | Path) -> str:
    """Digest a file's bytes, as 32 hex digits (128 bits)."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_json(value: Any) -> str:
    """Digest a JSON-able value, independent of key order."""
    return digest_text(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))


def cache_dir() -> Path:
    """The folder of derived data: `$RETRIEVAL_KD_CACHE`, else `~/.cache/retrieval_kd`."""
    default = Path.home() / ".cache" / "retrieval_kd"
    return Path(os.environ.get("RETRIEVAL_KD_CACHE") or default)
