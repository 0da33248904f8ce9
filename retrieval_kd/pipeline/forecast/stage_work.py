"""What each stage of `rkd run` has to do: the plan of stages, with an amount beside each.

Stages come from `plan.py`. The function that a stage runs says what it is, so that this table and
that plan cannot differ in their stages. `student_work.py` has those of students.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from retrieval_kd.config.run import REFERENCES
from retrieval_kd.config.teacher import and_choosers
from retrieval_kd.files import read_json
from retrieval_kd.models.encode import is_encoded
from retrieval_kd.models.facts import vector_size
from retrieval_kd.models.load import model_digest
from retrieval_kd.models.shapes import Shape
from retrieval_kd.pipeline import cloze, costs, stages, train_students
from retrieval_kd.pipeline.context import PARTS, RunContext
from retrieval_kd.pipeline.costs import TIMED_QUERIES, calls_of
from retrieval_kd.pipeline.forecast.amounts import Amounts, is_comparing, is_served
from retrieval_kd.pipeline.forecast.recipes import Recipes, fit_shape, shape
from retrieval_kd.pipeline.forecast.served_work import calls
from retrieval_kd.pipeline.forecast.student_work import StudentWork
from retrieval_kd.pipeline.forecast.work import StageWork, Work
from retrieval_kd.pipeline.results import RunResults
from retrieval_kd.pipeline.run_ensemble import RunEnsemble
from retrieval_kd.retrieval.retrieve import retriever_models
from retrieval_kd.teachers.kinds import WITHOUT_MODEL
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.workspace import Stage

PAIR_BYTES = 22  # of a stored score: measured, 345,780 pairs of two teachers
CANDIDATE_BYTES = 34  # of a candidate in JSON: measured
BATCH_TOKENS = 8_192  # most that a model reads at once where it is not trained
VALUE_BYTES = 4  # of a number in float32


class RunWork:
    """The work of a run's stages, in their order.

    A collection is encoded once by each model: the first stage that needs its vectors has the work.

    Args:
        value_bytes: bytes of a number of a model that only reads: 2 in bfloat16.
    """

    def __init__(self, context: RunContext, amounts: Amounts, *, value_bytes: int) -> None:
        self.context, self.config, self.amounts = context, context.config, amounts
        self.recipes, self.value_bytes = Recipes(amounts), value_bytes
        self.length = self.config.student.max_length
        self.encoded: set[str] = set()  # digests of models whose vectors are there by then
        self.students = StudentWork(self)
        self._of: dict[Any, Callable[..., StageWork]] = {
            stages.choose_queries: self._queries,
            stages.retrieve_candidates: self._candidates,
            stages.fine_tune_teacher: self._fit,
            cloze.cut_documents: self._cloze,
            cloze.score_cloze: self._try_cloze,
            cloze.weigh: lambda: self._read(["cloze"], self.members),
            RunEnsemble.tune: lambda: self._read(["dev"], self.members),
            RunEnsemble.score: self._score,
            stages.rerank_with_teacher: lambda: self._read(["test"], self.used),
            stages.search_bm25: self._bm25,
            stages.index_and_search: self._search,
            stages.rerank_with_student: self.students.rerank,
            train_students.train_one: self.students.train,
            train_students.merge_one: self.students.merge,
            train_students.merge_seeds: self.students.merge_seeds,
            costs.measure_latency: self._measure,
            RunResults.evaluate: self._evaluate,
            RunResults.report: self._report,
        }

    def of(self, stage: Stage) -> StageWork:
        """Return what a stage has to do if it runs now."""
        call: Any = stage.run if isinstance(stage.run, partial) else partial(stage.run)
        function = getattr(call.func, "__func__", call.func)
        given = [a for a in call.args if not isinstance(a, RunContext)]
        return self._of[function](*given, **call.keywords)

    @property
    def members(self) -> list[str]:
        """All teachers, those that choose pairs among them."""
        return and_choosers(self.context.ensemble.members)

    @property
    def used(self) -> list[str]:
        """The teachers with a weight; all before the weights are chosen."""
        path = self.context.work.path("teacher.json")
        if not path.exists():
            return self.members
        weights = read_json(path).get("weights", {})
        return and_choosers(m for m in self.context.ensemble.members if weights.get(m))

    # -- what several stages do --------------------------------------------------------------

    def encode(self, model: str, recipe: str, own: Shape | None, digest: str) -> list[Work]:
        """Encode all documents, if that is not done by then."""
        if digest in self.encoded:
            return []
        self.encoded.add(digest)
        return [self.reading(self.amounts.documents, model, recipe, own, "encode")]

    def encode_with(self, model: str) -> list[Work]:
        """Encode all documents with a saved model, if the cache lacks their vectors."""
        texts = self.context.collection.documents
        if is_encoded(model, texts, max_length=self.length):
            self.encoded.add(model_digest(model))
        return self.encode(model, self.recipes.of_index(model), shape(model), model_digest(model))

    def reading(self, count: int, model: str, recipe: str, own: Shape | None, speed: str) -> Work:
        """Read so many documents with a model."""
        mean = self.amounts.document_tokens(model, self.length)
        flops = own.forward(count * mean, mean) if own else 0.0
        return Work(
            "documents encoded", count, count * mean, flops, (recipe, speed), flops or count
        )

    def asking(self, count: int, model: str, recipe: str, speed: str, what: str) -> Work:
        """Read so many queries with a model, and do with them what `speed` says."""
        mean, own = self.amounts.query_tokens(model, self.length), shape(model)
        flops = own.forward(count * mean, mean) if own else 0.0
        return Work(what, count, count * mean, flops, (recipe, speed), count)

    def vector_bytes(self, model: str) -> float:
        """Bytes of all documents' vectors."""
        return VALUE_BYTES * (vector_size(model) or 768) * self.amounts.documents

    def memory(self, own: Shape | None) -> float:
        """Most memory (bytes) of a stage in which a model reads."""
        return own.reading_bytes(BATCH_TOKENS, bytes_per_value=self.value_bytes) if own else 0.0

    def read_pairs(self, parts: list[str], members: list[str]) -> Work:
        """Read stored scores, and put them beside the candidates."""
        pairs = sum(sum(self.amounts.depths(part)) for part in parts) * len(members)
        recipe = self.recipes.of_reading()
        return Work("scores read", pairs, speed=(recipe, "pairs"), amount=pairs)

    def _read(self, parts: list[str], members: list[str]) -> StageWork:
        return StageWork((self.read_pairs(parts, members),))

    def bm25(self, queries: int) -> Work:
        return Work("queries searched", queries, speed=("bm25", "search"), amount=queries)

    # -- stages ------------------------------------------------------------------------------

    def _queries(self) -> StageWork:
        return StageWork(disk=200.0 * sum(map(self.amounts.query_count, PARTS)))

    def _retrieve(self, queries: int, documents: int | None = None) -> tuple[list[Work], float]:
        """First-stage retrieval; `documents` counts those of another collection to encode."""
        works, memory = list[Work](), 0.0
        parts = [p.strip() for p in self.config.first_stage.with_.split("+")]
        if any(part in WITHOUT_MODEL for part in parts):
            works.append(self.bm25(queries))
        for model in retriever_models(self.config.first_stage.with_):
            recipe = self.recipes.of_index(model)
            if documents is None:
                works += self.encode_with(model)
            else:
                works.append(self.reading(documents, model, recipe, shape(model), "encode"))
            works += [
                self.asking(queries, model, recipe, "retrieve", "queries encoded"),
                Work("models loaded", 1, speed=(recipe, "load"), amount=1),
            ]
            memory = max(memory, self.memory(shape(model)))
        return works, memory

    def _candidates(self) -> StageWork:
        counts = {part: self.amounts.query_count(part) for part in PARTS}
        works, memory = self._retrieve(sum(counts.values()))
        listed = sum(counts.values()) * self.config.first_stage.depth
        disk = CANDIDATE_BYTES * listed + sum(
            map(self.vector_bytes, retriever_models(self.config.first_stage.with_))
        )
        return StageWork(tuple(works), disk=disk, memory=memory)

    def _cloze(self) -> StageWork:
        count = self.amounts.query_count("cloze")
        works, memory = self._retrieve(count, documents=count)
        return StageWork(tuple(works), memory=memory)

    def _fit(self) -> StageWork:
        fit = self.config.teacher.fit
        assert fit is not None
        recipe, step, own = self.recipes.of_fit(), self.recipes.fit_step(), fit_shape(self.config)
        steps, flops = fit.train.steps, step.flops(own) * fit.train.steps
        speed, tokens = (recipe, "step"), steps * step.tokens
        works = (
            Work("training steps", steps, tokens, flops if own else 0.0, speed, flops),
            Work("trainings begun", 1, speed=(recipe, "start"), amount=1),
        )
        parameters = own.parameters if own else 0
        return StageWork(
            works,
            disk=VALUE_BYTES * parameters * (1 + 3 * (steps // fit.train.save_steps)),
            memory=own.training_bytes(step.tokens, bytes_per_value=self.value_bytes) if own else 0,
        )

    def _try_cloze(self, member: str) -> StageWork:
        return self._score(member, ["cloze"])

    def _score(self, member: str, parts: list[str]) -> StageWork:
        """Score what the store lacks; a teacher without a weight scores no more."""
        at_most = parts not in (["dev"], ["cloze"])
        if at_most and member not in self.used:
            if member not in and_choosers(self.context.ensemble.named_alone):
                return StageWork()
            parts = [part for part in parts if part != "test"]
        at_most = at_most and not self.context.work.path("teacher.json").exists()
        at_most = at_most and len(self.members) > 1
        if is_served(self.context, member):
            served = calls(self.amounts, member, parts)
            return StageWork(calls=served, disk=PAIR_BYTES * served.calls, at_most=at_most)
        depths = [depth for part in parts for depth in self.amounts.depths(part)]
        count = calls_of(member, depths)
        works, own, spec = [], None, parse_spec(member)
        is_fitted = member == self.config.teacher.fitted
        recipe, length = self.recipes.of_teacher(member), self.config.max_length_for(spec.kind)
        if spec.kind == "dense" and parts != ["cloze"]:
            works += self.encode_with(spec.model)
        elif spec.kind not in WITHOUT_MODEL and spec.kind != "dense":
            own = fit_shape(self.config) if is_fitted else shape(spec.model)
        base = self.config.teacher.fit.base if is_fitted and self.config.teacher.fit else spec.model
        model = parse_spec(base).model if is_fitted else base
        if is_comparing(member):
            works.append(Work("questions asked", count, speed=(recipe, "score"), amount=count))
        else:
            count -= sum(self.amounts.stored(member, part) for part in parts)
            tokens = self.amounts.pair_tokens(model, length) if own else 0.0
            each = self.recipes.pair_flops(model, own, length)
            flops, speed = (count * each if own else 0.0), (recipe, "score")
            scored = Work("pairs scored", count, count * tokens, flops, speed, count * each)
            works.append(scored)
        return StageWork(
            tuple(works), disk=PAIR_BYTES * count, memory=self.memory(own), at_most=at_most
        )

    def _bm25(self) -> StageWork:
        queries = self.amounts.query_count("test")
        return StageWork((self.bm25(queries),), disk=60.0 * queries * self.config.depth)

    def _search(self, system: str, model: str, width: int | None = None) -> StageWork:
        if system != "encoder":
            return self.students.search(model, width)
        recipe, queries = self.recipes.of_index(model), self.amounts.query_count("test")
        works = [
            *self.encode_with(model),
            self.asking(queries, model, recipe, "answer", "queries searched"),
            Work("indexes made", 1, speed=(recipe, "index"), amount=1),
            Work("models loaded", 1, speed=(recipe, "load"), amount=1),
        ]
        disk = self.vector_bytes(model) + 60.0 * queries * self.config.depth
        return StageWork(tuple(works), disk=disk, memory=self.memory(shape(model)))

    def _measure(self) -> StageWork:
        """One query at a time, by every system."""
        asked, works = min(TIMED_QUERIES, self.amounts.query_count("test")) + 1, []
        for member in self.used:
            if not is_served(self.context, member):
                recipe = self.recipes.of_teacher(member)
                count = calls_of(member, [self.config.first_stage.depth] * asked)
                works.append(Work("pairs scored again", count, speed=(recipe, "one"), amount=count))
        names = [self.recipes.of_index(self.config.encoder)]
        names += [r for s in self.config.systems if (r := self.students.searched_by(s))]
        works += [
            Work("queries timed", asked, speed=(recipe, "one"), amount=asked) for recipe in names
        ]
        return StageWork(tuple(works))

    def _run_lines(self, runs: int) -> Work:
        """Read run files, of so many systems, as text."""
        lines = runs * self.amounts.query_count("test") * min(self.config.depth,
                                                              self.amounts.documents)  # fmt: skip
        recipe = self.recipes.of_reading()
        return Work("lines of runs read", lines, speed=(recipe, "lines"), amount=lines)

    def _evaluate(self) -> StageWork:
        """Evaluate, diagnose and audit; the teacher's scores of train queries are read too."""
        recipe, compared = self.recipes.of_reading(), self.config.compare
        runs = sum(len(self.context.run_names(system)) for system in self.config.systems)
        queries = self.amounts.query_count("test")
        diagnosed = queries * sum(name in self.config.systems for name in compared)
        texts = sum(map(self.amounts.query_count, ("train", "unlabelled", "test"))) + queries
        works = (
            self.read_pairs(["train"], self.used),
            self._run_lines(len(REFERENCES) + runs + 1 + len(compared)),
            Work("queries diagnosed", diagnosed, speed=(recipe, "diagnosed"), amount=diagnosed),
            Work("texts audited", texts, speed=(recipe, "audited"), amount=texts),
        )
        return StageWork(works, disk=1e6)

    def _report(self) -> StageWork:
        runs = sum(len(self.context.run_names(system)) for system in self.config.systems)
        return StageWork((self._run_lines(len(REFERENCES) + runs),), disk=2e6)
