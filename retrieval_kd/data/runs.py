"""Runs: ranked documents with scores for each query, in memory and as TREC run files."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from retrieval_kd.data.numerals import finite_number, whole_number
from retrieval_kd.data.rows import Reading, check_id
from retrieval_kd.data.sources import file_lines
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.files import atomic_path

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection

COLUMNS = "write query, Q0, document, rank, score, name, separated by spaces or tabs"


@dataclass(frozen=True)
class Run:
    """A system's rankings: query ID → document ID → score, in the order of `ranked`.

    Example:
        >>> Run("demo", {"q1": {"d2": 1.0, "d9": 3.0, "d1": 1.0}}).results
        {'q1': {'d9': 3.0, 'd2': 1.0, 'd1': 1.0}}
    """

    name: str
    results: dict[str, dict[str, float]]

    def __post_init__(self) -> None:
        ordered = {}
        for query_id, scores in self.results.items():
            values = np.fromiter(scores.values(), np.float64, len(scores))
            if not np.isfinite(values).all():
                at = int(np.flatnonzero(~np.isfinite(values))[0])
                what = f"score {values[at]} of document {list(scores)[at]}"
                raise InputError(f"run {self.name}: {what} is not a finite number", id=query_id)
            ordered[query_id] = ranked(scores)
        object.__setattr__(self, "results", ordered)

    def __len__(self) -> int:
        return len(self.results)

    def top(self, depth: int | None) -> Run:
        """Cut the run to the first `depth` documents of each query; None keeps all."""
        cut = {
            query: dict(list(ranking.items())[:depth]) for query, ranking in self.results.items()
        }
        return Run(self.name, cut)


def ranked(scores: Mapping[str, float]) -> dict[str, float]:
    """Sort scores by document ID in trec_eval's order: highest first, ties by ID, descending.

    Every order by score that a figure depends on is made here. Scores tie if they are equal in
    single precision, in which trec_eval holds them.

    Example:
        >>> ranked({"a": 1.0, "b": 1.000000000001, "c": 1.0, "d": 2.0})
        {'d': 2.0, 'c': 1.0, 'b': 1.000000000001, 'a': 1.0}
    """
    ids = list(scores)
    values = np.fromiter(scores.values(), np.float64, len(ids))
    compared = single(values)
    order = np.argsort(-compared)
    falling = compared[order]
    if (falling[1:] == falling[:-1]).any():  # comparing IDs is slow, so only where scores tie
        by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__, reverse=True))
        order = by_id[np.argsort(-compared[by_id], kind="stable")]
    return {ids[i]: score for i, score in zip(order.tolist(), values[order].tolist(), strict=True)}


def single(scores: np.ndarray) -> np.ndarray:
    """Round scores to single precision; beyond its range they are infinite, and so tie."""
    with np.errstate(over="ignore"):
        return scores.astype(np.float32)


def write_run(run: Run, path: str | Path) -> None:
    """Write TREC's six columns, gzipped if the name ends in `.gz`; scores keep every digit.

    A query without documents has no line, as in every TREC file, and is counted in a warning.
    """
    drops = Drops()
    tag = re.sub(r"\s+", "_", run.name.strip()) or "run"
    gzipped = Path(path).suffix == ".gz"
    with atomic_path(path) as temporary, open(temporary, "wb") as raw, _text(raw, gzipped) as out:
        for query_id, ranking in run.results.items():
            check_id(query_id, "query")
            if not ranking:
                drops.add("query without results has no line in the run file", query_id)
            for rank, (document_id, score) in enumerate(ranking.items(), start=1):
                check_id(document_id, "document")
                out.write(f"{query_id} Q0 {document_id} {rank} {score!r} {tag}\n")
    drops.warn(str(path))


def _text(raw: IO[bytes], gzipped: bool) -> io.TextIOWrapper:
    """Leave name and time out of the gzip header, so that equal runs are equal files."""
    handle = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if gzipped else raw
    return io.TextIOWrapper(cast(IO[bytes], handle), encoding="utf-8", newline="\n")


def read_run(path: str | Path) -> Run:
    """Read a TREC run file. Documents are ordered by score; the rank column is ignored.

    Example:
        >>> import tempfile; path = Path(tempfile.mkdtemp()) / "demo.trec"
        >>> write_run(Run("demo", {"q1": {"d1": 0.1, "d2": 2.5}}), path)
        >>> print(path.read_text().strip())
        q1 Q0 d2 1 2.5 demo
        q1 Q0 d1 2 0.1 demo
        >>> read_run(path)
        Run(name='demo', results={'q1': {'d2': 2.5, 'd1': 0.1}})
    """
    reading, name = Reading(), ""
    results: dict[str, dict[str, float]] = {}
    for number, text in file_lines(path, reading):
        cells = text.split()
        if len(cells) != 6:
            problem = f"{len(cells)} columns where a run has 6"
            raise InputError(problem, file=path, line=number, remedy=COLUMNS)
        query_id, _, document_id, rank, score, tag = cells
        if "\0" in text:
            check_id(query_id, "query", str(path), number)
            check_id(document_id, "document", str(path), number)
        if whole_number(rank) is None:
            problem = f"rank {rank!r} is not a whole number"
            raise InputError(problem, file=path, line=number, remedy=COLUMNS)
        scores = results.setdefault(query_id, {})
        if document_id in scores:
            problem = f"document twice in the results of query {query_id}"
            remedy = "keep one of the two lines"
            raise InputError(problem, file=path, line=number, id=document_id, remedy=remedy)
        value = finite_number(score)
        if value is None:
            problem = f"score {score!r} is not a finite number"
            raise InputError(problem, file=path, line=number, remedy=COLUMNS)
        scores[document_id] = value
        name = name or tag
        if tag != name:
            reading.drops.add(f"line of a different run, read as {name}", f"{tag} at line {number}")
    if not results:
        raise InputError("a run file without a single line", file=path, remedy=COLUMNS)
    reading.drops.warn(str(path))
    return Run(name, results)


def check_run(run: Run, collection: Collection) -> None:
    """Refuse a run with query or document IDs that are not in the collection."""
    documents = dict.fromkeys(d for ranking in run.results.values() for d in ranking)
    kinds = (
        ("query", run.results, collection.queries),
        ("document", documents, collection.documents),
    )
    for noun, ids, texts in kinds:
        unknown = [id for id in ids if id not in texts]
        if unknown:
            raise InputError(
                f"run {run.name} names {len(unknown)} of {len(ids)} {noun} IDs that are not in "
                f"collection {collection.name}: {', '.join(unknown[:5])}"
                + (", …" if len(unknown) > 5 else ""),
                remedy="check that the run was made on this collection",
            )
