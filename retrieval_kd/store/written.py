"""What a language model wrote about documents, word for word: a folder of shards, only added to.

Answers are found by the digest of a document's text, never by its ID. The first answer counts. What
they mean is read from their words each time (`teachers/generate/queries.py`), so that stricter
reading needs no new call.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.shards import ShardWriter, read_shard, shard_paths, write_shard

SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("document_digest", pa.string()),
        ("text", pa.string()),
        ("status", pa.string()),  # "ok", or "cut off" at the largest number of tokens
    ]
)


class WrittenText(NamedTuple):
    """A model's words about a document, and how the call ended."""

    document_id: str
    document_digest: str
    text: str
    status: str


class WrittenStore(ShardWriter):
    """One model's answers to one prompt. As a context manager, it writes what is added.

    Example:
        >>> import tempfile
        >>> key = TeacherKey("queries", "writer", digest="ab12", prompt="up to 3 queries")
        >>> folder = Path(tempfile.mkdtemp()) / key.fingerprint
        >>> with WrittenStore(folder, key) as store:
        ...     store.add([WrittenText("d1", "0f3a", "<query>why tides</query>", "ok")])
        >>> WrittenStore(folder, key).read()["0f3a"].text
        '<query>why tides</query>'
    """

    def __init__(self, folder: Path, key: TeacherKey) -> None:
        super().__init__(folder, key.about())
        self._waiting: list[WrittenText] = []

    def read(self) -> dict[str, WrittenText]:
        """Return all stored answers by the digest of their document's text.

        Raises:
            InputError: a shard is damaged, or of another model.
        """
        found: dict[str, WrittenText] = {}
        for path in shard_paths(self._folder) if self._folder.is_dir() else ():
            for record in read_shard(path, schema=SCHEMA).to_pylist():
                found.setdefault(record["document_digest"], WrittenText(**record))
        return found

    def add(self, rows: list[WrittenText]) -> None:
        """Add answers, and write them in one shard."""
        self._waiting += rows
        self.flush()

    def flush(self) -> None:
        """Write all waiting answers."""
        if self._waiting:
            table = pa.Table.from_pylist([row._asdict() for row in self._waiting], schema=SCHEMA)
            write_shard(self._folder, self._about, table)
        self._waiting = []
