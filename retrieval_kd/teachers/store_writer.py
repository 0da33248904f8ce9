"""Adding answers to the score store, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from retrieval_kd.errors import InputError
from retrieval_kd.teachers import store_files
from retrieval_kd.teachers.store_key import TeacherKey


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
