"""Choose the queries of a run: train, dev, test, and unlabelled ones that only teachers score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrieval_kd.config.run import Config
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.draw_queries import (
    each_once,
    held_out,
    normalise,
    unlabelled_queries,
)
from retrieval_kd.data.query_files import read_log
from retrieval_kd.data.rows import Qrels
from retrieval_kd.errors import Drops, InputError

FEWEST_DEV_QUERIES = 10
MOST_READ = 200_000  # documents that are looked at before a run: some seconds


@dataclass(frozen=True)
class Queries:
    """The queries of one part: texts, judgments and sources (both may be empty)."""

    texts: dict[str, str]
    qrels: Qrels
    sources: dict[str, str]  # unlabelled query → the document it is from


class ChosenQueries:
    """Chooses the queries of one configuration; always the same ones."""

    def __init__(self, config: Config, collection: Collection) -> None:
        self.config, self.collection = config, collection

    def parts(self, drops: Drops) -> dict[str, Queries]:
        """Return train, dev, test and unlabelled queries; no other part has a test query's text."""
        splits = self.config.splits
        test = sample(self.collection.query_texts(splits.test), splits.test_queries, 1)
        train: dict[str, str] = {}
        if splits.train is not None:
            train = self._without(splits.train, {"test": test}, drops)
        if splits.dev is None:
            dev = self._set_aside(train, splits.train) if splits.train is not None else {}
        else:
            dev = self._without(splits.dev, {"test": test}, drops)
            dev = sample(dev, splits.dev_queries, 2)
        dev_texts = {normalise(text) for text in dev.values()}
        train = {
            q: text
            for q, text in train.items()
            if q not in dev and (not splits.drop_overlap or normalise(text) not in dev_texts)
        }
        everything, train = train, sample(train, splits.train_queries, 3)
        log = {q: text for q, text in everything.items() if q not in train}
        chosen = {
            "train": (splits.train, train),
            "dev": (splits.dev or splits.train, dev),
            "test": (splits.test, test),
        }
        parts = {}
        for part, (split, texts) in chosen.items():
            qrels = self.collection.qrels(split) if split is not None else {}
            parts[part] = Queries(texts, {q: qrels[q] for q in texts}, {})
        if self.config.unlabelled is not None and self.config.unlabelled.log is not None:
            log = self._logged(self.config.unlabelled.log, chosen, drops)
        return {**parts, "unlabelled": self._unlabelled(log, chosen, drops)}

    def _logged(
        self, log: str, chosen: Mapping[str, tuple[str | None, dict[str, str]]], drops: Drops
    ) -> dict[str, str]:
        """Return the queries of a log, which is a split or a file, that no part has."""
        if log in self.collection.splits:
            queries = self.collection.query_texts(log)
        else:
            queries = read_log(log)
        parts = {part: texts for part, (_, texts) in chosen.items()}
        return self._not_among(each_once(queries, drops), "logged", parts, drops)

    def _set_aside(self, train: dict[str, str], split: str) -> dict[str, str]:
        """Take dev queries from the train split; they share no relevant document with the rest."""
        splits = self.config.splits
        most = min(splits.dev_queries, len(train) // 4)
        dev = held_out(train, self.collection.qrels(split), most, 2)
        if len(dev) < min(most, FEWEST_DEV_QUERIES) or not dev:
            raise InputError(
                f"only {len(dev)} train queries can be set aside as dev queries without sharing a "
                "relevant document with the others",
                remedy="name a dev split (splits.dev)",
            )
        return dev

    def _without(
        self, split: str, others: Mapping[str, Mapping[str, str]], drops: Drops
    ) -> dict[str, str]:
        """Return a split's queries without those whose text is also in `others`, by part."""
        return self._not_among(self.collection.query_texts(split), split, others, drops)

    def _not_among(
        self,
        queries: Mapping[str, str],
        of: str,
        others: Mapping[str, Mapping[str, str]],
        drops: Drops,
    ) -> dict[str, str]:
        """Return queries without those whose text is also in `others`, by part."""
        kept = dict(queries)
        if not self.config.splits.drop_overlap:
            return kept
        for part, texts in others.items():
            forbidden = {normalise(text) for text in texts.values()}
            for query_id in [q for q, text in kept.items() if normalise(text) in forbidden]:
                drops.add(f"{of} query with the text of a {part} query", query_id)
                del kept[query_id]
        return kept

    def _unlabelled(
        self,
        log: dict[str, str],
        chosen: Mapping[str, tuple[str | None, dict[str, str]]],
        drops: Drops,
    ) -> Queries:
        """Return queries for teachers alone: of `log`, or of the documents."""
        unlabelled = self.config.unlabelled
        if unlabelled is None:
            return Queries({}, {}, {})
        if unlabelled.kind == "queries":
            if not log and unlabelled.log is not None:
                raise InputError(
                    f"every query of the log {unlabelled.log} is also a train, dev or test query",
                    remedy="name another log, or set unlabelled.kind to sentences",
                )
            if not log:
                raise InputError(
                    "no train query is left over to be an unlabelled one",
                    remedy="lower splits.train_queries, or set unlabelled.kind to sentences",
                )
            return Queries(sample(log, unlabelled.limit, 4), {}, {})
        judged = {normalise(text) for _, texts in chosen.values() for text in texts.values()}
        rows = unlabelled_queries(
            self.collection,
            unlabelled.kind,
            seed=0,
            limit=unlabelled.limit,
            exclude=frozenset(judged),
            drops=drops,
        )
        texts = {query_id: text for query_id, text, _ in rows}
        return Queries(texts, {}, {query_id: source for query_id, _, source in rows})


def count_queries(config: Config, collection: Collection) -> tuple[dict[str, int], bool]:
    """Count a run's queries by part, and say whether the unlabelled ones are at most so many.

    Texts of a collection larger than `MOST_READ` are not read to count those.

    Raises:
        InputError: the queries of a part cannot be chosen.
    """
    counted, unlabelled = config, config.unlabelled
    many = len(collection.documents) > MOST_READ
    if unlabelled is not None and unlabelled.kind != "queries" and many:
        counted = config.model_copy(update={"unlabelled": None})
    parts = ChosenQueries(counted, collection).parts(Drops())
    counts = {part: len(drawn.texts) for part, drawn in parts.items() if drawn.texts}
    if unlabelled is None or counted.unlabelled is not None:
        return counts, False
    return {**counts, "unlabelled": unlabelled.limit}, True


def sample(queries: Mapping[str, str], most: int | None, seed: int) -> dict[str, str]:
    """Draw at most `most` queries, by ID, so that the collection's order does not matter."""
    if most is None or len(queries) <= most:
        return dict(queries)
    ids = sorted(queries)
    chosen = np.random.default_rng(seed).choice(len(ids), most, replace=False)
    return {ids[i]: queries[ids[i]] for i in sorted(chosen)}
