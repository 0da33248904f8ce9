"""How much there is to do in a run: queries, candidates, pairs, texts and their tokens.

What earlier stages have left is counted exactly. What they have not is counted as they would make
it: queries are chosen as the run chooses them, a list of candidates is as long as the first stage
makes it at most, and lengths are those of a sample.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from retrieval_kd.config.training import TrainingStage
from retrieval_kd.data.draw_queries import unlabelled_queries
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.models.names import resolve_model
from retrieval_kd.pipeline.cloze import QUERIES
from retrieval_kd.pipeline.context import PARTS, RunContext
from retrieval_kd.pipeline.costs import candidate_counts
from retrieval_kd.pipeline.queries import MOST_READ, ChosenQueries, Queries
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.teachers.kinds import KINDS
from retrieval_kd.teachers.score import scores_of
from retrieval_kd.teachers.spec import parse_spec

SAMPLE = 400  # texts whose tokens are counted, of each sort
LOOKED_UP = ("pointwise", "dense", "sparse", "multi_vector", "bm25", "bm25-lucene")
WORD_TOKENS = 4 / 3  # tokens of a word, where no tokenizer is at hand


class Amounts:
    """The amounts of one run; nothing is written, and no model is loaded."""

    def __init__(self, context: RunContext, like: Amounts | None = None) -> None:
        """Count for a run; `like` is of the same collection, and lends its sample of texts."""
        self.context, self.config = context, context.config
        self.documents = len(context.collection.documents)
        self._is_done = {s.name: context.work.done(s) for s in context.work.stages[:2]}
        self._tokenizers: dict[str, Any] = like._tokenizers if like else {}
        self._lists: dict[Any, list[int]] = like._lists if like else {}
        self._drawn_texts: dict[Any, int] = like._drawn_texts if like else {}
        self.bm25_seconds: float | None = like.bm25_seconds if like else None  # of a query
        if like is not None:
            self.sample_queries = like.sample_queries
            self.sample_documents, self.sample_pairs = like.sample_documents, like.sample_pairs

    @property
    def has_candidates(self) -> bool:
        """Whether the lists of candidates are on disk, and counts are exact."""
        return all(self._is_done.values())

    @cached_property
    def queries(self) -> dict[str, Queries]:
        """The queries of each part. Those of a large collection's texts are not drawn."""
        if self._is_done["queries"]:
            return {part: self.context.queries(part) for part in PARTS}
        config, unlabelled = self.config, self.config.unlabelled
        if self.documents > MOST_READ and unlabelled and unlabelled.kind != "queries":
            config = config.model_copy(update={"unlabelled": None})
        return ChosenQueries(config, self.context.collection).parts(Drops())

    def query_count(self, part: str) -> int:
        """Number of queries of a part; `cloze`: the sentences that weigh the teachers."""
        if part == "cloze":
            return min(QUERIES, self.documents)
        count, limit = len(self.queries[part].texts), self.config.unlabelled
        undrawn = part == "unlabelled" and limit is not None and not count
        return limit.limit if undrawn and limit else count

    def depths(self, part: str) -> list[int]:
        """Number of candidates of each query of a part, with judged ones where they are known."""
        if self.has_candidates and part != "cloze":
            return candidate_counts(self.context, part)
        return [min(self.config.first_stage.depth, self.documents)] * self.query_count(part)

    def stored(self, member: str, part: str) -> int:
        """Number of a part's pairs that the store has already, of a teacher that scores pairs."""
        if not self.has_candidates or parse_spec(member).kind not in LOOKED_UP or part == "cloze":
            return 0
        ensemble = self.context.ensemble
        try:
            key = ensemble.open(member).key
        except InputError:  # a teacher that an earlier stage makes
            return 0
        texts, wanted = self.queries[part].texts, ensemble.wanted(part)
        named = wanted.of_queries([query for query in wanted if query in texts])
        return scores_of(self.context.collection, texts, named, ensemble.store, key).pairs

    def text_stage(self, stage: TrainingStage, rows: int) -> dict[str, int]:
        """Number of texts that a stage over texts goes through: read as queries, documents."""
        short = 0
        for kind in stage.texts:
            if kind == "queries":
                parts = ("train", "unlabelled") if stage.uses_unlabelled else ("train",)
                short += sum(map(self.query_count, parts))
            elif kind != "documents":
                short += len(self._drawn(kind, rows))
        long = min(self.documents, rows) if "documents" in stage.texts else 0
        kept = min(1.0, rows / max(1, short + long))
        return {"queries": round(short * kept), "documents": round(long * kept)}

    def _drawn(self, kind: Any, rows: int) -> Sequence[Any]:
        if self.documents > MOST_READ:
            return range(min(rows, self.documents * (1 if kind == "titles" else 2)))
        key = (kind, rows)
        if key not in self._drawn_texts:
            drawn = unlabelled_queries(
                self.context.collection, kind, seed=0, limit=rows, drops=Drops()
            )
            self._drawn_texts[key] = len(drawn)
        return range(self._drawn_texts[key])

    # -- lengths of texts --------------------------------------------------------------------

    @cached_property
    def sample_queries(self) -> dict[str, str]:
        """Some queries of those that are trained on, or of test: query ID → text."""
        for part in ("unlabelled", "train", "test"):
            texts = self.queries[part].texts
            if texts:
                chosen = np.random.default_rng(0).permutation(sorted(texts))[:SAMPLE]
                return {str(query): texts[str(query)] for query in chosen}
        return {}

    @cached_property
    def sample_documents(self) -> list[str]:
        """Texts of some documents, drawn evenly."""
        texts = self.context.collection.documents
        chosen = np.random.default_rng(0).permutation(self.documents)[:SAMPLE]
        return [texts.at(int(position)).full for position in chosen]

    @cached_property
    def sample_pairs(self) -> list[tuple[str, str]]:
        """Some queries with documents that BM25 finds for them, which are longer than most.

        Of a large collection the documents are drawn evenly.
        """
        collection, queries = self.context.collection, dict(list(self.sample_queries.items())[:40])
        if self.documents > MOST_READ:
            pool = self.sample_documents
            return [
                (text, pool[n % len(pool)]) for n, text in enumerate(self.sample_queries.values())
            ]
        depth = min(10, self.config.first_stage.depth)
        bm25_run(collection, dict(list(queries.items())[:4]), depth)  # makes or opens the index
        start = time.perf_counter()
        run = bm25_run(collection, queries, depth)
        self.bm25_seconds = (time.perf_counter() - start) / max(1, len(queries))
        return [
            (queries[query], collection.documents[document].full)
            for query, ranked in run.results.items()
            for document in ranked
        ]

    def query_tokens(self, model: str, length: int | None) -> float:
        """Mean tokens of a query, for a model that cuts at `length`."""
        return _mean(self._counts(model, "queries", list(self.sample_queries.values())), length)

    def document_tokens(self, model: str, length: int | None) -> float:
        """Mean tokens of a document."""
        return _mean(self._counts(model, "documents", self.sample_documents), length)

    def candidate_tokens(self, model: str, length: int | None) -> float:
        """Mean tokens of a document that a first stage finds."""
        texts = [text for _, text in self.sample_pairs]
        return _mean(self._counts(model, "found", texts), length)

    def pair_tokens(self, model: str, length: int | None) -> float:
        """Mean tokens of a query and a candidate, cut at `length` together."""
        left = self._counts(model, "asked", [query for query, _ in self.sample_pairs])
        right = self._counts(model, "found", [document for _, document in self.sample_pairs])
        return _mean([a + b for a, b in zip(left, right, strict=True)], length)

    def _counts(self, model: str, sort: str, texts: Sequence[str]) -> list[int]:
        if (model, sort) not in self._lists:
            self._lists[model, sort] = self._lengths(model, texts)
        return self._lists[model, sort]

    def _lengths(self, model: str, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, with the model's special ones, before it is cut."""
        tokenizer = self._tokenizer(model)
        if tokenizer is None:
            return [round(len(text.split()) * WORD_TOKENS) for text in texts]
        encoded = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return list(map(len, encoded))

    def _tokenizer(self, model: str) -> Any:
        """The model's tokenizer; None where it is not here, as of a model on a server."""
        if model not in self._tokenizers:
            try:
                ref = resolve_model(model)
                self._tokenizers[model] = AutoTokenizer.from_pretrained(
                    ref.location, revision=ref.revision
                )
            except Exception:  # hub and tokenizer libraries raise all kinds
                self._tokenizers[model] = None
        return self._tokenizers[model]


def is_served(context: RunContext, member: str) -> bool:
    """Whether a teacher runs on the configured server."""
    return member in context.config.teacher.served


def is_comparing(member: str) -> bool:
    """Whether a teacher compares documents instead of scoring them one by one."""
    return KINDS[parse_spec(member).kind].compares


def distinct(draws: float, of: int) -> float:
    """Expected number of different ones in `draws` even draws of `of`.

    Example:
        >>> round(distinct(64, 1000)), round(distinct(3000, 1000))
        (62, 950)
    """
    return of * (1 - (1 - 1 / of) ** draws) if of else 0.0


def _mean(counts: Sequence[int], length: int | None) -> float:
    """Mean of numbers of tokens, cut at `length`."""
    cut = [min(length, n) for n in counts] if length is not None else counts
    return float(np.mean(cut)) if cut else 0.0
