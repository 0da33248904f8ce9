"""The score store: a folder with one folder per teacher, to which answers are added, never changed.

`ScoreStore` finds teachers and reads the scores of pointwise teachers; `answers.py` reads the
answers of comparing teachers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval_kd.errors import InputError
from retrieval_kd.store.digests import as_words, digests_to_words, hash_ids, words_to_column
from retrieval_kd.store.key import TeacherKey, read_teacher, short_names
from retrieval_kd.store.pair_index import PairIndex, pair_keys, table_keys
from retrieval_kd.store.shards import (
    SCHEMA,
    TEACHER_FILE,
    ShardWriter,
    read_shard,
    shard_paths,
    texts_unknown,
    write_shard,
)
from retrieval_kd.store.verify import Problem, clean_folder, verify_folder

Digests = Sequence[str] | np.ndarray
READ_ROWS = 500_000


class ScoreStore:
    """A folder of teachers' scores and answers.

    Example:
        >>> import tempfile
        >>> from retrieval_kd.files import digest_text
        >>> store = ScoreStore(tempfile.mkdtemp() + "/scores")
        >>> key = TeacherKey("pointwise", "big", digest="ab12")
        >>> query, known, new = (digest_text(text) for text in ("who?", "me", "you"))
        >>> with store.writer(key) as writer:
        ...     writer.add(["q1"], ["d1"], [query], [known], [2.5])
        >>> store.lookup(key, [query, query], [known, new]).tolist()
        [2.5, nan]
        >>> store.resolve("big") == key
        True
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError("a score store is a folder", file=self.path)
        if self.path.is_dir() and not any(self.path.glob(f"*/{TEACHER_FILE}")):
            files = (file for file in self.path.iterdir() if file.is_file())
            if any(not file.name.startswith(".") for file in files):
                remedy = "name a store, or a new folder"
                raise InputError("this folder does not hold scores", file=self.path, remedy=remedy)
        self._loaded: dict[str, tuple[PairIndex, list[Path]]] = {}

    def folder(self, key: TeacherKey) -> Path:
        return self.path / key.fingerprint

    def teachers(self) -> list[TeacherKey]:
        """All teachers, sorted by name.

        Raises:
            InputError: the folder is missing, or a teacher.json was changed.
        """
        if not self.path.is_dir():
            raise InputError("no score store there", file=self.path, remedy="run `rkd score` first")
        folders = [path.parent for path in self.path.glob(f"*/{TEACHER_FILE}")]
        return sorted(map(read_teacher, folders), key=lambda key: (key.model, key.fingerprint))

    def names(self) -> dict[str, str]:
        """Fingerprint → a short name, unique in this store, which `resolve` accepts."""
        keys = self.teachers()
        return dict(zip([key.fingerprint for key in keys], short_names(keys), strict=True))

    def resolve(self, name: str) -> TeacherKey:
        """Find a teacher by its model name, its short name, or the start of its fingerprint.

        Raises:
            InputError: no teacher or several match; the message lists them.
        """
        teachers = self.teachers()
        matches = [key for key in teachers if key.model == name]
        if len(matches) != 1:
            names = zip(teachers, short_names(teachers), strict=True)
            matches = [key for key, short in names if short == name] or matches
        matches = matches or [k for k in teachers if name and k.fingerprint.startswith(name)]
        if len(matches) == 1:
            return matches[0]
        problem = "several teachers match" if matches else "no such teacher"
        listed = ", ".join(f"{key.fingerprint} ({key.model})" for key in matches or teachers)
        remedy = f"give the fingerprint of one of: {listed}" if listed else "run `rkd score` first"
        raise InputError(problem, file=self.path, id=name, remedy=remedy)

    def only(self) -> TeacherKey:
        """The store's single teacher."""
        teachers = self.teachers()
        if len(teachers) == 1:
            return teachers[0]
        listed = ", ".join(f"{key.fingerprint} ({key.model})" for key in teachers)
        raise InputError(
            "the store has several teachers" if teachers else "the store has no teacher",
            file=self.path,
            remedy=f"name with --teacher: {listed}" if teachers else "run `rkd score` first",
        )

    def writer(
        self, key: TeacherKey, shard_rows: int = 20_000, texts: str = "known"
    ) -> ScoreWriter:
        """Open a writer of this teacher's scores.

        `texts="unknown"` records that the digests are of IDs (an import without a collection).
        """
        return ScoreWriter(self.folder(key), key, shard_rows, texts)

    def count(self, key: TeacherKey) -> int:
        """Number of distinct pairs of texts that the teacher has scored."""
        return len(self._index(key))

    def lookup(
        self, key: TeacherKey, query_digests: Digests, document_digests: Digests
    ) -> np.ndarray:
        """The teacher's scores (n,) float32 of n pairs, NaN where a pair is not stored.

        The first score of a pair counts. Each shard is read once; new shards are noticed.

        Args:
            query_digests, document_digests: in hex, or words (n, 2).
        """
        if len(query_digests) != len(document_digests):
            raise ValueError(f"{len(query_digests)} queries, {len(document_digests)} documents")
        keys = pair_keys(as_words(query_digests), as_words(document_digests))
        return self._index(key).lookup(keys)

    def read(self, key: TeacherKey) -> pa.Table:
        """Read all scores of a pointwise teacher, each pair once, in the order stored."""
        return pa.concat_tables(list(self.tables(key)))

    def tables(self, key: TeacherKey) -> Iterator[pa.Table]:
        """Read the same piece by piece; `lookup` then needs not read the shards again."""
        check_pointwise(key)
        index, paths = PairIndex(), shard_paths(self.folder(key))
        if not paths:
            raise InputError("no scores of this teacher", file=self.path, id=key.model)
        for table in _tables(paths, SCHEMA.names):
            new = index.add(table_keys(table), table["score"].to_numpy())
            yield table if len(new) == len(table) else table.take(new)
        self._loaded[key.fingerprint] = (index, paths)

    def id_pairs(self, key: TeacherKey) -> np.ndarray:
        """Hashes of all (query ID, document ID) pairs that a teacher scored; see `hash_ids`."""
        hashes = [np.zeros(0, np.uint64)]
        for path in shard_paths(self.folder(key)):
            if not texts_unknown(path):
                table = read_shard(path, ["query_id", "document_id"])
                columns = (table[name].to_pylist() for name in ("query_id", "document_id"))
                hashes.append(hash_ids(*columns))
        return np.unique(np.concatenate(hashes))

    def verify(self, key: TeacherKey | None = None) -> list[Problem]:
        """Check the files of one teacher or of all; nothing is changed."""
        if key is None and not self.path.is_dir():
            raise InputError("no score store there", file=self.path)
        folders = [self.folder(key)] if key else sorted(self.path.glob("[!.]*"))
        return [problem for folder in folders for problem in verify_folder(folder)]

    def clean(self) -> list[Path]:
        """Delete the unfinished files that killed writers left behind, and return their paths."""
        folders = filter(Path.is_dir, self.path.glob("[!.]*"))
        return [path for folder in folders for path in clean_folder(folder)]

    def _index(self, key: TeacherKey) -> PairIndex:
        check_pointwise(key)
        index, read = self._loaded.get(key.fingerprint, (PairIndex(), []))
        paths = shard_paths(self.folder(key))
        if paths[: len(read)] != read:  # an earlier shard appeared or disappeared: start over
            index, read = PairIndex(), []
        for table in _tables(paths[len(read) :], ["query_digest", "document_digest", "score"]):
            index.add(table_keys(table), table["score"].to_numpy())
        self._loaded[key.fingerprint] = (index, paths)
        return index


class ScoreWriter(ShardWriter):
    """Writes a pointwise teacher's scores, a shard whenever `shard_rows` rows are waiting."""

    def __init__(self, folder: Path, key: TeacherKey, shard_rows: int, texts: str) -> None:
        super().__init__(folder, key.about())
        self._rows = max(1, shard_rows)
        self._schema = SCHEMA.with_metadata({"texts": texts})
        self._parts: list[pa.Table] = []
        self._waiting = 0

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


def _tables(paths: Sequence[Path], columns: list[str]) -> Iterator[pa.Table]:
    """Read shards, and join small ones to tables of about `READ_ROWS` rows."""
    waiting: list[pa.Table] = []
    for path in paths:
        waiting.append(read_shard(path, columns).replace_schema_metadata())
        if sum(map(len, waiting)) >= READ_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def check_pointwise(key: TeacherKey) -> None:
    """Refuse a comparing teacher; its answers are read by `answers.py`."""
    if not key.is_pointwise:
        raise InputError(
            f"a {key.kind} teacher's answers are not scores of single documents",
            id=key.model,
            remedy="take a pointwise teacher here",
        )
