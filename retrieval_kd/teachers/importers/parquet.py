"""Reader of Parquet score files with a pair or a query's list per row, such as Rank-DistiLLM's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_kd.data.rows import Reading
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.importers.pairs import ScoredPair
from retrieval_kd.teachers.importers.records import FIELDS, record_pairs


def read_parquet(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read rows with a query ID, document ID(s) and score(s), named as in `records.py`."""
    try:
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in FIELDS]
        size, rows = path.stat().st_size, max(1, file.metadata.num_rows)
        number = 0
        for batch in file.iter_batches(batch_size=8192, columns=columns or None):
            for record in batch.to_pylist():
                number += 1
                yield from record_pairs(record, path, number)
            reading.advance(size * batch.num_rows // rows)
    except (pa.ArrowException, OSError) as error:
        problem = f"damaged, or not Parquet: {error}"
        raise InputError(problem, file=path, remedy="copy the file again") from error
