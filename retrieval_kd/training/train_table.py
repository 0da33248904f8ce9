"""Trains students of token tables and frozen vectors: static, residual, asymmetric, adapter ones.

No transformer runs: texts are tokenised once, at full length, and an encoder's vectors are read
from the cache. So a step takes a fraction of a second, with hundreds of whole documents, under the
same objectives, from the same pools and slates as every other student. A training takes seconds to
minutes and keeps no checkpoints: a stopped one starts over.
"""

from __future__ import annotations

import itertools
import statistics
import time
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json
from retrieval_kd.models.encode import document_vectors
from retrieval_kd.models.modules.token_table import TokenBags
from retrieval_kd.progress import bar
from retrieval_kd.schema import as_input_error
from retrieval_kd.students.dense import Representations, describe_student
from retrieval_kd.students.student import TableStudent
from retrieval_kd.training.batches.collate import PoolTargets, slate_columns, slate_tensors
from retrieval_kd.training.batches.slates import Slate, draw_slates
from retrieval_kd.training.batches.teacher_vectors import teacher_vectors
from retrieval_kd.training.job import TrainingJob, schedule
from retrieval_kd.training.objective.batch import Batch, evaluate_terms
from retrieval_kd.training.objective.term_checks import check_for_collection
from retrieval_kd.training.objective.terms import Term, with_temperature
from retrieval_kd.training.trainer.checkpoints import RECORD, at_work, finished, save_whole
from retrieval_kd.training.trainer.devices import processes

BALANCED = 128  # queries by which two halves of a vector are weighed before training
COSINES = tuple(2.0 ** (k / 2) for k in range(-3, 4))
WORDS = (1e-3, *(2.0 ** (k / 2) for k in range(-5, 4)))
HEAD_RATE = 10  # times the rate of the vectors, where `head_learning_rate` is not set


def train_table(job: TrainingJob, student: TableStudent) -> dict[str, Any]:
    """Train a student of token tables or frozen vectors, and save it in `job.out`.

    With `job.dev`, the weights of the best point of the learning curve are kept.

    Returns:
        The content of `training.json`.

    Raises:
        InputError: several processes share the training, a loss is not finite, or a term reads the
            whole collection, whose documents are trained.
    """
    fixed = student.frozen is not None and not student.frozen.of_queries
    as_input_error(check_for_collection, job.terms, fixed)
    if processes() > 1:
        raise InputError(
            "a student without a transformer to train is trained by one process",
            remedy="leave torchrun out",
        )
    job.student.to("cpu")  # tables are looked up, which a GPU does not speed up
    if not finished(job.out, job.identity):
        with at_work(job.out):
            record = {"identity": job.identity, **_Training(job, student).run()}
            save_whole(job.student, job.out, record, {})
    return read_json(job.out / RECORD)


class _Texts:
    """Texts as token bags, frozen vectors, or both."""

    def __init__(
        self, student: TableStudent, bags: TokenBags | None, side: str, base: Any = None
    ) -> None:
        self.student, self.bags, self.side, self.base = student, bags, side, base

    def represent(self, rows: np.ndarray | None) -> Representations:
        """Represent the texts at these positions; None: all, whose vectors stay on disk."""
        if rows is None:
            with warnings.catch_warnings():  # torch warns of writing to it, which nobody does
                warnings.simplefilter("ignore", UserWarning)
                return {"vector": torch.from_numpy(self.base)}  # (N, D)
        features = {} if self.bags is None else self.bags.take(rows).features()
        if self.base is not None:
            features["base"] = torch.from_numpy(np.array(self.base[rows]))  # (n, D')
        return self.student.represent(features, self.side)


class _Training:
    """One training: its texts, its parameters and its loop."""

    def __init__(self, job: TrainingJob, student: TableStudent) -> None:
        self.started = time.monotonic()
        self.job, self.student, self.settings = job, student, job.settings
        terms = [with_temperature(term, student.temperature) for term in job.terms]
        self.near = [term for term in terms if term.candidates != "collection"]
        self.far = [term for term in terms if term.candidates == "collection"]
        queries = [pool.query for pool in job.pools]
        dev = list(job.dev.queries.values()) if job.dev else []
        every = [*queries, *dev]
        texts = (document.full for document in job.documents.iterate())
        base_queries, base_documents = _frozen(job, student, every)
        self.queries = _Texts(student, student.bags(every, "query"), "query", base_queries)
        self.documents = _Texts(
            student, student.bags(texts, "document"), "document", base_documents
        )
        self.dev_rows = np.arange(len(queries), len(every))

    def run(self) -> dict[str, Any]:
        """Train, and return what `training.json` records."""
        settings, prepared = self.settings, time.monotonic()
        torch.manual_seed(settings.seed)
        optimizer = self._optimizer()
        warm = max(1, round(settings.warmup * settings.steps))
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warm, 1 - step / settings.steps)
        )
        rows = schedule(len(self.job.pools), settings, self.job.groups)
        few = settings.batch_queries if self.far else BALANCED  # against all documents: no more
        self._balance(rows[: min(few, BALANCED)])
        curve, best = [self._point(0)], self._state()
        size, taken = settings.batch_queries, []
        with bar("training", settings.steps) as progress:
            for step in range(settings.steps):
                began = time.monotonic()
                batch = rows[step * size : (step + 1) * size]
                losses = self._losses(list(zip(batch["pool"], batch["draw"], strict=True)), step)
                optimizer.zero_grad(set_to_none=False)
                torch.stack(list(losses.values())).sum().backward()
                optimizer.step()
                rate.step()
                taken.append(time.monotonic() - began)
                progress.advance()
                if (step + 1) % settings.eval_steps == 0 or step + 1 == settings.steps:
                    values = {name: round(loss.item(), 4) for name, loss in losses.items()}
                    curve.append({**self._point(step + 1), **values})
                    if curve[-1].get("dev_ndcg@10", 0.0) >= max(
                        point.get("dev_ndcg@10", 0.0) for point in curve
                    ):
                        best = self._state()
        self._restore(best)
        self.student.settle()
        return {
            "steps": settings.steps,
            "seconds": round(time.monotonic() - self.started, 2),
            "preparing_seconds": round(prepared - self.started, 2),
            "seconds_per_step": round(statistics.median(taken), 4),
            "processes": 1,
            "resumed_from_step": 0,
            "settings": settings.model_dump(exclude={"max_tokens"}),  # texts are read whole
            "curve": curve,
            "queries": len(self.job.pools),
            "terms": self.job.terms_as_json,
            "student": describe_student(self.student.model),
        }

    def _optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        head = settings.head_learning_rate or HEAD_RATE * settings.learning_rate
        groups = [
            {"params": self.student.vectors, "lr": settings.learning_rate},
            {"params": self.student.weights, "lr": head},
        ]
        for parameter in [*self.student.vectors, *self.student.weights]:
            parameter.grad = torch.zeros_like(parameter)  # dense, and the same memory in each step
        return torch.optim.Adam([group for group in groups if group["params"]], fused=True)

    @torch.no_grad()
    def _balance(self, rows: np.ndarray) -> None:
        """Let the halves of a vector, encoder and words, start with the weights that fit best.

        What fits depends on the teacher: where it ignores the words, so must the student, and
        training alone would take too many steps to get there.
        """
        halves = self.student.halves
        if halves is None:
            return
        batches = self._batches(list(zip(rows["pool"], rows["draw"], strict=True)), 0)
        tried = []
        for cosine, words in itertools.product(COSINES, WORDS):
            losses: list[Tensor] = []
            for terms, batch in batches:
                both = {"query": batch.queries["vector"], "document": batch.groups[0]["vector"]}
                queries, documents = (
                    {"vector": halves.weighed(vectors, side, cosine, words)}
                    for side, vectors in both.items()
                )
                trial = Batch(self.student, queries, [documents], batch.labels)
                losses += evaluate_terms(terms, trial).values()
            tried.append((torch.stack(losses).sum().item(), cosine, words))
        halves.weigh(*min(tried)[1:])

    def _losses(self, rows: list[tuple[int, int]], step: int) -> dict[str, Tensor]:
        losses = [evaluate_terms(terms, batch) for terms, batch in self._batches(rows, step)]
        return {name: loss for of_batch in losses for name, loss in of_batch.items()}

    def _batches(self, rows: list[tuple[int, int]], step: int) -> list[tuple[list[Term], Batch]]:
        """Return the batch of some rows with the documents of their slates, and one with all.

        Each has the terms that are evaluated on it; one without terms is left out.
        """
        slates = draw_slates(self.job.pools, rows, self.settings)
        drawn = np.unique(np.concatenate([slate.positions for slate in slates]))  # (M,)
        return [
            (terms, self._batch(rows, slates, positions, step))
            for terms, positions in ((self.near, drawn), (self.far, None))
            if terms
        ]

    def _batch(
        self,
        rows: list[tuple[int, int]],
        slates: list[Slate],
        positions: np.ndarray | None,
        step: int,
    ) -> Batch:
        pools = [self.job.pools[pool] for pool, _ in rows]
        distinct = np.arange(len(self.job.documents)) if positions is None else positions  # (M,)
        labels = {
            **slate_tensors(slates, slate_columns(slates, distinct, self.settings.slate_size)),
            **PoolTargets(pools).of(distinct),
            "vectors": {},
        }
        queries = self.queries.represent(np.array([pool for pool, _ in rows]))
        documents = self.documents.represent(positions)
        return Batch(self.student, queries, [documents], labels, step / self.settings.steps)

    @torch.no_grad()
    def _point(self, step: int) -> dict[str, float]:
        """A point of the learning curve, with nDCG@10 on dev if there is a dev task."""
        dev = self.job.dev
        if dev is None:
            return {"step": step}
        at = np.array([self.job.documents.position(id) for id in dev.document_ids])
        queries = self.queries.represent(self.dev_rows)
        scores = self.student.scores(queries, self.documents.represent(at))["score"].numpy()
        return {"step": step, "dev_ndcg@10": dev.ndcg(scores)}

    def _state(self) -> list[Tensor]:
        return [p.detach().clone() for p in [*self.student.vectors, *self.student.weights]]

    def _restore(self, state: list[Tensor]) -> None:
        for parameter, kept in zip(
            [*self.student.vectors, *self.student.weights], state, strict=True
        ):
            parameter.data.copy_(kept)


def _frozen(job: TrainingJob, student: TableStudent, queries: list[str]) -> tuple[Any, Any]:
    """Return the frozen model's vectors of queries and of all documents; None: not needed."""
    frozen = student.frozen
    if frozen is None:
        return None, None
    read: dict[str, Any] = {
        "max_length": job.teacher_length or frozen.max_length,
        "digest": frozen.digest,
    }
    if not frozen.of_queries:
        return None, document_vectors(frozen.spec, job.documents, **read)
    vectors = teacher_vectors(frozen.spec, queries, job.documents, **read)
    return vectors.queries, vectors.documents
