"""Adding answers to the score store, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from retrieval_kd.errors import InputError
from retrieval_kd.store import shards as store_files
from retrieval_kd.store.answer_rows import Row, to_table
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.shards import write_shard


class ScoreWriter:
    """Collects answers and adds a shard whenever enough are there. A context manager.

    Leaving the block, by an exception too, writes what was added: nothing computed is lost.
    """

    def __init__(self, folder: Path, key: TeacherKey, shard_rows: int, texts: str) -> None:
        self._folder, self._rows = folder, max(1, shard_rows)
        self._about = key.about()
        self._schema = store_files.SCHEMA.with_metadata({"texts": texts})
        self._parts: list[pa.Table] = []
        self._waiting = 0

    def __enter__(self) -> ScoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()

    def add(
        self,
        query_ids: Sequence[str],
        document_ids: Sequence[str],
        query_digests: Sequence[str],
        document_digests: Sequence[str],
        scores: np.ndarray | Sequence[float],
    ) -> None:
        """Take n answers: IDs, text digests of 32 hex digits, and raw scores, all of length n.

        Raises:
            InputError: a score is NaN or infinite, or lengths differ; then none is taken.
        """
        values = np.asarray(scores)
        with np.errstate(over="ignore"):
            values = values.astype(np.float32).reshape(-1)
        columns = (query_ids, document_ids, query_digests, document_digests)
        if any(len(column) != len(values) for column in columns):
            lengths = [*map(len, columns), len(values)]
            raise InputError(f"columns of different lengths: {lengths}")
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            row = int(bad[0])
            raise InputError(
                f"the teacher's score of query {query_ids[row]} and document {document_ids[row]} "
                f"is {values[row]} ({len(bad)} such)",
                id=f"{query_ids[row]} {document_ids[row]}",
                remedy="look at the teacher's inputs and dtype; nothing of this batch was stored",
            )
        arrays = [
            pa.array(query_ids, pa.string()),
            pa.array(document_ids, pa.string()),
            *(
                store_files.words_to_column(store_files.digests_to_words(digests))
                for digests in (query_digests, document_digests)
            ),
            pa.array(values, pa.float32()),
        ]
        self._parts.append(pa.Table.from_arrays(arrays, schema=self._schema))
        self._waiting += len(values)
        if self._waiting >= self._rows:
            self._write(complete_only=True)

    def flush(self) -> None:
        """Write what is waiting, in a last shard that may be small."""
        self._write(complete_only=False)

    def _write(self, complete_only: bool) -> None:
        table = pa.concat_tables(self._parts) if self._parts else self._schema.empty_table()
        while table.num_rows >= (self._rows if complete_only else 1):
            store_files.write_shard(self._folder, self._about, table[: self._rows])
            table = table[self._rows :]
            self._parts, self._waiting = [table], table.num_rows


class AnswerWriter:
    """Writes a shard of what was added when there is enough, or when it has waited long enough.

    A context manager: leaving it, by an exception too, writes the rest.

    Args:
        shard_rows: enough.
        most_seconds: long enough; a killed process loses no more work than that.
    """

    def __init__(
        self, folder: Path, key: TeacherKey, shard_rows: int = 5_000, most_seconds: float = 30
    ) -> None:
        self._folder, self._about = folder, key.about()
        self._rows, self._seconds = shard_rows, most_seconds
        self._since = time.monotonic()
        self.waiting: list[Row] = []  # not in a shard yet

    def __enter__(self) -> AnswerWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()

    def add(self, rows: Sequence[Row]) -> None:
        """Take answers, and lists of candidates that strategies were given."""
        self.waiting += rows
        waited = time.monotonic() - self._since
        if len(self.waiting) >= self._rows or waited >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self.waiting:
            write_shard(self._folder, self._about, to_table(self.waiting))
        self.waiting, self._since = [], time.monotonic()
