"""Writers: rows wait in memory and go to disk a shard at a time.

Both are context managers. Leaving the block, even by an exception, writes the waiting rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval_kd.errors import InputError
from retrieval_kd.store.answer_rows import Row, to_table
from retrieval_kd.store.digests import digests_to_words, words_to_column
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.shards import SCHEMA, mend_description, write_shard


class ScoreWriter:
    """Writes a pointwise teacher's scores, a shard whenever `shard_rows` rows are waiting."""

    def __init__(self, folder: Path, key: TeacherKey, shard_rows: int, texts: str) -> None:
        self._folder, self._rows = folder, max(1, shard_rows)
        self._about = key.about()
        self._schema = SCHEMA.with_metadata({"texts": texts})
        self._parts: list[pa.Table] = []
        self._waiting = 0

    def __enter__(self) -> ScoreWriter:
        mend_description(self._folder, self._about)
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()

    def add(
        self,
        query_ids: Sequence[str],
        document_ids: Sequence[str],
        query_digests: Sequence[str],
        document_digests: Sequence[str],
        scores: np.ndarray | Sequence[float],
    ) -> None:
        """Add n rows: IDs, text digests of 32 hex digits, and raw scores, all of length n.

        Raises:
            InputError: a score is NaN or infinite, or the lengths differ; then no row is added.
        """
        values = np.asarray(scores)
        with np.errstate(over="ignore"):
            values = values.astype(np.float32).reshape(-1)  # (n,)
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
            words_to_column(digests_to_words(query_digests)),
            words_to_column(digests_to_words(document_digests)),
            pa.array(values, pa.float32()),
        ]
        self._parts.append(pa.Table.from_arrays(arrays, schema=self._schema))
        self._waiting += len(values)
        if self._waiting >= self._rows:
            self._write(at_least=self._rows)

    def flush(self) -> None:
        """Write all waiting rows; the last shard may be small."""
        self._write(at_least=1)

    def _write(self, at_least: int) -> None:
        """Write shards as long as `at_least` rows are waiting."""
        table = pa.concat_tables(self._parts) if self._parts else self._schema.empty_table()
        while table.num_rows >= at_least:
            write_shard(self._folder, self._about, table[: self._rows])
            table = table[self._rows :]
            self._parts, self._waiting = [table], table.num_rows


class AnswerWriter:
    """Writes a comparing teacher's answers and strategy rows.

    Args:
        shard_rows: number of waiting rows at which a shard is written,
        most_seconds: or seconds after which it is written, so a killed process loses no more work
            than that.
    """

    def __init__(
        self, folder: Path, key: TeacherKey, shard_rows: int = 5_000, most_seconds: float = 30
    ) -> None:
        self._folder, self._about = folder, key.about()
        self._rows, self._seconds = shard_rows, most_seconds
        self._since = time.monotonic()
        self.waiting: list[Row] = []  # not yet in a shard

    def __enter__(self) -> AnswerWriter:
        mend_description(self._folder, self._about)
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows, and write a shard if it is due."""
        self.waiting += rows
        waited = time.monotonic() - self._since
        if len(self.waiting) >= self._rows or waited >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write all waiting rows."""
        if self.waiting:
            write_shard(self._folder, self._about, to_table(self.waiting))
        self.waiting, self._since = [], time.monotonic()
