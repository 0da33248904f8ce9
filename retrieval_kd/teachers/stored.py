"""Read stored scores and comparisons of a collection's queries, for training and diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.scores import ScoreTable, ranges, with_relevant
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.digests import query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.comparing.conclude import (
    PairPreferences,
    conclude_pairs,
    latest_strategies,
)
from retrieval_kd.teachers.score import scores_of


def stored_scores(
    collection: Collection,
    queries: Mapping[str, str],
    store_path: Path,
    teachers: Sequence[str],
    candidates: Mapping[str, Iterable[str]] | None,
    drops: Drops,
    qrels: Qrels | None = None,
) -> list[ScoreTable]:
    """For each teacher: query ID → document ID → raw score.

    Scores of texts that have changed in the collection are left out and counted in `drops`.

    Args:
        teachers: names or fingerprints; by default the store's only teacher. `?aggregate=NAME`
            after a comparing teacher's name chooses how comparisons become scores, see
            `conclude.conclude_scores`.
        candidates: the pairs to read; by default all stored pairs of these queries.
        qrels: relevant documents outside the candidates are included where they are stored.

    Raises:
        InputError: a teacher is unknown, or has scored none of these queries.
    """
    store = ScoreStore(store_path)
    names = [name.partition("?aggregate=") for name in teachers]
    keys = [store.resolve(name) for name, _, _ in names] or [store.only()]
    aggregations = [how or None for _, _, how in names] or [None]
    all_scores = []
    for key, aggregate in zip(keys, aggregations, strict=True):
        if candidates is None:
            pairs = known_pairs(collection, queries, store, key, drops)
        else:
            pairs = ScoreTable.of(candidates, collection.documents)
        judged = with_relevant(pairs, qrels or {}, collection.documents)
        scores = scores_of(collection, queries, judged, store, key, aggregate)
        if not scores:
            raise InputError(
                f"teacher {key.model} has scored none of these queries' documents",
                file=store_path,
                remedy="run `rkd score` with candidates of this collection and split",
            )
        missing = int((scores.places(pairs) < 0).sum())
        if missing:
            drops.add(
                f"pair without an answer of {key.model} about its present texts",
                pairs.queries[0],
                missing,
            )
        all_scores.append(scores)
    return all_scores


def stored_pairs(
    collection: Collection,
    queries: Mapping[str, str],
    store_path: Path,
    teacher: str,
    candidates: Mapping[str, Mapping[str, float]],
    qrels: Qrels,
) -> dict[str, PairPreferences]:
    """Read a pairwise teacher's comparisons of each query's candidates.

    Args:
        teacher: its name or fingerprint.
        qrels: relevant documents outside the candidates are included where they were compared.
    """
    store = ScoreStore(store_path)
    key = store.resolve(teacher)
    ours = {query: ids for query, ids in candidates.items() if query in queries}
    judged = with_relevant(ours, qrels, collection.documents).ids()
    return conclude_pairs(collection, queries, judged, AnswerStore(store.folder(key), key))


def known_pairs(
    collection: Collection,
    queries: Mapping[str, str],
    store: ScoreStore,
    key: TeacherKey,
    drops: Drops,
) -> ScoreTable:
    """The stored pairs of these queries, without their scores; each query's in order of their IDs.

    Queries are matched by text: the store may have the text under another query's ID.
    """
    ids = list(queries)
    rows, documents = _stored_pairs(queries, store, key)
    encoded = documents.dictionary_encode().combine_chunks()
    names = encoded.dictionary.to_pylist()
    positions, codes = collection.documents.positions(names), encoded.indices.to_numpy()
    lacking = positions[codes] < 0
    if lacking.any():
        first = names[codes[lacking.argmax()]]
        what = "stored score of a document that the collection lacks"
        drops.add(what, first, int(lacking.sum()))
        rows, codes = rows[~lacking], codes[~lacking]
    by_name = pc.sort_indices(encoded.dictionary).to_numpy()  # UTF-8 sorts as the characters do
    rank = np.empty(len(names), np.int64)
    rank[by_name] = np.arange(len(names))
    first_row = np.full(len(ids), len(rows))
    np.minimum.at(first_row, rows, np.arange(len(rows)))
    asked = np.argsort(first_row)[: (first_row < len(rows)).sum()]  # in the order they were stored
    place = np.empty(len(ids), np.int64)
    place[asked] = np.arange(len(asked))
    pairs = place[rows]  # there may be many: no more columns of them than must be
    pairs *= len(names)
    pairs += rank[codes]
    del rows, codes, documents, encoded
    pairs.sort()
    new = np.ones(len(pairs), bool)
    np.not_equal(pairs[1:], pairs[:-1], out=new[1:])
    pairs = pairs[new]
    starts = np.searchsorted(pairs, np.arange(len(asked) + 1) * len(names))
    pairs %= max(1, len(names))  # ranks (n,)
    return ScoreTable(
        [ids[row] for row in asked.tolist()],
        starts,
        positions[by_name][pairs],
        np.full(len(pairs), np.nan, np.float32),
        collection.documents,
    )


def _stored_pairs(
    queries: Mapping[str, str], store: ScoreStore, key: TeacherKey
) -> tuple[np.ndarray, pa.ChunkedArray]:
    """Find the stored pairs of queries, by the digests of their texts, else by their IDs.

    Returns:
        Row of the query (n,) and document ID (n,) of each pair, in the order stored.
    """
    rows_of: dict[str, list[int]] = {}
    for row, text in enumerate(queries.values()):
        rows_of.setdefault(query_digest(text), []).append(row)
    texts = pa.array([bytes.fromhex(digest) for digest in rows_of], pa.binary(16))
    ids, count = pa.array(list(queries), pa.string()), len(rows_of)
    # a pair is of the queries of a text or, if no query has it, of a query by ID
    asked = np.array([*chain.from_iterable(rows_of.values()), *range(len(ids))], np.int64)
    starts = np.cumsum([0, *map(len, rows_of.values()), *([1] * len(ids))])
    rows, documents = [np.zeros(0, np.int64)], [pa.array([], pa.string())]
    for table in _stored_rows(store, key):
        by_id = pc.add(pc.index_in(table["query_id"], ids), count)
        found = pc.coalesce(pc.index_in(table["query_digest"], texts), by_id)
        known = np.flatnonzero(found.is_valid().to_numpy())
        group = found.drop_null().to_numpy()
        counts = np.diff(starts)[group]
        rows.append(asked[ranges(starts[group], counts)])
        documents += table["document_id"].take(pa.array(np.repeat(known, counts))).chunks
    return np.concatenate(rows), pa.chunked_array(documents)


def _stored_rows(store: ScoreStore, key: TeacherKey) -> Iterator[pa.Table]:
    """Read the IDs and the query's digest of every stored pair."""
    columns = {"query_id": pa.string(), "query_digest": pa.binary(16), "document_id": pa.string()}
    if key.is_pointwise:
        yield from (table.select(list(columns)) for table in store.tables(key))
        return
    answers = AnswerStore(store.folder(key), key)
    for row in latest_strategies(answers, answers.queries()):
        digest, count = bytes.fromhex(row.query_digest), len(row.document_ids)
        values = [[row.query_id] * count, [digest] * count, list(row.document_ids)]
        yield pa.table(values, schema=pa.schema(columns))
