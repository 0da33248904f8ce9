"""What each stage of `rkd run` does, from files to files. Their order is in `pipeline.py`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from retrieval_kd.config import Config, Training
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import Run, read_run, write_run
from retrieval_kd.data.unlabelled import normalise, unlabelled_queries
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.evaluation.measures import evaluate
from retrieval_kd.files import read_json, write_json
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import load_spec
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.students.dense import describe_student, make_student
from retrieval_kd.teachers.score import open_teacher, score, scores_of
from retrieval_kd.teachers.store import ScoreStore
from retrieval_kd.teachers.targets import Scores, fuse, rerank
from retrieval_kd.training.curve import build_dev_task
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.slates import Pool, build_pools
from retrieval_kd.training.train import train_student
from retrieval_kd.workspace import Workspace

Qrels = dict[str, dict[str, int]]
PARTS = ("train", "dev", "test", "unlabelled")
WEIGHT_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Queries:
    """The queries of one part: texts, judgments (none for unlabelled ones) and their source."""

    texts: dict[str, str]
    qrels: Qrels
    sources: dict[str, str]  # unlabelled query → the document it was made of


class Stages:
    """The stages of one configuration; each method is one, and reads what earlier ones left."""

    def __init__(self, config: Config, work: Workspace) -> None:
        self.config, self.work = config, work

    @cached_property
    def collection(self) -> Collection:
        return open_collection(self.config.collection)

    @cached_property
    def store(self) -> ScoreStore:
        return ScoreStore(self.work.path("scores"))

    # -- queries and candidates -------------------------------------------------------------

    def choose_queries(self) -> dict[str, Any]:
        """Fix train, dev, test and unlabelled queries; test texts are in no other part."""
        splits, drops = self.config.splits, Drops()
        test = _sample(self.collection.query_texts(splits.test), splits.test_queries, 1)
        forbidden = {normalise(text) for text in test.values()} if splits.drop_overlap else set()
        train = {}
        for query_id, text in self.collection.query_texts(splits.train).items():
            if normalise(text) in forbidden:
                drops.add("train query with the text of a test query", query_id)
            else:
                train[query_id] = text
        if splits.dev is None:
            dev = _sample(train, min(splits.dev_queries, len(train) // 4), 2)
            train = {q: text for q, text in train.items() if q not in dev}
        else:
            dev = _sample(self.collection.query_texts(splits.dev), splits.dev_queries, 2)
        everything, train = train, _sample(train, splits.train_queries, 3)
        log = {q: text for q, text in everything.items() if q not in train}
        chosen = {
            "train": (splits.train, train),
            "dev": (splits.dev or splits.train, dev),
            "test": (splits.test, test),
        }
        for part, (split, texts) in chosen.items():
            qrels = self.collection.qrels(split)
            self._write_queries(part, Queries(texts, {q: qrels[q] for q in texts}, {}))
        unlabelled = self._unlabelled(log, chosen, drops)
        self._write_queries("unlabelled", unlabelled)
        counts = {part: len(texts) for part, (_, texts) in chosen.items()}
        counts["unlabelled"] = len(unlabelled.texts)
        return {"queries": counts, "drops": drops.summary()}

    def _unlabelled(
        self, log: dict[str, str], chosen: Mapping[str, tuple[str, dict[str, str]]], drops: Drops
    ) -> Queries:
        """Queries for the teacher alone: of the log of unused train queries, or of documents."""
        wanted = self.config.unlabelled
        if wanted is None:
            return Queries({}, {}, {})
        if wanted.kind == "queries":
            return Queries(_sample(log, wanted.limit, 4), {}, {})
        judged = {normalise(text) for _, texts in chosen.values() for text in texts.values()}
        made = unlabelled_queries(
            self.collection,
            wanted.kind,
            seed=0,
            limit=wanted.limit,
            exclude=frozenset(judged),
            drops=drops,
        )
        texts = {query_id: text for query_id, text, _ in made}
        return Queries(texts, {}, {query_id: source for query_id, _, source in made})

    def retrieve_candidates(self) -> None:
        """First-stage candidates for every part; an unlabelled query's own source is left out."""
        first, length = self.config.first_stage, self.config.student.max_length
        for part in PARTS:
            queries = self.queries(part)
            depth = first.depth + (part == "unlabelled")
            run = Run(part, {})
            if queries.texts:
                run = retrieve(
                    self.collection, queries.texts, first.with_, depth, max_length=length
                )
            kept = {
                query: {d: s for d, s in found.items() if d != queries.sources.get(query)}
                for query, found in run.results.items()
            }
            write_json(self.work.path("candidates", f"{part}.json"), Run(part, kept).results)

    # -- teacher --------------------------------------------------------------------------------

    def fit_teacher(self) -> dict[str, Any]:
        """Fine-tune the cross-encoder on the train part's judgments."""
        fit = self.config.teacher.fit
        assert fit is not None
        queries, drops = self.queries("train"), Drops()
        pools = build_pools(
            queries.texts, self.candidates("train"), self.collection, queries.qrels, None, drops
        )
        record = fit_teacher(
            fit.base,
            pools,
            self.collection.documents,
            self.work.path("teacher"),
            layers=fit.layers,
            settings=fit.train,
            max_length=self.config.teacher.max_length,
        )
        return {"seconds": record["seconds"], "curve": record["curve"], "drops": drops.summary()}

    @property
    def members(self) -> list[str]:
        """The teachers whose scores are fused, the cross-encoder first."""
        teacher = self.config.teacher
        own = [str(self.work.path("teacher"))] if teacher.fit else []
        return [*own, *([teacher.model] if teacher.model else []), *teacher.fuse_with]

    def score_member(self, member: str, parts: Sequence[str]) -> dict[str, Any]:
        """What this teacher is asked of some parts, into the store; nothing is asked twice.

        A teacher that got no weight on dev is asked nothing more.
        """
        if "dev" not in parts and member not in self._used:
            return {"teacher": member, "skipped": "weight 0 on dev"}
        teacher = open_teacher(member, self.collection, max_length=self._length(member))
        totals: dict[str, Any] = {"pairs": 0, "scored": 0}
        for part in parts:
            queries = self.queries(part)
            wanted = {q: list(found) for q, found in self.candidates(part).items()}
            if part == "train":
                _add_judged(wanted, queries.qrels)
            report = score(self.collection, queries.texts, wanted, teacher, self.store)
            totals["pairs"] += report.pairs
            totals["scored"] += report.scored
            report_dict = asdict(report)
        return {
            "teacher": report_dict["teacher"],
            "fingerprint": report_dict["fingerprint"],
        } | totals

    def tune_teacher(self) -> dict[str, Any]:
        """Choose the members' weights on dev, or take the given ones."""
        dev = self.queries("dev")
        lists = [self._scores("dev", member) for member in self.members]
        weights = self.config.teacher.weights
        tried = []
        if weights is None and len(lists) > 1:
            for candidate in itertools.product(WEIGHT_GRID, repeat=len(lists)):
                if abs(sum(candidate) - 1.0) < 1e-9:
                    tried.append((_ndcg(dev.qrels, fuse(lists, candidate)), candidate))
            weights = list(max(tried)[1])
        weights = [1.0] if weights is None else weights
        write_json(self.work.path("teacher.json"), {"members": self.members, "weights": weights})
        alone = {m: round(_ndcg(dev.qrels, s), 4) for m, s in zip(self.members, lists, strict=True)}
        return {
            "weights": dict(zip(self.members, weights, strict=True)),
            "dev_ndcg@10_alone": alone,
            "dev_ndcg@10": round(_ndcg(dev.qrels, self._fused("dev")), 4),
        }

    def rerank_test(self) -> dict[str, Any]:
        """The teacher's ranking of the test part's candidates."""
        scores = self._fused("test")
        write_run(rerank("teacher", scores), self.work.path("runs", "teacher.trec"))
        return {"queries_without_scores": len(self.queries("test").texts) - len(scores)}

    # -- students -------------------------------------------------------------------------------

    def train_one(self, name: str, training: Training, seed: int) -> dict[str, Any]:
        """Train one student with one seed."""
        config, drops = self.config, Drops()
        pools: list[Pool] = []
        groups = {}
        parts = ["train", "unlabelled"] if self.draws_unlabelled(training) else ["train"]
        # Without a teacher its order must not choose the negatives either.
        taught = any(term.learns_from == "teacher" for term in training.objective)
        for part in parts:
            queries = self.queries(part)
            made = build_pools(
                queries.texts,
                self.candidates(part),
                self.collection,
                queries.qrels,
                self._fused(part) if taught else None,
                drops,
            )
            share = config.unlabelled.share if config.unlabelled and len(parts) > 1 else 1.0
            share = share if part == "unlabelled" or len(parts) == 1 else 1 - share
            groups[part] = (len(pools), len(pools) + len(made), share)
            pools += made
        dev = self.queries("dev")
        task = build_dev_task(
            self.collection, dev.texts, dev.qrels, Run("first", self.candidates("dev"))
        )
        settings = config.train.model_validate(
            {**config.train.model_dump(), **training.train, "seed": seed}
        )
        student = make_student(
            config.student.base, config.student.layers, max_length=config.student.max_length
        )
        record = train_student(
            student,
            pools,
            self.collection.documents,
            training.objective,
            settings,
            self.work.path("students", f"{name}-seed{seed}"),
            dev=task,
            groups=groups,
        )
        return {**record, "drops": drops.summary()}

    def draws_unlabelled(self, training: Training) -> bool:
        learns = any(term.learns_from == "teacher" for term in training.objective)
        return bool(self.config.unlabelled) and training.uses_unlabelled and learns

    # -- index, search, measure -----------------------------------------------------------------

    def index_and_search(self, system: str, model: str) -> dict[str, Any]:
        """Index the corpus under one model, search the test queries, time the search."""
        config = self.config
        folder = self.work.path("indexes", system)
        build_index(
            self.collection,
            model,
            load_spec(config.index),
            folder,
            max_length=config.student.max_length,
        )
        index = Index.open(folder, model)
        queries = self.queries("test").texts
        run = index.search_run(queries, config.depth, name=system)
        write_run(run, self.work.path("runs", f"{system}.trec"))
        timing = index.measure(list(queries.values())[:200])
        manifest = index.manifest
        size = sum(int(file["bytes"]) for file in manifest["files"].values())
        return {
            **timing.as_dict(),
            "index_bytes": size,
            "documents": len(index),
            **describe_student(index.model),
        }

    def search_bm25(self) -> None:
        run = retrieve(self.collection, self.queries("test").texts, "bm25", self.config.depth)
        write_run(run, self.work.path("runs", "bm25.trec"))

    # -- shared ---------------------------------------------------------------------------------

    def queries(self, part: str) -> Queries:
        return Queries(**read_json(self.work.path("queries", f"{part}.json")))

    def candidates(self, part: str) -> dict[str, dict[str, float]]:
        return read_json(self.work.path("candidates", f"{part}.json"))

    def runs(self, systems: Sequence[str]) -> dict[str, Run]:
        runs = {name: read_run(self.work.path("runs", f"{name}.trec")) for name in systems}
        return {name: Run(name, run.results) for name, run in runs.items()}

    def _write_queries(self, part: str, queries: Queries) -> None:
        write_json(self.work.path("queries", f"{part}.json"), asdict(queries))

    def _length(self, member: str) -> int:
        teacher, student = self.config.teacher, self.config.student
        return student.max_length if member.startswith("dense:") else teacher.max_length

    def _scores(self, part: str, member: str) -> dict[str, dict[str, float]]:
        """One teacher's stored scores of a part's candidates."""
        teacher = open_teacher(member, self.collection, max_length=self._length(member))
        queries = self.queries(part)
        wanted = {q: list(found) for q, found in self.candidates(part).items()}
        if part == "train":
            _add_judged(wanted, queries.qrels)
        return scores_of(self.collection, queries.texts, wanted, self.store, teacher.key)

    def _fused(self, part: str) -> Scores:
        used = self._used
        return fuse([self._scores(part, m) for m in used], list(used.values()))

    @property
    def _used(self) -> dict[str, float]:
        """The teachers with a weight, by name."""
        made = read_json(self.work.path("teacher.json"))
        return {m: w for m, w in zip(made["members"], made["weights"], strict=True) if w}


def _add_judged(wanted: dict[str, list[str]], qrels: Qrels) -> None:
    """Judged relevant documents are scored even where the first stage missed them."""
    for query, judged in qrels.items():
        listed = wanted.setdefault(query, [])
        listed += [d for d, gain in judged.items() if gain > 0 and d not in listed]


def _sample(queries: Mapping[str, str], most: int | None, seed: int) -> dict[str, str]:
    """At most so many queries, drawn by ID so that the collection's order does not matter."""
    if most is None or len(queries) <= most:
        return dict(queries)
    if most < 1:
        raise InputError(
            "too few queries in the train split to take dev queries from it",
            remedy="name a dev split (splits.dev)",
        )
    ids = sorted(queries)
    chosen = np.random.default_rng(seed).choice(len(ids), most, replace=False)
    return {ids[i]: queries[ids[i]] for i in sorted(chosen)}


def _ndcg(qrels: Qrels, scores: Scores) -> float:
    return evaluate(qrels, {"dev": rerank("dev", scores)}, ["ndcg@10"]).mean("dev", "ndcg@10")
