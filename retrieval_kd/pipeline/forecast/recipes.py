"""Which measurements the works of a run need: a recipe for each model, teacher and student."""

from __future__ import annotations

from functools import partial
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.student import LayerChoice, Student
from retrieval_kd.config.training import Training
from retrieval_kd.errors import InputError
from retrieval_kd.models.load import model_digest
from retrieval_kd.models.shapes import Shape, shape_of
from retrieval_kd.pipeline.forecast.amounts import Amounts
from retrieval_kd.pipeline.forecast.calibrate import Recipe
from retrieval_kd.pipeline.forecast.sample import Sample
from retrieval_kd.pipeline.forecast.step_texts import Step, fitting_batch, step_of
from retrieval_kd.students.options import RE_RANKS, TABLES
from retrieval_kd.teachers.kinds import WITHOUT_MODEL
from retrieval_kd.teachers.spec import parse_spec


class Recipes:
    """The recipes that works have asked for, by name."""

    def __init__(self, amounts: Amounts) -> None:
        self.amounts, self.config = amounts, amounts.config
        self.found: dict[str, Recipe] = {}
        self._data = [amounts.context.collection.digest(), self.config.splits.cache_key()]

    def of_index(self, model: str) -> str:
        """Name the recipe of encoding, indexing and searching with a saved model."""
        length = self.config.student.max_length
        key = [model_digest(model), length]
        return self._add(
            f"index {model}", key, partial(_index, model=model, shape=shape(model), length=length)
        )

    def of_student(self, name: str) -> str:
        """Name the recipe of training a student."""
        training = self.config.students[name]
        student, steps = start_of(self.config, training), self.steps(training)
        own = [[stage.cache_key(), stage.train] for stage in training.all_stages]
        common = [training.train, self.config.train.model_dump()]
        key = [self._student_key(training), own, [vars(step) for step in steps], common]
        measure = partial(
            _train, training=training, student=student, steps=steps, shape=student_shape(student)
        )
        return self._add(f"train {name}", key, measure)

    def of_student_index(self, name: str) -> str:
        """Name the recipe of indexing and searching with a student."""
        training = self.config.students[name]
        student = start_of(self.config, training)
        measure = partial(
            _student_index, student=student, shape=student_shape(student),
            length=self.config.student.max_length,
        )  # fmt: skip
        return self._add(f"index {name}", ["student", self._student_key(training)], measure)

    def of_teacher(self, member: str) -> str:
        """Name the recipe of scoring with a teacher in this process."""
        spec, fit = parse_spec(member), self.config.teacher.fit
        is_fitted = member == self.config.teacher.fitted
        model = fit.base if fit is not None and is_fitted else spec.model
        model = parse_spec(model).model if is_fitted else model
        digest = None if spec.kind in WITHOUT_MODEL else model_digest(model)
        length = self.config.max_length_for("pointwise" if is_fitted else spec.kind)
        key = [member, digest, length, self.config.first_stage.depth,
               fit.cache_key() if fit is not None and is_fitted else None]  # fmt: skip
        own = None if spec.kind in ("dense", *WITHOUT_MODEL) else shape(model)
        own = fit_shape(self.config) if is_fitted else own
        each = self.pair_flops(model, own, length)
        return self._add(
            f"score {member}", key, partial(_teacher, member=member, shape=own, each=each)
        )

    def of_fit(self) -> str:
        """Name the recipe of fine-tuning the teacher."""
        fit = self.config.teacher.fit
        assert fit is not None
        model = parse_spec(fit.base).model
        step, batch = self.fit_step(), fitting_batch(fit.train, False)
        measure = partial(_fit, step=step, shape=fit_shape(self.config), batch=batch)
        return self._add("fit teacher", [model_digest(model), fit.cache_key(), vars(step)], measure)

    def of_vocabulary(self, model: str) -> str:
        """Name the recipe of encoding each token of a model's vocabulary alone."""
        return self._add(f"vocabulary {model}", [model_digest(model)], partial(_words, model=model))

    def of_reading(self) -> str:
        """Name the recipe of reading scores and making pools."""
        return self._add("read scores", [], _reading)

    # -- the amounts that recipes and works share --------------------------------------------

    def pair_flops(self, model: str, own: Shape | None, length: int | None) -> float:
        """Operations to score a pair; 1 where no transformer reads it: pairs are counted."""
        if own is None:
            return 1.0
        tokens = self.amounts.pair_tokens(model, length)
        return own.forward(tokens, tokens)

    def fit_step(self) -> Step:
        """The texts of a step of the teacher's fine-tuning."""
        fit = self.config.teacher.fit
        assert fit is not None
        tokens = self.amounts.pair_tokens(parse_spec(fit.base).model, fit.train.max_tokens)
        return step_of(fit.train, "cross_encoder", self.amounts.documents, (0, tokens), texts=False)

    def steps(self, training: Training) -> list[Step]:
        """The texts of a step of each stage of a training."""
        student, found = start_of(self.config, training), []
        for stage in training.all_stages:
            settings = training.train_settings(stage, self.config.train)
            length = settings.max_tokens
            if student.kind in RE_RANKS:
                tokens = (0.0, self.amounts.pair_tokens(student.base, length))
            else:
                queries = self.amounts.query_tokens(student.base, length)
                read = (
                    self.amounts.document_tokens if stage.texts else self.amounts.candidate_tokens
                )
                tokens = (queries, read(student.base, length))
            found.append(
                step_of(
                    settings, student.kind, self.amounts.documents, tokens, texts=bool(stage.texts)
                )
            )
        return found

    def _student_key(self, training: Training) -> Any:
        student = start_of(self.config, training)
        return [student.cache_key(), model_digest(student.base), self.config.first_stage.depth]

    def _add(self, name: str, key: Any, measure: Any) -> str:
        self.found.setdefault(name, Recipe(name, [self._data, key], measure))
        return name


def shape(model: str) -> Shape | None:
    """The sizes of a model; None where its files do not say them."""
    try:
        return shape_of(model)
    except InputError:
        return None


def start_of(config: Config, training: Training) -> Student:
    """How a student starts; one that starts from another has that one's base and layers."""
    student = config.student_for(training)
    if student.start is None:
        return student
    first = start_of(config, config.students[student.start])
    layers = None if student.kind in TABLES else first.layers
    return student.model_copy(update={"start": None, "layers": layers, "base": first.base})


def student_shape(student: Student) -> Shape | None:
    """The sizes of a student's transformer; None if it has none to train."""
    if student.kind in TABLES:
        return None
    whole, layers = shape(student.base), student.layers
    if whole is None:
        return None
    kept = layers.keep if isinstance(layers, LayerChoice) else layers and len(layers)
    if student.kind == "sparse":
        whole = shape_of(student.base, sparse=True)
    return whole and whole.keeping(kept or None)


def fit_shape(config: Config) -> Shape | None:
    """The sizes of the teacher that is fine-tuned."""
    fit = config.teacher.fit
    if fit is None:
        return None
    whole = shape(parse_spec(fit.base).model)
    return whole and whole.keeping(len(fit.layers) if fit.layers else None)


def _index(sample: Sample, *, model: str, shape: Shape | None, length: int) -> Any:
    return sample.index(model, shape, length)


def _train(sample: Sample, *, training: Training, student: Student, steps: Any, shape: Any) -> Any:
    return sample.train(training, student, steps, shape)


def _student_index(sample: Sample, *, student: Student, shape: Any, length: int) -> Any:
    return sample.student_index(student, shape, length)


def _teacher(sample: Sample, *, member: str, shape: Shape | None, each: float) -> Any:
    return sample.teacher(member, shape, each)


def _fit(sample: Sample, *, step: Step, shape: Shape | None, batch: int) -> Any:
    return sample.fit(step, shape, batch)


def _words(sample: Sample, *, model: str) -> Any:
    return sample.vocabulary(model)


def _reading(sample: Sample) -> Any:
    return sample.reading()
