"""What each stage of `rkd run` does, from files to files. Their order is in `pipeline.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.training import Training
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import Run, read_run, write_run
from retrieval_kd.errors import Drops
from retrieval_kd.evaluation.efficiency import timed_build
from retrieval_kd.evaluation.latency import latencies
from retrieval_kd.files import read_json, write_json
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.spec import load_spec, spec_for
from retrieval_kd.models.load import kind_of
from retrieval_kd.pipeline.ensemble import Ensemble
from retrieval_kd.pipeline.latency import timed_systems
from retrieval_kd.pipeline.pools import TrainingPools
from retrieval_kd.pipeline.queries import ChosenQueries, Queries
from retrieval_kd.pipeline.rerank import Reranker
from retrieval_kd.pipeline.students import live_teacher
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.students.dense import describe_student
from retrieval_kd.students.make import check_widths, make_student
from retrieval_kd.targets.normalise import rerank
from retrieval_kd.training.batches.slates import build_pools
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.card import describe_stages
from retrieval_kd.training.trainer.checkpoints import RECORD
from retrieval_kd.training.trainer.curve import build_dev_task
from retrieval_kd.workspace import Workspace

PARTS = ("train", "dev", "test", "unlabelled")


class Stages:
    """The stages of one configuration; each method is one, and reads what earlier ones left."""

    def __init__(self, config: Config, work: Workspace) -> None:
        self.config, self.work = config, work

    @cached_property
    def collection(self) -> Collection:
        return open_collection(self.config.collection)

    # -- queries and candidates -------------------------------------------------------------

    def choose_queries(self) -> dict[str, Any]:
        """Fix train, dev, test and unlabelled queries; test texts are in no other part."""
        drops = Drops()
        parts = ChosenQueries(self.config, self.collection).parts(drops)
        for part, queries in parts.items():
            self._write_queries(part, queries)
        counts = {part: len(queries.texts) for part, queries in parts.items()}
        return {"queries": counts, "drops": drops.summary()}

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
        """Fine-tune a teacher on the train part's judgments."""
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
            lora=fit.lora,
            settings=fit.train,
            max_length=None if fit.is_decoder else self.config.teacher.max_length,
        )
        return {"seconds": record["seconds"], "curve": record["curve"], "drops": drops.summary()}

    @cached_property
    def ensemble(self) -> Ensemble:
        return Ensemble(self.config, self.work, self.collection, self.queries, self.candidates)

    def rerank_test(self) -> dict[str, Any]:
        """The teacher's ranking of the test part's candidates."""
        drops = Drops()
        scores = self.ensemble.fused("test", drops)
        write_run(rerank("teacher", scores), self.work.path("runs", "teacher.trec"))
        missing = len(self.queries("test").texts) - len(scores)
        return {"queries_without_scores": missing, "drops": drops.summary()}

    # -- students -------------------------------------------------------------------------------

    def student_folders(
        self, name: str, training: Training, seed: int, number: int
    ) -> tuple[str, str | None]:
        """Where a stage leaves its student, and where the one it starts from is (none: the base).

        The last stage's is the student itself; earlier ones are kept beside it.
        """
        last = len(training.lessons) - 1
        names = [
            f"students/{name}-seed{seed}" + ("" if i == last else f"-stage{i + 1}")
            for i in range(last + 1)
        ]
        return names[number], names[number - 1] if number else None

    def train_one(self, name: str, training: Training, seed: int, number: int) -> dict[str, Any]:
        """Train one student with one seed, one stage of it."""
        config, drops = self.config, Drops()
        lesson = training.lessons[number]
        folder, before = self.student_folders(name, training, seed, number)
        begin = config.student_of(training)
        start = str(self.work.path(before)) if before else begin.base
        source = TrainingPools(
            config, self.collection, self.ensemble, self.queries, self.candidates
        )
        pools, groups = source.of(lesson, start, drops)
        settings = config.settings_of(training, lesson, seed=seed)
        start_of_train, end_of_train, _ = groups["train"]
        live = {
            label: live_teacher(
                teacher,
                start,
                pools[start_of_train:end_of_train],
                self.collection.documents,
                settings,
                self.work.path(f"{folder}.live", label),
            )
            for label, teacher in lesson.live.items()
        }
        student = make_student(
            start,
            begin.kind,
            None if before else begin.layers,
            max_length=begin.max_length,
            dimensions=begin.dimensions,
            seed=seed,
            options=begin.options,
        )
        if begin.searched_as == "dense":
            check_widths(student, config.widths)
        dev = self.queries("dev")
        task = build_dev_task(
            self.collection, dev.texts, dev.qrels, Run("first", self.candidates("dev"))
        )
        record = train_student(
            student,
            pools,
            self.collection.documents,
            lesson.objective,
            settings,
            self.work.path(folder),
            dev=task,
            groups=groups,
            teacher_length=config.student.max_length,
            live=live,
        )
        folders = [self.student_folders(name, training, seed, n)[0] for n in range(number + 1)]
        stages = [read_json(self.work.path(each, RECORD)) for each in folders]
        describe_stages(self.work.path(folder), stages)
        fitted = [self.work.path(f"{folder}.live", label) for label in lesson.live]
        before_it = [read_json(f / RECORD)["seconds"] for f in fitted if (f / RECORD).exists()]
        seconds = record["seconds"] + sum(before_it)
        return {**record, "seconds": seconds, "drops": drops.summary()}

    # -- index, search, measure -----------------------------------------------------------------

    def index_and_search(self, system: str, model: str, width: int | None = None) -> dict[str, Any]:
        """Index the corpus under one model (its first `width` dimensions), search test queries."""
        config, kind = self.config, kind_of(model)
        spec = load_spec(config.index) if kind == "dense" else spec_for(kind)
        folder = self.work.path("indexes", system)
        build = partial(
            build_index,
            self.collection,
            model,
            spec.model_copy(update={"dimensions": width}) if width else spec,
            folder,
            max_length=config.student.max_length,
        )
        index, encoded = timed_build(build, folder)
        queries = self.queries("test").texts
        run = index.search_run(queries, config.depth, name=system)
        write_run(run, self.work.path("runs", f"{system}.trec"))
        manifest = index.manifest
        size = sum(int(file["bytes"]) for file in manifest["files"].values())
        return {
            "index_bytes": size,
            "documents": len(index),
            "documents_per_second": encoded,
            **describe_student(index.model),
            **({"dimensions": width} if width else {}),
        }

    def rerank_with(self, system: str, model: str) -> dict[str, Any]:
        """A cross-encoder student's order of the first stage's candidates for the test queries."""
        reranker = Reranker(self.collection, model, max_length=self.config.student.max_length)
        scores = reranker.scores(self.queries("test").texts, self.candidates("test"))
        write_run(rerank(system, scores), self.work.path("runs", f"{system}.trec"))
        return describe_student(reranker.model)

    def measure(self) -> dict[str, Any]:
        """Latency of BM25, the teacher's re-ranking, the encoder and one student of each kind."""
        return latencies(*timed_systems(self))

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
