"""What a run will take: its stages' works times the speeds of this machine.

    seconds of a stage = Σ over its works of amount · seconds / amount, as it was measured

Only stages that are not done count. What a work has no speed of its own for, as its measurement
failed, takes its operations at the mean rate of what was measured, and is marked as estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from retrieval_kd.config.run import Config
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.pipeline.forecast.amounts import Amounts
from retrieval_kd.pipeline.forecast.calibrate import Speed, Speeds, speeds_of
from retrieval_kd.pipeline.forecast.gpus import GPU
from retrieval_kd.pipeline.forecast.sample import Sample
from retrieval_kd.pipeline.forecast.stage_work import RunWork
from retrieval_kd.pipeline.forecast.work import StageWork, Work
from retrieval_kd.pipeline.plan import planned

PROCESS_BYTES = 0.9e9  # of Python and its libraries; a run's data come on top
ALWAYS = 0.3  # seconds of any stage: its record, its files
NOTHING = StageWork()


@dataclass(frozen=True)
class StageForecast:
    """One stage: what it has to do, and the seconds of each of its works.

    Attributes:
        took: seconds, of a stage that is done; it has no work then.
        estimated: a work in it could not be measured.
    """

    name: str
    title: str
    key: str
    work: StageWork = NOTHING
    seconds: float = 0.0
    took: float | None = None
    estimated: bool = False
    by_work: tuple[float, ...] = ()

    @property
    def is_done(self) -> bool:
        return self.took is not None

    @property
    def cpu_seconds(self) -> float:
        """Seconds of works without a transformer, which a GPU does not speed up."""
        pairs = zip(self.work.works, self.by_work, strict=True)
        spent = sum(seconds for work, seconds in pairs if work.flops)
        return self.seconds - spent


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run."""

    config: Config
    stages: list[StageForecast]
    speeds: dict[str, Speeds] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    amounts: Any = None

    @property
    def todo(self) -> list[StageForecast]:
        return [stage for stage in self.stages if not stage.is_done]

    @property
    def seconds(self) -> float:
        """Seconds of all that remains, without servers."""
        return sum(stage.seconds for stage in self.todo)

    @property
    def flops(self) -> float:
        return sum(stage.work.flops for stage in self.todo)

    @property
    def disk(self) -> float:
        return sum(stage.work.disk for stage in self.todo)

    @property
    def memory(self) -> float:
        """Bytes of the models of the largest stage, and of Python; a process holds more."""
        return PROCESS_BYTES + max((stage.work.memory for stage in self.todo), default=0.0)

    @property
    def server_price(self) -> float | None:
        """Price of all calls of servers; None where no price is set or nothing is called."""
        prices = [s.work.calls.price for s in self.todo if s.work.calls is not None]
        known = [price for price in prices if price is not None]
        return sum(known) if known else None

    def count(self, what: str) -> int:
        """How often an operation is done in all stages, such as `pairs scored`."""
        return sum(stage.work.count(what) for stage in self.todo)

    def seconds_on(self, gpu: GPU) -> float:
        """Estimated seconds with a GPU: its operations, and what runs beside it as here."""
        return sum(gpu.seconds(stage.work.flops) + stage.cpu_seconds for stage in self.todo)


def forecast(config: Config, *, again: bool = False) -> Forecast:
    """Forecast a run: plan its stages, count their work, and measure what is not measured yet.

    Nothing is written but speeds into the cache, and BM25's index of the collection, which the run
    finds there. Models are loaded only to be measured.

    Args:
        again: measure all again.

    Raises:
        InputError: the configuration, the collection or a model is wrong, as `rkd run` says it.
    """
    context = planned(config)
    context.work.check_folder()
    amounts = Amounts(context)
    run, works = _works(context, amounts)
    recipes = list(run.recipes.found.values())
    if recipes:
        _ = amounts.sample_pairs  # before the cache is another one
    speeds, failed = speeds_of(recipes, amounts, Sample, again=again)
    if amounts.bm25_seconds is not None:
        speeds["bm25"] = {"search": Speed(amounts.bm25_seconds, 1)}
    stages = _forecasts(context, works, speeds)
    return Forecast(config, stages, speeds, failed, amounts)


def changed(made: Forecast, config: Config) -> Forecast:
    """Forecast the same run with other settings at the speeds that are known; nothing is measured.

    Raises:
        InputError, ValueError: the settings do not fit.
    """
    context = planned(config, made.amounts.context.collection)
    _, works = _works(context, Amounts(context, like=made.amounts))
    return Forecast(config, _forecasts(context, works, made.speeds), made.speeds, made.failed)


def without(made: Forecast, drop: Callable[[Work], bool]) -> float:
    """Seconds of what remains without the works that `drop` names."""
    return made.seconds - sum(
        seconds
        for stage in made.todo
        for work, seconds in zip(stage.work.works, stage.by_work, strict=True)
        if drop(work)
    )


def _works(context: Any, amounts: Amounts) -> tuple[RunWork, dict[str, StageWork]]:
    run = RunWork(context, amounts, value_bytes=torch.finfo(fast_dtype()).bits // 8)
    return run, {stage.name: run.of(stage) for stage in context.work.todo()}


def _forecasts(
    context: Any, works: dict[str, StageWork], speeds: dict[str, Speeds]
) -> list[StageForecast]:
    rate, found = _mean_rate(speeds), []
    for stage in context.work.stages:
        key, name, title = context.work.keys[stage.name], stage.name, stage.title
        if name not in works:
            took = float(context.work.record(name).get("seconds", 0.0))
            found.append(StageForecast(name, title, key, took=took))
            continue
        times = [_seconds(work, speeds, rate) for work in works[name].works]
        by_work = tuple(seconds for seconds, _ in times)
        seconds = sum(by_work) + ALWAYS
        estimated = any(guessed for _, guessed in times)
        found.append(
            StageForecast(name, title, key, works[name], seconds, None, estimated, by_work)
        )
    return found


def _seconds(work: Work, speeds: dict[str, Speeds], rate: float) -> tuple[float, bool]:
    """Seconds of a work, and whether they are estimated from its operations alone."""
    recipe, name = work.speed
    speed = speeds.get(recipe, {}).get(name)
    if speed is not None:
        return speed.of(work.amount), False
    return (work.flops / rate if rate else 0.0), bool(recipe)


def _mean_rate(speeds: dict[str, Speeds]) -> float:
    """Operations a second of all reading that was measured; 0 if there is none."""
    read: Sequence[Speed] = [own["encode"] for own in speeds.values() if "encode" in own]
    seconds = sum(speed.seconds for speed in read)
    return sum(speed.amount for speed in read) / seconds if seconds else 0.0
