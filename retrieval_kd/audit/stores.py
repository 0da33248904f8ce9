"""What a score store holds, for the audit: which texts a teacher was asked about.

A store keeps IDs and digests of texts, not the texts. They are looked up in collections that were
named; where none has them, queries are compared by digest, which finds identical texts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.audit.sources import Trained
from retrieval_kd.audit.texts import TextList
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store import shards as store_files
from retrieval_kd.store.scores import ScoreStore

Texted = dict[tuple[str, bytes], None]  # (ID, digest of the text), in the order of the store


def open_store(
    folder: Path, collections: Sequence[Collection], declared: Collection | None, drops: Drops
) -> Trained:
    """The queries and documents of every teacher in a store.

    Args:
        collections: where texts are looked up; an ID counts only with the digest of its text.
        declared: the collection that `--collection` names; IDs that were imported without texts
            are taken to be its.
    """
    store = ScoreStore(folder)
    teachers = store.teachers()
    trained = Trained(f"scores:{folder}", facts={"teachers": [key.model for key in teachers]})
    queries: Texted = {}
    documents: Texted = {}
    bare: dict[str, set[str]] = {"query": set(), "document": set()}
    for key in teachers:
        for shard in store_files.shard_paths(store.folder(key)):
            table = store_files.read_shard(shard).drop_columns(["score"]).to_pydict()
            if store_files.texts_unknown(shard):
                bare["query"].update(table["query_id"])
                bare["document"].update(table["document_id"])
            else:
                queries.update(_rows(table, "query"))
                documents.update(_rows(table, "document"))
    if not queries and not bare["query"]:
        raise InputError("no scores in this store", file=folder, remedy="run `rkd score` first")
    for collection in collections:
        scope = collection.digest()
        found = _found(queries, collection.queries, "query")
        if len(found):
            trained.queries.append(TextList(trained.name, scope, collection.queries, found))
        found = _found(documents, collection.documents, "document")
        if len(found):
            trained.scored.append(TextList(trained.name, scope, collection.documents, found))
    trained.bare = {digest.hex(): id for id, digest in queries}
    if queries:
        drops.add(f"query of {trained.name} whose text no collection has: compared by digest only",
                  next(iter(queries))[0], len(queries))  # fmt: skip
    if documents:
        drops.add(f"document of {trained.name} whose text no collection has: not compared",
                  next(iter(documents))[0], len(documents))  # fmt: skip
    _by_id(trained, bare, declared, drops)
    return trained


def _rows(table: dict[str, list[Any]], noun: str) -> Texted:
    return dict.fromkeys(zip(table[f"{noun}_id"], table[f"{noun}_digest"], strict=True))


def _found(wanted: Texted, texts: Texts, noun: str) -> np.ndarray:
    """Positions of those whose text is in `texts`; they are taken out of `wanted`."""
    places = []
    for id, digest in list(wanted):
        if id not in texts:
            continue
        text = texts[id]
        if noun == "query":
            there = store_files.query_digest(text.full)
        else:
            there = store_files.document_digest(text.title, text.text)
        if there == digest.hex():
            places.append(texts.position(id))
            del wanted[id, digest]
    return np.array(places, dtype=np.int64)


def _by_id(
    trained: Trained, bare: dict[str, set[str]], declared: Collection | None, drops: Drops
) -> None:
    """Scores imported without texts: their IDs name texts of the declared collection only."""
    for noun, ids in bare.items():
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
