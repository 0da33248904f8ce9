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

from retrieval_kd.errors import InputError

SEALED = "sealed"  # key of a JSON object: the digest of all its other keys
RESTORE = "restore the file from a copy, or delete it if a command makes it again"


class DamagedFile(InputError, ValueError):
    """A file that is not as it was written; also a `ValueError`, as from `json.loads`."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it into place only if the block succeeds.

    The file's data reaches the disk before the rename, so a crash leaves the old file or the new.
    A link stays, and the file that it names is replaced.

    Raises:
        InputError: `path` is no file, but a device, a pipe or a folder.
    """
    path = check_writable(path)
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


def check_writable(path: str | Path) -> Path:
    """Return the file that `path` names, through links; refuse all that a rename would destroy.

    Raises:
        InputError: a device, a pipe or a folder is there, or a link to what a process has open.
    """
    place, hops = Path(path), 0
    while place.is_symlink() and hops < 40:
        if os.path.realpath(place.parent).startswith("/proc/"):  # as of /dev/stdout
            break
        place, hops = place.parent / os.readlink(place), hops + 1
    else:
        if not place.exists() or place.is_file():
            return place
    kind = "a folder" if Path(path).is_dir() else "a device or a pipe"
    raise InputError(f"this is {kind}, and a file is to be written", file=path,
                     remedy="name a new file, or one to replace")  # fmt: skip


def check_movable(folder: Path) -> None:
    """Refuse a folder that another cannot be renamed onto.

    Raises:
        InputError: it is no folder, the current one, around it, or a disk's own.
    """
    if folder.exists() and not folder.is_dir():
        problem = "this is no folder"
    elif Path.cwd().is_relative_to(folder.resolve()):
        problem = "the current folder is in this one, and it would be replaced"
    elif os.path.ismount(folder.resolve()):
        problem = "a disk is mounted here, so this folder cannot be replaced"
    else:
        return
    raise InputError(problem, file=folder, remedy="give a new folder")


def check_replaceable(folder: Path, mark: str, what: str) -> None:
    """Refuse to replace a folder that has files, unless one named `mark` shows it to be `what`."""
    check_movable(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / mark).exists():
        raise InputError(
            f"this folder does not hold {what}, and would be replaced",
            file=folder,
            remedy="give a new folder",
        )


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


def read_json(path: str | Path, *keys: str, kind: type = dict) -> Any:
    """Read a JSON file, by default one with an object, which has these keys.

    Raises:
        DamagedFile: it is not JSON, or its value is not of this kind.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"not a JSON file ({error})", file=path, remedy=RESTORE) from error
    missing = [key for key in keys if not isinstance(value, kind) or key not in value]
    if not isinstance(value, kind) or missing:
        found = f"no {missing[0]}" if isinstance(value, dict) else f"a {type(value).__name__}"
        problem = f"not the JSON that is expected, but with {found}"
        raise DamagedFile(problem, file=path, remedy=RESTORE)
    return value


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """Add a digest of all the rest, which `check_seal` compares.

    Example:
        >>> check_seal({**sealed({"seconds": 3}), "seconds": 4}, "record.json")
        Traceback (most recent call last):
        ...
        retrieval_kd.files.DamagedFile: record.json: changed after it was written. To fix: restore \
the file from a copy, or delete it if a command makes it again.
    """
    value = json.loads(json.dumps(value))  # as it will be read back
    return {**value, SEALED: digest_json(value)}


def check_seal(value: dict[str, Any], file: str | Path) -> dict[str, Any]:
    """Return the value without its digest; one without a digest is of an earlier version."""
    rest = {name: part for name, part in value.items() if name != SEALED}
    if SEALED in value and value[SEALED] != digest_json(rest):
        raise DamagedFile("changed after it was written", file=file, remedy=RESTORE)
    return rest


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Read a file that was written with `sealed`. Raises `DamagedFile` if it has changed since."""
    return check_seal(read_json(path), path)


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
