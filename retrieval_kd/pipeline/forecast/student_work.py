"""What the stages of students have to do: training, merging, indexing, searching, re-ranking."""

from __future__ import annotations

from typing import Any

from retrieval_kd.config.student import LayerChoice, Student
from retrieval_kd.config.training import Training, TrainingStage
from retrieval_kd.pipeline.forecast.recipes import shape, start_of, student_shape
from retrieval_kd.pipeline.forecast.work import StageWork, Work
from retrieval_kd.pipeline.pools import drawn_parts
from retrieval_kd.pipeline.train_students import final_folder
from retrieval_kd.students.make import check_kept
from retrieval_kd.students.options import FIXED, RE_RANKS, TABLES
from retrieval_kd.students.static import vocabulary_file
from retrieval_kd.training.choose_layers import candidate_layers
from retrieval_kd.training.trainer.curve import DOCUMENTS, QUERIES
from retrieval_kd.training.trainer.settings import TrainSettings

OF_QUERIES = ("residual", "adapter")  # kinds trained on the base's vectors of queries
OF_WORDS = ("static", "asymmetric")  # kinds made of the base's vectors of single tokens
SHARES = 4  # of merging, tried on dev
TABLE_DIMENSIONS = 1_024  # of a table of token vectors
SAVED_BYTES = 4  # of a parameter, in float32


class StudentWork:
    """The work of a run's students."""

    def __init__(self, run: Any) -> None:
        self.run, self.config, self.amounts = run, run.config, run.amounts
        self._chosen: set[Any] = set()  # starts whose layers dev has chosen by then
        seeds = [None, *self.config.seeds]
        self._names = {
            str(run.context.work.path(str(final_folder(name, training, seed)))): name
            for name, training in self.config.students.items()
            for seed in seeds
        }

    def train(self, name: str, training: Training, seed: int, number: int) -> StageWork:
        """Train one stage of a student with one seed."""
        student, stage = start_of(self.config, training), training.all_stages[number]
        settings = self.config.train_settings(training, stage, seed=seed)
        recipe, own = self.run.recipes.of_student(name), student_shape(student)
        step = self.run.recipes.steps(training)[number]
        settings = self._fitting(stage, settings)
        flops = settings.steps * step.flops(own) if own else 0.0
        works = [
            Work("training steps", settings.steps, settings.steps * step.tokens, flops,
                 (recipe, f"step{number}"), settings.steps * step.flops(own)),
            Work("trainings begun", 1, speed=(recipe, f"start{number}"), amount=1),
        ]  # fmt: skip
        if student.kind in TABLES:
            read = self.amounts.documents
            works.append(Work("documents read", read, speed=(recipe, "documents"), amount=read))
            works += self._frozen(student, stage)
        elif student.kind not in RE_RANKS:
            works += self._points(student, recipe, 1 + settings.steps // settings.eval_steps)
        if number == 0 and isinstance(student.layers, LayerChoice):
            works += self._choose_layers(student, recipe)
        works += self._targets(stage, settings)
        parameters = own.parameters if own else 30_522 * TABLE_DIMENSIONS
        kept = 3 * (settings.steps // settings.save_steps) if own else 0
        return StageWork(
            tuple(works),
            disk=SAVED_BYTES * parameters * (1 + kept),
            memory=self._memory(settings, step.tokens, step.texts, own, parameters),
        )

    def _fitting(self, stage: TrainingStage, settings: TrainSettings) -> TrainSettings:
        """Cut a batch that is larger than what there is to train on, as the training does."""
        rows = settings.steps * settings.batch_queries
        if stage.texts:
            there = sum(self.amounts.text_stage(stage, rows).values())
        else:
            there = sum(map(self.amounts.query_count, drawn_parts(self.config.unlabelled, stage)))
        batch = min(settings.batch_queries, max(1, there))
        return settings.model_copy(update={"batch_queries": batch})

    def _memory(
        self, settings: TrainSettings, tokens: float, texts: float, own: Any, parameters: int
    ) -> float:
        if own is None:  # a table's values, gradients, two moments, best state, and a copy
            return 6.0 * SAVED_BYTES * parameters
        share = min(1.0, settings.mini_batch_size / texts) if settings.mini_batch_size else 1.0
        memory: float = own.training_bytes(tokens * share, bytes_per_value=self.run.value_bytes)
        return memory

    def _points(self, student: Student, recipe: str, points: int) -> list[Work]:
        """Points of the learning curve: a small retrieval task in float32."""
        queries, own = min(QUERIES, self.amounts.query_count("dev")), student_shape(student)
        if not queries or own is None:
            return []
        documents = min(DOCUMENTS, self.amounts.documents)
        length = student.max_length
        tokens = documents * self.amounts.candidate_tokens(student.base, length)
        tokens += queries * self.amounts.query_tokens(student.base, length)
        flops = points * own.forward(tokens, tokens / (documents + queries))
        return [Work("points of curves", points, points * tokens, flops, (recipe, "point"), flops)]

    def _choose_layers(self, student: Student, recipe: str) -> list[Work]:
        """Try subsets of layers on dev; equal starts share what was tried."""
        assert isinstance(student.layers, LayerChoice)
        key = (student.base, student.model_dump_json())
        if key in self._chosen:
            return []
        self._chosen.add(key)
        count, keep = check_kept(student.base, student.layers.keep), student.layers.keep
        subsets = len(candidate_layers(count, keep))
        return [
            Work("layers tried", subsets, speed=(recipe, "make"), amount=subsets),
            *self._points(student, recipe, subsets),
        ]

    def _targets(self, stage: TrainingStage, settings: TrainSettings) -> list[Work]:
        """Read scores, and make the vectors of imitated models."""
        works: list[Work] = []
        parts = drawn_parts(self.config.unlabelled, stage)
        if stage.uses_scores:
            members = [m for m in self.run.used if not stage.teachers or stage.teachers.get(m)]
            works.append(self.run.read_pairs(parts, members))
        queries = sum(map(self.amounts.query_count, parts))
        if stage.texts:
            rows = settings.steps * settings.batch_queries
            queries = self.amounts.text_stage(stage, rows)["queries"]
        for model in {term.teacher for term in stage.objective if term.kind == "vectors"}:
            recipe = self.run.recipes.of_index(model)
            asked = self.run.asking(queries, model, recipe, "queries", "queries encoded")
            works += [*self.run.encode_with(model), asked]
        return works

    def _frozen(self, student: Student, stage: TrainingStage) -> list[Work]:
        """What a student without a transformer reads of its base's: vectors, and the vocabulary.

        All of it is cached, so a second student or seed finds it.
        """
        base, works = student.base, list[Work]()
        works += self.run.encode_with(base)
        if student.kind in OF_QUERIES and ("queries", base) not in self._chosen:
            self._chosen.add(("queries", base))
            parts = ["train", "dev", "unlabelled"]
            count = sum(map(self.amounts.query_count, parts))
            recipe = self.run.recipes.of_index(base)
            works.append(self.run.asking(count, base, recipe, "queries", "queries encoded"))
        if student.kind in OF_WORDS and ("words", base) not in self._chosen:
            self._chosen.add(("words", base))
            own = shape(base)
            if own is not None and not vocabulary_file(base).exists():
                flops, count = own.forward(3 * own.vocabulary, 3), own.vocabulary
                recipe = self.run.recipes.of_vocabulary(base)
                works.append(
                    Work("words encoded", count, 3 * count, flops, (recipe, "tokens"), count)
                )
        return works

    def merge(self, name: str, training: Training, seed: int) -> StageWork:
        """Average a student with its start; dev may choose the share."""
        student = start_of(self.config, training)
        recipe, works = self.run.recipes.of_student(name), []
        works.append(Work("models made", 2, speed=(recipe, "make"), amount=2))
        if training.merge is not None and training.merge.share == "dev":
            works += self._points(student, recipe, SHARES)
        own = student_shape(student)
        return StageWork(tuple(works), disk=SAVED_BYTES * (own.parameters if own else 0))

    def merge_seeds(self, name: str, training: Training) -> StageWork:
        """Average the seeds of a student."""
        own = student_shape(start_of(self.config, training))
        return StageWork(disk=SAVED_BYTES * (own.parameters if own else 0))

    def searched_by(self, system: str) -> str | None:
        """The recipe of searching with a system; None for one that re-ranks."""
        name = self.config.systems[system]
        student = start_of(self.config, self.config.students[name])
        return None if student.kind in RE_RANKS else self.run.recipes.of_student_index(name)

    def search(self, model: str, width: int | None) -> StageWork:
        """Index all documents with a student and search; its widths share the vectors."""
        name = self._names[model]
        student = start_of(self.config, self.config.students[name])
        own, recipe = student_shape(student), self.run.recipes.of_student_index(name)
        queries = self.amounts.query_count("test")
        if student.kind in FIXED:
            works = self.run.encode_with(student.base)
        else:
            works = self.run.encode(student.base, recipe, own, model)
        works += [
            self.run.asking(queries, student.base, recipe, "answer", "queries searched"),
            Work("indexes made", 1, speed=(recipe, "index"), amount=1),
            Work("models loaded", 1, speed=(recipe, "load"), amount=1),
        ]
        bytes_each = 2 * self.run.vector_bytes(student.base) if width is None else 0.0
        disk = bytes_each + 60.0 * queries * self.config.depth
        return StageWork(tuple(works), disk=disk, memory=self.run.memory(own))

    def rerank(self, system: str, model: str) -> StageWork:
        """Re-rank the test candidates with a cross-encoder student."""
        name = self._names[model]
        student = start_of(self.config, self.config.students[name])
        own, recipe = student_shape(student), self.run.recipes.of_student(name)
        pairs = sum(self.amounts.depths("test"))
        tokens = self.amounts.pair_tokens(student.base, student.max_length)
        flops = pairs * own.forward(tokens, tokens) if own else 0.0
        work = Work("pairs scored", pairs, pairs * tokens, flops, (recipe, "point"), flops or pairs)
        return StageWork((work,), disk=60.0 * pairs, memory=self.run.memory(own))
