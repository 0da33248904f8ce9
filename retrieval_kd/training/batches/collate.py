"""Turns rows of the training schedule into a batch: token IDs, targets and masks.

A document that occurs twice in a batch is encoded once. Documents are split into groups of similar
length, and each group is padded to its longest document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from retrieval_kd.data.texts import Texts
from retrieval_kd.training.batches.slates import Pool, Slate, draw_slates
from retrieval_kd.training.batches.teacher_vectors import TeacherVectors
from retrieval_kd.training.trainer.settings import TrainSettings

NO_QUERIES = "no_queries"  # label of a batch that begins with a group of documents


@dataclass
class SlateCollator(SentenceTransformerDataCollator):
    """Collates schedule rows `{"pool": int, "draw": int}`.

    The result has the columns `query_*` and `group0_*`, `group1_*`, … that Sentence Transformers'
    trainer gathers, and under `label` a dict of tensors:

    - `columns (B, N)`: places of each slate's documents among the batch's M distinct documents;
    - `mask (B, N)`: false where a slate is shorter than N;
    - `teacher`, `gains (B, N)`: targets and judgments of the slate (teacher NaN: no score);
    - `preferences (B, N, N)`: P(i is better than j) by a pairwise teacher, if the pools have it
      (NaN: not compared);
    - `batch_teacher`, `batch_gains (B, M)`: the same for every document of the batch that is a
      candidate of the query; −inf and 0 for other documents;
    - `batch_mask (B, M)`: false for the documents that the query's pool ignores;
    - `batch_members (T, B, M)`: scores of each single teacher, if the pools have them;
    - `positions (M,)` and `pool_targets`, if `gathers`: to look up other processes' documents;
    - `texts`, if `keep_texts`, for live teachers: `queries` (B) and `documents` (M);
    - `vectors`: `queries (B, D)` and `documents (M, D)` for each MODEL whose vectors are targets.

    A row always returns the same slate, so that a resumed training sees the same slates.
    """

    pools: Sequence[Pool] = field(default_factory=list)
    texts: Texts | None = None
    settings: TrainSettings = field(default_factory=TrainSettings)
    vectors: Mapping[str, TeacherVectors] = field(default_factory=dict)
    keep_texts: bool = False
    gathers: bool = False

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [(int(row["pool"]), int(row["draw"])) for row in features]
        pools = [self.pools[index] for index, _ in rows]
        slates = draw_slates(self.pools, rows, self.settings)
        distinct = np.unique(np.concatenate([slate.positions for slate in slates]))  # (M,)
        assert self.texts is not None
        documents = [self.texts.at(int(at)).full for at in distinct]
        order = np.argsort([-len(text) for text in documents], kind="stable")
        distinct = distinct[order]
        documents = [documents[i] for i in order]
        columns = slate_columns(slates, distinct, self.settings.slate_size)

        queries = [pool.query for pool in pools]
        batch = tokenised(self, queries, documents, self.settings.group_size)
        batch["label"] = {
            **slate_tensors(slates, columns),
            **PoolTargets(pools).of(distinct),
            "vectors": {
                model: vectors.of_batch([index for index, _ in rows], distinct)
                for model, vectors in self.vectors.items()
            },
        }
        if self.gathers:
            batch["label"] |= {
                "positions": torch.from_numpy(distinct),
                "pool_targets": PoolTargets(pools),
            }
        if self.keep_texts:
            batch["label"]["texts"] = {"queries": queries, "documents": documents}
        return batch


def tokenised(
    collator: SentenceTransformerDataCollator,
    queries: Sequence[str],
    documents: Sequence[str],
    group_size: int,
) -> dict[str, Any]:
    """Return the columns `query_*` of queries, if there are any, and `group0_*` … of documents."""
    prompts: Any = collator.prompts or {}
    columns = {"query": queries} if queries else {}
    for start in range(0, len(documents), group_size):
        columns[f"group{start // group_size}"] = documents[start : start + group_size]
    batch: dict[str, Any] = {}
    for column, texts in columns.items():
        task = "query" if column == "query" else "document"
        tokens = collator.preprocess_fn(list(texts), task=task, prompt=prompts.get(task))
        batch.update({f"{column}_{name}": value for name, value in tokens.items()})
    return batch


def slate_columns(slates: Sequence[Slate], distinct: np.ndarray, size: int) -> np.ndarray:
    """Return the places (B, N) of each slate's documents among the documents `distinct (M,)`."""
    order = np.argsort(distinct)
    columns = np.zeros((len(slates), size), dtype=np.int64)
    for row, slate in enumerate(slates):
        columns[row, : len(slate.positions)], _ = _places(distinct, order, slate.positions)
    return columns


def _places(
    distinct: np.ndarray, order: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of those of some positions that are among the documents `distinct (M,)`.

    Args:
        order: what sorts `distinct`.

    Returns:
        The places, and which of the positions are there.
    """
    at = order[np.minimum(np.searchsorted(distinct, positions, sorter=order), len(order) - 1)]
    there = distinct[at] == positions
    return at[there], there


def slate_tensors(slates: Sequence[Slate], columns: np.ndarray) -> dict[str, torch.Tensor]:
    """Return `columns`, `mask`, `teacher` and `gains`, all (B, N), of slates.

    If the slates have them, `preferences (B, N, N)` too.
    """
    mask = np.zeros(columns.shape, dtype=bool)
    teacher = np.full(columns.shape, np.nan, dtype=np.float32)
    gains = np.zeros(columns.shape, dtype=np.int64)
    for row, slate in enumerate(slates):
        n = len(slate.positions)
        mask[row, :n] = True
        teacher[row, :n] = slate.teacher
        gains[row, :n] = slate.gains
    arrays = {"columns": columns, "mask": mask, "teacher": teacher, "gains": gains}
    compared = {row: s.preferences for row, s in enumerate(slates) if s.preferences is not None}
    if compared:
        arrays["preferences"] = np.full((*columns.shape, columns.shape[1]), np.nan, np.float32)
        for row, preferences in compared.items():
            n = len(preferences)
            arrays["preferences"][row, :n, :n] = preferences
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@dataclass(frozen=True)
class PoolTargets:
    """Targets of a batch's queries, from their whole pools."""

    pools: Sequence[Pool]

    def of(self, distinct: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the `batch_…` tensors (B, M) of the queries and the documents `distinct (M,)`."""
        teacher = np.full((len(self.pools), len(distinct)), -np.inf, dtype=np.float32)  # (B, M)
        gains = np.zeros((len(self.pools), len(distinct)), dtype=np.int64)  # (B, M)
        teachers = 0 if self.pools[0].members is None else len(self.pools[0].members)
        members = np.full((teachers, *teacher.shape), -np.inf, dtype=np.float32)  # (T, B, M)
        mask = np.ones(teacher.shape, dtype=bool)  # (B, M)
        order = np.argsort(distinct)
        for row, pool in enumerate(self.pools):
            ignored, _ = _places(distinct, order, pool.ignored)
            at, there = _places(distinct, order, pool.positions)
            mask[row, ignored] = False
            mask[row, at] = True
            teacher[row, at] = pool.teacher[there]
            gains[row, at] = pool.gains[there]
            if pool.members is not None:
                members[:, row, at] = pool.members[:, there]
        batch = {"batch_teacher": teacher, "batch_gains": gains, "batch_mask": mask}
        if self.pools[0].members is not None:
            batch["batch_members"] = members
        return {name: torch.from_numpy(array) for name, array in batch.items()}
