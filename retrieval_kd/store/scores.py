"""What teachers said of (query, document) pairs: the store every student learns from.

A store is a folder with one folder per teacher; answers are added, never changed. Which files
those are is in `store_files.py`; `store_key.py` says who a teacher is, `store_writer.py` adds
answers, `store_index.py` finds them, `store_verify.py` checks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_kd.errors import InputError
from retrieval_kd.store import shards as store_files
from retrieval_kd.store import verify as store_verify
from retrieval_kd.store.index import PairIndex, first_of_each, pair_keys, table_keys
from retrieval_kd.store.key import TeacherKey, names_of, read_teacher
from retrieval_kd.store.verify import Problem
from retrieval_kd.store.writer import ScoreWriter

__all__ = ["Problem", "ScoreStore", "ScoreWriter", "TeacherKey"]


class ScoreStore:
    """A folder of teachers' answers.

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
        self._loaded: dict[str, tuple[PairIndex, list[Path]]] = {}

    def folder(self, key: TeacherKey) -> Path:
        return self.path / key.fingerprint

    def teachers(self) -> list[TeacherKey]:
        """All teachers, by name.

        Raises:
            InputError: the folder is missing, or a teacher's description was tampered with.
        """
        if not self.path.is_dir():
            raise InputError("no score store there", file=self.path, remedy="run `rkd score` first")
        folders = [path.parent for path in self.path.glob(f"*/{store_files.TEACHER_FILE}")]
        return sorted(map(read_teacher, folders), key=lambda key: (key.model, key.fingerprint))

    def names(self) -> dict[str, str]:
        """Fingerprint → a short name that no other teacher here has; `resolve` knows it."""
        keys = self.teachers()
        found = zip(keys, names_of(keys), strict=True)
        return {key.fingerprint: name for key, name in found}

    def resolve(self, name: str) -> TeacherKey:
        """The one teacher of this model name, or short name, or start of its fingerprint.

        Raises:
            InputError: none or several; the message lists those there are.
        """
        teachers = self.teachers()
        found = [key for key in teachers if key.model == name]
        if len(found) != 1:
            short = zip(teachers, names_of(teachers), strict=True)
            found = [key for key, known in short if known == name] or found
        found = found or [key for key in teachers if name and key.fingerprint.startswith(name)]
        if len(found) == 1:
            return found[0]
        problem = "several teachers match" if found else "no such teacher"
        listed = ", ".join(f"{key.fingerprint} ({key.model})" for key in found or teachers)
        remedy = f"give the fingerprint of one of: {listed}" if listed else "run `rkd score` first"
        raise InputError(problem, file=self.path, id=name, remedy=remedy)

    def only(self) -> TeacherKey:
        """The store's single teacher.

        Raises:
            InputError: there are several, or none.
        """
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
        """A writer of this teacher's answers; shards of `shard_rows` rows.

        `texts="unknown"` notes that the digests are of IDs (an import without a collection).
        """
        return ScoreWriter(self.folder(key), key, shard_rows, texts)

    def count(self, key: TeacherKey) -> int:
        """How many distinct pairs of texts the teacher has scored."""
        return len(self._index(key))

    def lookup(
        self, key: TeacherKey, query_digests: Sequence[str], document_digests: Sequence[str]
    ) -> np.ndarray:
        """The teacher's scores (n,) float32 of n pairs, NaN where it has not been asked.

        Of a pair scored twice the first answer counts. A shard is read once, new ones each time.
        """
        if len(query_digests) != len(document_digests):
            raise ValueError(f"{len(query_digests)} queries, {len(document_digests)} documents")
        keys = pair_keys(
            store_files.digests_to_words(query_digests),
            store_files.digests_to_words(document_digests),
        )
        return self._index(key).lookup(keys)

    def read(self, key: TeacherKey) -> pa.Table:
        """Every score of a pointwise teacher once, in the order they were given."""
        check_gives_scores(key)
        shards = store_files.shard_paths(self.folder(key))
        if not shards:
            raise InputError("no scores of this teacher", file=self.path, id=key.model)
        tables = [store_files.read_shard(path).replace_schema_metadata() for path in shards]
        table = pa.concat_tables(tables)
        first = np.zeros(table.num_rows, dtype=bool)
        first[first_of_each(table_keys(table))] = True
        return table if first.all() else table.filter(pa.array(first))

    def stale(
        self,
        key: TeacherKey,
        query_ids: Sequence[str],
        document_ids: Sequence[str],
        query_digests: Sequence[str],
        document_digests: Sequence[str],
    ) -> int:
        """How many of n pairs were scored for other texts under the same IDs, and so not these."""
        unknown = np.isnan(self.lookup(key, query_digests, document_digests))
        if not unknown.any():
            return 0
        queries = pa.array(query_ids, pa.string()).filter(pa.array(unknown))
        documents = pa.array(document_ids, pa.string()).filter(pa.array(unknown))
        asked, stored = _joined(queries, documents), []
        for path in store_files.shard_paths(self.folder(key)):
            if not store_files.texts_unknown(path):
                table = store_files.read_shard(path, ["query_id", "document_id"])
                table = table.filter(pc.is_in(table["query_id"], value_set=queries.unique()))
                stored += _joined(table["query_id"], table["document_id"]).chunks
        known = pc.is_in(asked, value_set=pa.chunked_array(stored, pa.string()))
        return int(pc.sum(known).as_py() or 0)

    def id_pairs(self, key: TeacherKey) -> np.ndarray:
        """Hashes of the (query ID, document ID) pairs that a teacher scored, see `hash_ids`."""
        hashes = [np.zeros(0, np.uint64)]
        for path in store_files.shard_paths(self.folder(key)):
            if not store_files.texts_unknown(path):
                table = store_files.read_shard(path, ["query_id", "document_id"])
                columns = (table[name].to_pylist() for name in ("query_id", "document_id"))
                hashes.append(store_files.hash_ids(*columns))
        return np.unique(np.concatenate(hashes))

    def verify(self, key: TeacherKey | None = None) -> list[Problem]:
        """Everything wrong with the files of a teacher, or of all; nothing is changed."""
        if key is None and not self.path.is_dir():
            raise InputError("no score store there", file=self.path)
        folders = [self.folder(key)] if key else sorted(self.path.glob("[!.]*"))
        return [problem for folder in folders for problem in store_verify.verify_folder(folder)]

    def _index(self, key: TeacherKey) -> PairIndex:
        check_gives_scores(key)
        index, seen = self._loaded.get(key.fingerprint, (PairIndex(), []))
        there = store_files.shard_paths(self.folder(key))
        if there[: len(seen)] != seen:  # a shard before the last one appeared or went: start over
            index, seen = PairIndex(), []
        new = there[len(seen) :]
        if new:
            columns = ["query_digest", "document_digest", "score"]
            table = pa.concat_tables(
                [store_files.read_shard(path, columns).replace_schema_metadata() for path in new]
            )
            index.add(table_keys(table), table["score"].to_numpy())
        self._loaded[key.fingerprint] = (index, there)
        return index


def check_gives_scores(key: TeacherKey) -> None:
    """Refuse teachers whose answers are about several documents: `answers.py` reads theirs."""
    if not key.gives_scores:
        raise InputError(
            f"a {key.kind} teacher's answers are not scores of single documents",
            id=key.model,
            remedy="take a pointwise teacher here",
        )


def _joined(left: pa.ChunkedArray | pa.Array, right: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    pairs = pc.binary_join_element_wise(left, right, "\x1f")
    return pairs if isinstance(pairs, pa.ChunkedArray) else pa.chunked_array([pairs])
