"""Atomic writes of files and folders, JSON, digests, seals, and the cache folder.

A folder's `seal.json` has the size and digest of every file in it. Caches, checkpoints and trained
models are compared with their seal before they are used: a damaged one is built again, and never
read. Files are digested once a process, in blocks on all cores, at about 1 GB a second and core.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from retrieval_kd.errors import InputError, kind_of, log

WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# NumPy's and PyTorch's words, which do not say which of them it was
UNNUMBERED = r"requested and \d+ written|pytorchstreamwriter|unexpected pos"

SEAL = "seal.json"
UNSEALED = ("README.md", SEAL)  # people and later commands write into a model's card
BLOCK = 2**20  # bytes
_DIGESTS: dict[tuple[int, ...], str] = {}  # by a file's number, size and times

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
    with named_writes(path):
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


def sweep(folder: Path, name: str = "") -> None:
    """Remove what killed commands left unfinished, of one file or all; the caller has the lock."""
    for left in folder.glob(f".{glob.escape(name)}.*.part" if name else ".*.part"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def check_writable(path: str | Path) -> Path:
    """Return the file that `path` names, through links; refuse all that a rename would destroy."""
    place, hops = Path(path), 0
    while place.is_symlink() and hops < 40:
        if os.path.realpath(place.parent).startswith("/proc/"):  # as of /dev/stdout
            break
        place, hops = place.parent / os.readlink(place), hops + 1
    else:
        if not place.exists() or place.is_file():
            return place
    kind = "a folder" if Path(path).is_dir() else "a device or a pipe"
    problem, remedy = f"this is {kind}, and a file is to be written", "name a file, new or not"
    raise InputError(problem, file=path, remedy=remedy)


def check_movable(folder: Path) -> None:
    """Refuse a folder that another cannot be renamed onto."""
    if os.path.lexists(folder) and not folder.is_dir():
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
    with named_writes(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
        try:
            yield temporary
            _flush(temporary)
            _publish(temporary, path, keep)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def named_writes(path: str | Path) -> Iterator[None]:
    """Raise what a write to `path` fails with as an OSError that names it, whoever writes.

    Libraries report a full disk in classes and words of their own, and name no file or a temporary
    one.

    Example:
        >>> with named_writes("m/index"):
        ...     raise RuntimeError("write error: No space left on device")
        Traceback (most recent call last):
        ...
        OSError: [Errno 28] No space left on device: 'm/index'
    """
    try:
        yield
    except Exception as error:
        number, file = failed_write(error), getattr(error, "filename", None)
        if f".{Path(path).name}." in str(file):  # a temporary sibling
            number = getattr(error, "errno", None)
        elif file is not None:
            raise
        if number is None or isinstance(error, InputError):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def failed_write(error: BaseException) -> int | None:
    """Return the number of the failed write that an exception reports; None if it is none.

    Example:
        >>> failed_write(ValueError("I/O error: File too large (os error 27)")) == errno.EFBIG
        True
    """
    if isinstance(error, OSError) and error.errno in WRITE_ERRORS:
        return error.errno
    text = str(error).lower()
    for number in WRITE_ERRORS:
        if os.strerror(number).lower() in text:
            return number
    return errno.EIO if re.search(UNNUMBERED, text) else None


def new_array(path: str | Path, shape: tuple[int, ...], dtype: Any) -> Any:
    """Create a `.npy` file of zeros and map it into memory, writable.

    Its space is reserved: a disk that fills up later would end the process with a signal.
    """
    import numpy as np  # the command line does without it until it computes

    with named_writes(path):
        made = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if sys.platform == "linux":
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
    return made


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
    fits = isinstance(value, kind)
    missing = [key for key in keys if not fits or key not in value]
    if not fits or missing:
        found = f"no {missing[0]}" if isinstance(value, dict) else kind_of(value)
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


def seal(folder: Path, of: str = "") -> None:
    """Seal a folder's files, all but hidden ones and its README.md.

    Args:
        of: what the folder was made from, which `damage` compares too.
    """
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [n for n in names if n.name not in UNSEALED and not any(p[0] == "." for p in n.parts)]
    files = {name.as_posix(): _size_and_digest(folder / name) for name in kept}
    write_json(folder / SEAL, sealed({"of": of, "files": files}))


def damage(folder: Path, of: str | None = "") -> str:
    """Say how a folder differs from its seal; "" if it does not. `of=None` compares files only.

    Example:
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
        if of is not None and kept["of"] != of:
            return "it was made from something else"
        for name, expected in kept["files"].items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _size_and_digest(folder / name) != expected:
                return f"{name} has changed"
    except OSError as error:
        return str(error)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"its {SEAL} is damaged"
    return ""


def is_whole(folder: Path, *, unsealed: bool = False) -> bool:
    """Whether a folder exists and is as it was built; says so if it is damaged.

    Args:
        unsealed: the answer for a folder without a seal, as earlier versions left it.
    """
    if not folder.exists() or (unsealed and not (folder / SEAL).exists()):
        return folder.exists()
    problem = damage(folder)
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


def cache_dir() -> Path:
    """The folder of derived data: `$RETRIEVAL_KD_CACHE`, else `~/.cache/retrieval_kd`."""
    return Path(os.environ.get("RETRIEVAL_KD_CACHE") or "~/.cache/retrieval_kd").expanduser()
