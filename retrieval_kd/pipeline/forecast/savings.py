"""What would make a run cheaper: the forecast again, with one setting changed at a time.

A saving says nothing of quality: fewer candidates, shorter texts or fewer layers may cost some.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.student import LayerChoice
from retrieval_kd.errors import InputError
from retrieval_kd.pipeline.forecast.forecast import Forecast, changed, without
from retrieval_kd.pipeline.forecast.recipes import start_of
from retrieval_kd.pipeline.forecast.sample import evenly
from retrieval_kd.schema import validate
from retrieval_kd.students.make import layer_count
from retrieval_kd.students.options import TABLES
from retrieval_kd.teachers.kinds import WITHOUT_MODEL
from retrieval_kd.teachers.spec import parse_spec

SHORTEST = 32  # tokens; nobody wants fewer
SCORING = ("pairs scored", "questions asked")


@dataclass(frozen=True)
class Saving:
    """A change, as overrides that `rkd run` takes, and what it saves.

    Attributes:
        seconds: saved of all that remains.
        share: of the seconds that remain; no unit.
    """

    what: str
    overrides: list[str]
    seconds: float
    share: float


def savings(made: Forecast) -> list[Saving]:
    """Forecast each change that the configuration allows; the largest saving first."""
    if not made.seconds:
        return []
    found = []
    for what, values, overrides in _changes(made):
        try:
            seconds = changed(made, validate(Config, values)).seconds
        except (InputError, ValueError):  # the change does not fit this run
            continue
        found.append((what, overrides, made.seconds - seconds))
    stored = made.seconds - without(made, lambda work: work.what in SCORING)
    if stored > 0:
        found.append(("the teachers' scores from a store that has them", ["teacher.store=STORE"],
                      stored))  # fmt: skip
    listed = [
        Saving(what, overrides, round(seconds, 1), round(seconds / made.seconds, 4))
        for what, overrides, seconds in found
        if seconds > 0
    ]
    return sorted(listed, key=lambda saving: -saving.seconds)


def _changes(made: Forecast) -> Iterator[tuple[str, Any, list[str]]]:
    """Yield what is changed, the values of the configuration then, and its overrides."""
    config = made.config
    depth, length = config.first_stage.depth, config.student.max_length
    if depth >= 4:
        yield _set(config, "half the candidates per query", {"first_stage.depth": depth // 2})
    if config.unlabelled is not None:
        drawn = made.amounts.query_count("unlabelled")
        if drawn >= 2:
            yield _set(config, "half the unlabelled queries", {"unlabelled.limit": drawn // 2})
    if length // 2 >= SHORTEST:
        lengths = {"student.max_length": length // 2}
        own = [m for m in config.teacher.members if parse_spec(m).kind == "pointwise"]
        if own and config.teacher.max_length // 2 >= SHORTEST:
            lengths["teacher.max_length"] = config.teacher.max_length // 2
        yield _set(config, "texts of half the length", lengths)
    if config.train.steps >= 2:
        yield _set(config, "half the training steps", _half_steps(config))
    if layers := _half_layers(config):
        yield _set(config, "students with half the layers", layers)
    if len(config.seeds) > 1:
        yield _set(config, "one seed", {"seeds": config.seeds[:1]})
    fused = config.teacher.fuse_with
    weak = [m for m in fused if parse_spec(m).kind not in WITHOUT_MODEL]
    if len(config.teacher.members) > 1 and weak and config.teacher.weights != "cloze":
        rest = [m for m in fused if m != weak[-1]]
        if not isinstance(config.teacher.weights, list):
            yield _set(config, f"no teacher {weak[-1]}", {"teacher.fuse_with": rest})


def _half_steps(config: Config) -> dict[str, Any]:
    """Half the steps in common, and of students with their own."""
    changes: dict[str, Any] = {"train.steps": config.train.steps // 2}
    for name, training in config.students.items():
        if "steps" in training.train:
            changes[f"students.{name}.train.steps"] = max(1, training.train["steps"] // 2)
        for number, stage in enumerate(training.stages):
            if "steps" in stage.train:
                at = f"students.{name}.stages.{number}.train.steps"
                changes[at] = max(1, stage.train["steps"] // 2)
    return changes


def _half_layers(config: Config) -> dict[str, Any]:
    """Half the layers of each student that has some, evenly spaced among its own."""
    changes: dict[str, Any] = {}
    for name, training in config.students.items():
        student = start_of(config, training)
        if student.kind in TABLES or config.student_for(training).start is not None:
            continue
        layers = student.layers
        if isinstance(layers, LayerChoice):
            if layers.keep > 1:
                changes[f"students.{name}.student.layers.keep"] = layers.keep // 2
            continue
        count = len(layers) if layers else layer_count(student.base) or 0
        if count < 2:
            continue
        kept = evenly(student.base, count // 2) if not layers else layers[::2][: count // 2]
        changes[f"students.{name}.student.layers"] = kept
    return changes


def _set(config: Config, what: str, changes: dict[str, Any]) -> tuple[str, Any, list[str]]:
    """Change dotted settings of a configuration."""
    values = config.model_dump(by_alias=True)
    for name, value in changes.items():
        *owner, setting = name.split(".")
        place: Any = values
        for part in owner:
            place = place[int(part)] if isinstance(place, list) else _inner(place, part)
        place[setting] = value
    texts = [f"{name}={value}".replace(" ", "") for name, value in changes.items()]
    return what, values, texts


def _inner(values: Any, name: str) -> Any:
    if values.get(name) is None or isinstance(values[name], str):
        values[name] = {}
    return values[name]
