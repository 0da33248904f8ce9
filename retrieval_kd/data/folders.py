"""Folders that appear whole or not at all, so that concurrent builders cannot harm one another."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_folder(
    path: str | Path, keep: Callable[[Path], bool] = lambda there: False
) -> Iterator[Path]:
    """Yield a temporary sibling folder of `path`; rename it into place if the block succeeds.

    A folder that is already there gives way, unless `keep` says that it is as good.

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
    """Bring every file to the disk and give the folder the permissions a plain mkdir would."""
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
