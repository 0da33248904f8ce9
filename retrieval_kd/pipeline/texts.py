"""The texts of a training stage that goes through them one by one, without slates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retrieval_kd.config.training import TextKind, TrainingStage
from retrieval_kd.data.draw_queries import unlabelled_queries
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.pipeline.ensemble import Ensemble
from retrieval_kd.training.batches.plain_texts import PlainTexts


def stage_texts(stage: TrainingStage, ensemble: Ensemble, rows: int, drops: Drops) -> PlainTexts:
    """Take the texts of the kinds that the stage names, at most `rows` in all, always the same.

    Empty texts and those that another one repeats are left out and counted. No query of a split
    other than the training's is among them: titles and sentences with the text of one are left out.

    Args:
        rows: number of texts the stage goes through: steps × texts of a batch.

    Raises:
        InputError: there is no text of these kinds.
    """
    queries: dict[str, None] = {}
    for kind in stage.texts:
        for id, text in _short(kind, stage, ensemble, rows, drops):
            if not text.strip():
                drops.add("empty query", id)
            elif text in queries:
                drops.add("text that another one repeats", id)
            else:
                queries[text] = None
    positions = np.zeros(0, np.int64)
    if "documents" in stage.texts:
        positions = _documents(ensemble, rows, drops)
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(queries) + len(positions))[:rows]
    if not len(chosen):
        raise InputError(
            f"the collection has no {', '.join(stage.texts)} to go through",
            remedy="name other texts, or all",
        )
    listed = list(queries)
    return PlainTexts(
        [listed[i] for i in np.sort(chosen[chosen < len(listed)])],
        positions[np.sort(chosen[chosen >= len(listed)]) - len(listed)],
    )


def _short(
    kind: TextKind, stage: TrainingStage, ensemble: Ensemble, rows: int, drops: Drops
) -> Iterator[tuple[str, str]]:
    """Yield (ID, text) of one kind of texts that are read as queries."""
    if kind == "queries":
        unlabelled = ensemble.unlabelled is not None and stage.uses_unlabelled
        for part in ("train", "unlabelled") if unlabelled else ("train",):
            yield from ensemble.queries(part).texts.items()
    elif kind != "documents":
        collection = ensemble.collection
        judged = frozenset(query.text for query in collection.queries.iterate())
        for id, text, _ in unlabelled_queries(
            collection, kind, seed=0, limit=rows, exclude=judged, drops=drops
        ):
            yield id, text


def _documents(ensemble: Ensemble, rows: int, drops: Drops) -> np.ndarray:
    """Draw positions (n,) of documents that have a text."""
    documents, kept = ensemble.collection.documents, []
    for position in np.random.default_rng(0).permutation(len(documents))[:rows]:
        document = documents.at(int(position))
        if document.full.strip():
            kept.append(position)
        else:
            drops.add("document without a text", document.id)
    return np.array(kept, np.int64)
