"""A score store as training data: the texts that its teachers scored.

A store has IDs and digests, but no texts. Texts are looked up in the collections at hand. Queries
that no collection has are compared by digest, which finds identical texts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.audit.sources import TrainingTexts
from retrieval_kd.audit.texts import TextList
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store.digests import document_digest, query_digest
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.shards import read_shard, shard_paths, texts_unknown

Identities = dict[tuple[str, bytes], None]  # (ID, digest of the text), in the order of the store


def open_store(
    folder: Path, collections: Sequence[Collection], declared: Collection | None, drops: Drops
) -> TrainingTexts:
    """Open the queries and documents that the teachers of a store scored.

    Args:
        collections: to look up texts in; an ID counts only with the digest of its text.
        declared: the collection of `--collection`. IDs that were imported without texts are
            assumed to be of this collection.
    """
    store = ScoreStore(folder)
    teachers = store.teachers()
    trained = TrainingTexts(f"scores:{folder}", facts={"teachers": [key.model for key in teachers]})
    queries: Identities = {}
    documents: Identities = {}
    ids_only: dict[str, set[str]] = {"query": set(), "document": set()}
    for key in teachers:
        for shard in shard_paths(store.folder(key)):
            table = read_shard(shard).drop_columns(["score"]).to_pydict()
            if texts_unknown(shard):
                ids_only["query"].update(table["query_id"])
                ids_only["document"].update(table["document_id"])
            else:
                queries.update(_rows(table, "query"))
                documents.update(_rows(table, "document"))
    if not queries and not ids_only["query"]:
        raise InputError("no scores in this store", file=folder, remedy="run `rkd score` first")
    for collection in collections:
        scope = collection.digest()
        positions = _take_found(queries, collection.queries, "query")
        if len(positions):
            trained.queries.append(TextList(trained.name, scope, collection.queries, positions))
        positions = _take_found(documents, collection.documents, "document")
        if len(positions):
            trained.scored.append(TextList(trained.name, scope, collection.documents, positions))
    trained.query_digests = {digest.hex(): id for id, digest in queries}
    if queries:
        drops.add(f"query of {trained.name} whose text no collection has: compared by digest only",
                  next(iter(queries))[0], len(queries))  # fmt: skip
    if documents:
        drops.add(f"document of {trained.name} whose text no collection has: not compared",
                  next(iter(documents))[0], len(documents))  # fmt: skip
    _add_by_id(trained, ids_only, declared, drops)
    return trained


def _rows(table: dict[str, list[Any]], noun: str) -> Identities:
    return dict.fromkeys(zip(table[f"{noun}_id"], table[f"{noun}_digest"], strict=True))


def _take_found(wanted: Identities, texts: Texts, noun: str) -> np.ndarray:
    """Positions of the texts that `texts` has; their entries are removed from `wanted`."""
    places = []
    for id, digest in list(wanted):
        if id not in texts:
            continue
        text = texts[id]
        if noun == "query":
            known = query_digest(text.full)
        else:
            known = document_digest(text.title, text.text)
        if known == digest.hex():
            places.append(texts.position(id))
            del wanted[id, digest]
    return np.array(places, dtype=np.int64)


def _add_by_id(
    trained: TrainingTexts, ids_only: dict[str, set[str]], declared: Collection | None, drops: Drops
) -> None:
    """Add scores that were imported without texts: look up their IDs in the declared collection."""
    for noun, ids in ids_only.items():
        texts = None
        if declared is not None:
            texts = declared.queries if noun == "query" else declared.documents
        known = sorted(id for id in ids if texts is not None and id in texts)
        if texts is not None and declared is not None and known:
            places = np.array([texts.position(id) for id in known], dtype=np.int64)
            lists = trained.queries if noun == "query" else trained.scored
            lists.append(TextList(trained.name, declared.digest(), texts, places))
        if len(known) < len(ids):
            drops.add(
                f"{noun} of {trained.name} known by its ID alone: not compared (--collection may "
                "name its collection)",
                min(ids.difference(known)),
                len(ids) - len(known),
            )
