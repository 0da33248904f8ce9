"""A few documents and queries of a run, on which its operations are measured.

Each method measures one recipe and returns its speeds by name. What is timed is what the run calls:
`build_index`, `score_and_record`, `train_student`, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval_kd.config.student import LayerChoice, Student
from retrieval_kd.config.training import Training, TrainingStage
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.files import write_json, write_text
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.spec import spec_for
from retrieval_kd.models.encode import document_vectors, encode_queries, save_array
from retrieval_kd.models.facts import vector_size
from retrieval_kd.models.load import kind_of, load_encoder, load_retriever
from retrieval_kd.models.shapes import Shape
from retrieval_kd.pipeline.forecast.amounts import Amounts, distinct
from retrieval_kd.pipeline.forecast.calibrate import Speed, Speeds, slope, timed
from retrieval_kd.pipeline.forecast.judging import judging
from retrieval_kd.pipeline.forecast.sample_ensemble import SampleEnsemble, scored
from retrieval_kd.pipeline.forecast.step_texts import Step, fitting_batch
from retrieval_kd.pipeline.train_students import StudentTraining
from retrieval_kd.retrieval.dense import dense_run
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.students.dense import prompts_of
from retrieval_kd.students.make import layer_count, make_student
from retrieval_kd.students.options import RE_RANKS, TABLES
from retrieval_kd.students.static import encode_tokens, vocabulary_file
from retrieval_kd.targets.combine import Combination
from retrieval_kd.teachers.score import score_and_record, score_query_and_record, scores_of
from retrieval_kd.teachers.spec import open_teacher, strategy_in
from retrieval_kd.training.batches.pools import build_pools
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.trainer.curve import all_scores

DOCUMENTS, FEWER, QUERIES = 256, 64, 64
STEPS = 4  # of a training, the first of which is not timed
NEVER = 1_000_000  # steps


class Sample:
    """Documents and queries of a run in a small collection of their own."""

    def __init__(self, amounts: Amounts, folder: Path) -> None:
        self.amounts, self.context, self.folder = amounts, amounts.context, folder
        self.config = amounts.config
        self._encoders: dict[str, Any] = {}
        self.queries = dict(list(amounts.sample_queries.items())[:QUERIES])
        found = list(dict.fromkeys(text for _, text in amounts.sample_pairs))
        texts = list(dict.fromkeys([*amounts.sample_documents[:DOCUMENTS], *found]))[:DOCUMENTS]
        self.collection = self._collection("sample", texts)
        self.fewer = self._collection("fewer", texts[:FEWER])
        if not self.queries or len(texts) < 2:
            raise InputError("the collection has no query or document to measure with")

    def _collection(self, name: str, texts: Sequence[str]) -> Collection:
        rows = [{"_id": f"d{n}", "text": text} for n, text in enumerate(texts)]
        queries = [{"_id": f"q{n}", "text": text} for n, text in enumerate(self.queries.values())]
        folder = self.folder / name
        for file, lines in {"corpus": rows, "queries": queries}.items():
            write_text(folder / f"{file}.jsonl", "".join(json.dumps(r) + "\n" for r in lines))
        judged = "".join(f"q{n}\td0\t1\n" for n in range(len(queries)))
        write_text(folder / "qrels" / "test.tsv", f"query-id\tcorpus-id\tscore\n{judged}")
        return open_collection(folder)

    def candidates(self, depth: int) -> dict[str, list[str]]:
        """So many documents for each query, drawn evenly."""
        rng, count = np.random.default_rng(0), len(self.collection.documents)
        return {
            f"q{n}": [f"d{k}" for k in rng.permutation(count)[:depth]]
            for n in range(len(self.queries))
        }

    @property
    def texts(self) -> dict[str, str]:
        """Query ID in the sample → text."""
        return {f"q{n}": text for n, text in enumerate(self.queries.values())}

    # -- recipes -----------------------------------------------------------------------------

    def index(self, model: str, shape: Shape | None, length: int | None, pad: str = "") -> Speeds:
        """Measure encoding documents and queries, retrieving and searching with a saved model."""
        texts, kind = self.collection.documents, kind_of(model)
        total = self.amounts.document_tokens(pad or model, length) * len(texts)
        amount = shape.forward(total, total / len(texts)) if shape else len(texts)
        loaded = timed(lambda: load_retriever(model, max_length=length))
        out = self.folder / "indexes" / str(len(list(self.folder.glob("indexes/*"))))
        seconds = timed(
            lambda: build_index(self.collection, model, spec_for(kind), out, max_length=length)
        )
        index = build_index(self.collection, model, spec_for(kind), out, max_length=length)
        encoded = float(index.manifest["seconds"]["encode"])
        names = list(self.texts.items())
        each, _ = slope(lambda n: index.search_run(dict(names[:n]), 100), 4, len(names))
        speeds = {
            "load": Speed(loaded, 1),
            "encode": Speed(encoded, amount),
            "index": Speed(max(0.0, seconds - encoded - loaded), 1),
            "answer": Speed(each, 1),
            "one": Speed(timed(lambda: [index.search([t]) for _, t in names[:8]]) / 8, 1),
        }
        if kind == "dense":
            retrieve = partial(dense_run, self.collection, model_spec=model, max_length=length)
            each, _ = slope(lambda n: retrieve(dict(names[:n])), 4, len(names))
            opened, words = load_retriever(model, max_length=length), [t for _, t in names]
            encode_queries(opened, words[:4])
            seconds = timed(lambda: encode_queries(opened, words))
            speeds |= {"retrieve": Speed(each, 1), "queries": Speed(seconds, len(words))}
        return speeds

    def student_index(self, student: Student, shape: Shape | None, length: int) -> Speeds:
        """Measure indexing and searching with a student, as it is before training."""
        folder = self.folder / "untrained" / str(len(list(self.folder.glob("untrained/*"))))
        if student.kind in TABLES:  # what the base gives is in the cache by then
            self._make_up_vocabulary(student)
            document_vectors(student.base, self.collection.documents, max_length=length)
        self.made(student).save(str(folder))
        # Students that start alike have digests of their own, so that neither finds its vectors.
        write_json(folder / "sample.json", {"number": folder.name})
        return self.index(str(folder), shape, length, pad=student.base)

    def teacher(self, member: str, shape: Shape | None, flops_each: float) -> Speeds:
        """Measure scoring with a teacher, with what writes its scores; one query's list too."""
        teacher = self._opened(member)
        cheap = shape is None or member.startswith("dense:")
        few, many = (2_048, 4_096) if cheap else (8, 64 if not torch.cuda.is_available() else 2_048)
        if strategy_in(member) is not None:
            return self._comparing(member, teacher)
        score_and_record(
            self.collection, self.texts, {"q0": self.candidates(4)["q0"]}, teacher,
            ScoreStore(self.folder / "warm"),
        )  # fmt: skip
        pairs = self._pairs(many if not cheap else many - few)
        count = sum(map(len, pairs.values()))
        store = ScoreStore(self.folder / "stores" / str(len(list(self.folder.glob("stores/*")))))
        seconds = timed(
            lambda: score_and_record(self.collection, self.texts, pairs, teacher, store)
        )
        listed = self.candidates(min(16, self.config.first_stage.depth))["q0"]
        once = partial(score_query_and_record, self.collection, self.texts["q0"], listed, teacher)
        latency = timed(lambda: once(store)) / len(listed)
        return {
            "score": Speed(seconds, count * flops_each),
            "one": Speed(latency, 1),
        }

    def _comparing(self, member: str, teacher: Any) -> Speeds:
        """Measure a question about several documents."""
        strategy = strategy_in(member)
        assert strategy is not None
        listed = self.candidates(min(4, len(self.collection.documents)))["q0"]
        asked = strategy.most_requests(len(listed))
        by = {id: float(-n) for n, id in enumerate(listed)} if teacher.by else None
        seconds = timed(
            lambda: score_query_and_record(
                self.collection, self.texts["q0"], listed, teacher,
                ScoreStore(self.folder / "asked"), by,
            )
        )  # fmt: skip
        return {"score": Speed(seconds, asked), "one": Speed(seconds / asked, 1)}

    def _opened(self, member: str) -> Any:
        kind = member.partition(":")[0]
        length = self.config.max_length_for(kind if kind in ("dense", "sparse", "multi_vector") else
                                            "pointwise")  # fmt: skip
        if member == self.config.teacher.fitted:
            made = self._fitted_folder()
            spec = self.config.teacher.fit
            assert spec is not None
            return open_teacher(f"yesno:{made}" if spec.is_decoder else str(made), self.collection,
                                max_length=self.config.teacher.max_length)  # fmt: skip
        return open_teacher(member, self.collection, max_length=length)

    def _pairs(self, count: int) -> dict[str, list[str]]:
        """About `count` pairs: lists of the run's depth, as many as that needs."""
        depth = min(self.config.first_stage.depth, len(self.collection.documents), count)
        lists = max(1, min(len(self.queries), round(count / depth)))
        return dict(list(self.candidates(depth).items())[:lists])

    def fit(self, flops_each: Step, shape: Shape | None, batch: int) -> Speeds:
        """Measure fine-tuning the teacher."""
        fit = self.config.teacher.fit
        assert fit is not None
        record, seconds = {}, 0.0

        def train() -> None:
            record.update(self._fit(batch))

        seconds = timed(train)
        step = record["seconds_per_step"]
        share = batch / fit.train.batch_queries
        return {
            "step": Speed(step, flops_each.flops(shape) * share),
            "start": Speed(max(0.0, seconds - STEPS * step), 1),
        }

    def _fitted_folder(self) -> Path:
        if not (self.folder / "teacher" / "training.json").exists():
            self._fit(2)
        return self.folder / "teacher"

    def _fit(self, batch: int) -> dict[str, Any]:
        fit = self.config.teacher.fit
        assert fit is not None
        few = {"steps": STEPS, "batch_queries": batch, "eval_steps": NEVER, "save_steps": NEVER}
        pools = build_pools(
            self.texts, scored(self.candidates(fit.train.slate_size)), self.collection,
            {query: {"d0": 1} for query in self.texts}, None, Drops(),
        )  # fmt: skip
        return fit_teacher(
            fit.base, pools, self.collection.documents, self.folder / "teacher",
            layers=fit.layers, lora=fit.lora, settings=fit.train.model_copy(update=few),
            max_length=None if fit.is_decoder else self.config.teacher.max_length,
        )  # fmt: skip

    def made(self, student: Student, documents: Any = None) -> Any:
        """Make a student; layers that dev would choose are evenly spaced."""
        layers = student.layers
        if isinstance(layers, LayerChoice):
            layers = evenly(student.base, layers.keep)
        return make_student(
            student.base, student.kind, layers, max_length=student.max_length,
            dimensions=student.dimensions, options=student.options, query=student.query,
            documents=(documents or self.collection).documents,
        )  # fmt: skip

    def train(
        self, training: Training, student: Student, steps: Sequence[Step], shape: Shape | None
    ) -> Speeds:
        """Measure each stage of a training: a step, and all around the steps.

        Args:
            steps: the texts of a step of each stage, as the run makes them.
            shape: of the student; None for one without a transformer to train.
        """
        table = student.kind in TABLES
        speeds: Speeds = {}
        small = None
        if table:
            self._make_up_vocabulary(student)
            for collection in (self.fewer, self.collection):
                document_vectors(student.base, collection.documents, max_length=student.max_length)
            self._trained(training, student, 0, self.fewer, 2, "warm")
            small, _ = self._trained(training, student, 0, self.fewer, 2, "fewer")
        else:
            speeds |= self._curve(student, shape)
        for number, (stage, step) in enumerate(zip(training.all_stages, steps, strict=True)):
            settings = training.train_settings(stage, self.config.train)
            batch = (
                fitting_batch(settings, bool(stage.texts)) if not table else settings.batch_queries
            )
            seconds, record = self._trained(
                training, student, number, self.collection, batch, "all"
            )
            each = float(record["seconds_per_step"] or 0)
            share = batch / settings.batch_queries
            amount = step.flops(shape) * share
            if table:  # its texts are looked up: count those that the sample has
                pools = min(batch, len(self.texts))
                amount = pools + distinct(pools * settings.slate_size, DOCUMENTS)
            around = max(0.0, seconds - STEPS * each)
            if small is not None:
                grown = len(self.collection.documents) - len(self.fewer.documents)
                a_document = max(0.0, around - small) / max(1, grown)
                speeds["documents"] = Speed(a_document, 1)
                around = max(0.0, around - a_document * len(self.collection.documents))
            speeds |= {
                f"step{number}": Speed(each, amount),
                f"start{number}": Speed(around, 1),
            }
        return speeds

    def _make_up_vocabulary(self, student: Student) -> None:
        """Put vectors of tokens where a table is made from them: a recipe of its own times them."""
        prompts = {"", *(prompts_of(self._encoder(student.base)).values())}
        vocabulary = len(self._encoder(student.base).tokenizer)
        size = vector_size(student.base) or 384
        for prompt in prompts:
            path = vocabulary_file(student.base, prompt=prompt)
            if not path.exists():
                made_up = np.random.default_rng(0).normal(size=(vocabulary, size))
                save_array(path, made_up.astype(np.float32))

    def vocabulary(self, model: str) -> Speeds:
        """Measure encoding single tokens, in float32."""
        encoder = self._encoder(model)
        tokens = torch.arange(min(256, len(encoder.tokenizer)))
        encode_tokens(encoder, tokens[:32])
        return {"tokens": Speed(timed(lambda: encode_tokens(encoder, tokens)), len(tokens))}

    def _encoder(self, model: str) -> Any:
        if model not in self._encoders:
            self._encoders[model] = load_encoder(model, dtype=torch.float32)
        return self._encoders[model]

    def _curve(self, student: Student, shape: Shape | None) -> Speeds:
        """Measure making a student, and a point of its learning curve, which is in float32."""
        holder: list[Any] = []
        seconds = timed(lambda: holder.append(self.made(student)))
        if student.kind in RE_RANKS or shape is None:
            return {"make": Speed(seconds, 1)}
        at = np.random.default_rng(0).permutation(len(self.collection.documents))[:48]
        documents = [self.collection.documents.at(int(k)).full for k in at]
        queries = list(self.texts.values())[:8]
        tokens = self.amounts.document_tokens(student.base, student.max_length) * len(documents)
        all_scores(holder[0], queries[:2], documents[:2])
        point = timed(lambda: all_scores(holder[0], queries, documents))
        amount = shape.forward(tokens, tokens / len(documents))
        return {"make": Speed(seconds, 1), "point": Speed(point, amount)}

    def _trained(
        self, training: Training, student: Student, number: int, collection: Collection, batch: int,
        name: str,
    ) -> tuple[float, dict[str, Any]]:  # fmt: skip
        """Train a few steps of a stage after those before it; returns seconds and the record."""
        layers = student.layers
        if isinstance(layers, LayerChoice):
            layers = evenly(student.base, layers.keep)
        few = {"steps": STEPS, "batch_queries": batch, "eval_steps": NEVER, "save_steps": NEVER}
        stages: list[TrainingStage] = [
            stage.model_copy(
                update={"train": {**training.train, **stage.train, **few}, "confused": None}
            )
            for stage in training.all_stages
        ]
        job = StudentTraining(
            training.model_copy(update={"stages": stages, "objective": []}),
            student.model_copy(update={"layers": layers}),
            self.config.train,
            SampleEnsemble(self.config, self.texts, collection),
            self.folder / "students" / f"{name}-{id(training)}",
            max_length=student.max_length,
        )
        record: dict[str, Any] = {}
        seconds = timed(lambda: record.update(job.train_stage(number)))
        return seconds, record

    def reading(self) -> Speeds:
        """Measure what is neither a model's nor an index's: BM25, reading scores, pools."""
        teacher, store = self._opened("bm25"), ScoreStore(self.folder / "read")
        pairs = self._pairs(2_048)
        count = sum(map(len, pairs.values()))
        score_and_record(self.collection, self.texts, pairs, teacher, store)
        read = partial(scores_of, self.collection, self.texts, pairs, store, teacher.key)

        def prepare() -> None:
            scores = Combination().fuse({"bm25": read()}, {"bm25": 1.0}, Drops(), normalise=True)
            build_pools(self.texts, scored(pairs), self.collection, {}, scores, Drops())

        return {
            "pairs": Speed(timed(prepare), count),
            **judging(self.collection, self.candidates(100), self.folder),
        }


def evenly(model: str, keep: int) -> list[int]:
    """Evenly spaced layers of a model, the first and the last among them."""
    count = layer_count(model) or keep
    return sorted({round(float(k)) for k in np.linspace(0, count - 1, keep)})
