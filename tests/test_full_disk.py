"""Writes that fail name the file, whichever library wrote."""

from __future__ import annotations

import contextlib
import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_folder, atomic_path, named_writes, new_array, write_json

NUMBERS = np.arange(100_000.0)


def arrow(path: Path) -> None:
    table = pa.table({"numbers": NUMBERS})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def numpy_file(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, NUMBERS)


def numpy_zip(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, NUMBERS)


def pytorch(path: Path) -> None:
    import torch

    torch.save(torch.from_numpy(NUMBERS), path)


WRITERS = [
    arrow,
    numpy_file,
    numpy_zip,
    lambda path: pq.write_table(pa.table({"numbers": NUMBERS}), path),
    lambda path: save_file({"numbers": NUMBERS}, path),
    pytorch,
    lambda path: path.write_text("x" * 100_000),
]


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", WRITERS)
def test_a_write_without_room_is_an_error_with_the_name_of_the_file(
    write: Callable[[Path], object], tmp_path: Path
) -> None:
    """A limit on the size of a file stands for a full disk."""
    wanted = tmp_path / "file"
    with largest_file(1000), pytest.raises(OSError) as raised, atomic_path(wanted) as temporary:
        write(temporary)
    assert raised.value.filename == str(wanted)
    assert raised.value.errno in (errno.EFBIG, errno.EIO)  # EIO: the library does not say which
    wanted = tmp_path / "folder"
    with largest_file(1000), pytest.raises(OSError) as raised, atomic_folder(wanted) as folder:
        write(folder / "part")
    assert raised.value.filename == str(wanted)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (KeyError("a"), InputError("No space left on device"), OSError(2, "gone", "b")):
        with pytest.raises(type(error)) as raised, named_writes(tmp_path / "file"):
            raise error
        assert raised.value is error


def test_a_mapped_file_without_room_is_an_error_and_not_a_signal(tmp_path: Path) -> None:
    with largest_file(10_000), pytest.raises(OSError) as raised:
        new_array(tmp_path / "array.npy", (1000, 100), np.float32)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(tmp_path / "array.npy"))
    made = new_array(tmp_path / "array.npy", (10, 2), np.float32)
    made[:] = 1
    made.flush()
    assert np.load(tmp_path / "array.npy").sum() == 20


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    write_json(tmp_path / "facts.json", {"a": 1})
    with largest_file(1000), pytest.raises(OSError, match=r"File too large: .*facts.json"):
        write_json(tmp_path / "facts.json", {"a": "x" * 10_000})
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


@pytest.mark.parametrize("missing", [1, 5_000])
def test_an_index_without_room_is_an_error_though_faiss_only_prints_it(
    missing: int, tmp_path: Path
) -> None:
    """Its own writer loses what fails when the file is closed, the last part."""
    from retrieval_kd.indexing.dense import faiss, write_index

    index = faiss.IndexFlatIP(8)
    index.add(np.ones((200, 8), np.float32))
    write_index(index, tmp_path / "index.faiss")
    whole = (tmp_path / "index.faiss").read_bytes()
    assert faiss.read_index(str(tmp_path / "index.faiss")).ntotal == 200
    with largest_file(len(whole) - missing), pytest.raises(OSError, match=r"large: .*index.faiss"):
        write_index(index, tmp_path / "index.faiss")
    assert (tmp_path / "index.faiss").read_bytes() == whole
    assert len(list(tmp_path.iterdir())) == 1
