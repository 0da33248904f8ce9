"""Measures in about a minute how fast this machine does what a run consists of.

Each measurement is a recipe: a few batches of the real thing, on documents and queries of the
run's own collection, in a folder that is deleted afterwards. Its speeds are kept in the cache under
the model's digest, the settings that change them, the machine, the dtype and the threads.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from retrieval_kd.errors import InputError, log
from retrieval_kd.files import cache_dir, digest_json, read_json, write_json
from retrieval_kd.hardware import describe, dtype_name, fast_dtype
from retrieval_kd.pipeline.forecast.amounts import Amounts
from retrieval_kd.progress import bar

FORMAT = 1  # of a kept speed
MACHINE = ("processor", "matrix_units", "cores", "torch_threads", "gpu", "fast_dtype")


@dataclass(frozen=True)
class Speed:
    """Seconds that an amount of something took; the amount's unit is that of the work."""

    seconds: float
    amount: float

    def of(self, amount: float) -> float:
        """Seconds of another amount.

        Example:
            >>> Speed(seconds=2.0, amount=10.0).of(25)
            5.0
        """
        return self.seconds / self.amount * amount if self.amount else 0.0


Speeds = dict[str, Speed]


@dataclass(frozen=True)
class Recipe:
    """A measurement: what it is of, what decides its speeds, and the function that takes them.

    Args:
        name: shown while it is measured, such as `train half`.
        key: digests and settings that change the speeds.
        measure: takes the sample, and returns speeds by name.
    """

    name: str
    key: Any
    measure: Callable[[Any], Speeds]


def speeds_of(
    recipes: Sequence[Recipe],
    amounts: Amounts,
    open_sample: Callable[[Amounts, Path], Any],
    *,
    again: bool = False,
) -> tuple[dict[str, Speeds], list[str]]:
    """Measure what is not in the cache.

    Args:
        open_sample: makes what recipes measure on, in a folder; called if one is measured.
        again: measure all, whatever is cached.

    Returns:
        Speeds by recipe and name, and the names of recipes that could not be measured.
    """
    files = {recipe.name: _file(recipe) for recipe in recipes}
    found = {} if again else {name: kept for name, path in files.items() if (kept := _read(path))}
    todo = [recipe for recipe in recipes if recipe.name not in found]
    failed: list[str] = []
    if not todo:
        return found, failed
    with bar("measuring this machine", len(todo)) as progress, sandbox() as folder:
        sample = open_sample(amounts, folder)
        for recipe in todo:
            try:
                found[recipe.name] = recipe.measure(sample)
                record = {name: asdict(speed) for name, speed in found[recipe.name].items()}
                write_json(files[recipe.name], {"of": recipe.name, "speeds": record})
            except InputError as error:
                log.warning("%s cannot be measured, and is estimated: %s", recipe.name, error)
                failed.append(recipe.name)
            progress.advance()
    return found, failed


@contextmanager
def sandbox() -> Iterator[Path]:
    """Yield a folder that is deleted at the end, with a cache of its own in the block.

    So nothing that is measured is found in the cache, and nothing of the sample stays there.
    """
    before = os.environ.get("RETRIEVAL_KD_CACHE")
    with tempfile.TemporaryDirectory(prefix="rkd-plan-", ignore_cleanup_errors=True) as name:
        os.environ["RETRIEVAL_KD_CACHE"] = str(Path(name, "cache"))
        try:
            yield Path(name)
        finally:
            os.environ.pop("RETRIEVAL_KD_CACHE")
            if before is not None:
                os.environ["RETRIEVAL_KD_CACHE"] = before


def timed(function: Callable[[], Any]) -> float:
    """Seconds of a call; work on a GPU is waited for."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def slope(function: Callable[[int], Any], few: int, many: int) -> tuple[float, float]:
    """Time a function of a size at two sizes: seconds of one more, and of none.

    The smaller one comes first and warms up; what the constant has of that is left in.
    """
    first, second = timed(lambda: function(few)), timed(lambda: function(many))
    each = max(0.0, (second - first) / (many - few)) if many > few else second / max(1, many)
    each = each or second / many  # the difference is lost in noise
    return each, max(0.0, second - each * many)


def machine() -> dict[str, Any]:
    """What of this machine decides a speed."""
    facts = describe()
    return {name: facts[name] for name in MACHINE}


def _file(recipe: Recipe) -> Path:
    key = [FORMAT, recipe.name.partition(" ")[0], recipe.key, machine(), dtype_name(fast_dtype())]
    return cache_dir() / "speeds" / f"{digest_json(key)}.json"


def _read(path: Path) -> Speeds:
    """Read kept speeds; a damaged file counts as none."""
    try:
        kept: Mapping[str, Any] = read_json(path)["speeds"]
        return {name: Speed(**values) for name, values in kept.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, InputError):
        return {}
