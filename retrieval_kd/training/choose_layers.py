"""Chooses the layers that a student keeps: subsets are tried on dev queries before any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations, product
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.errors import InputError, log
from retrieval_kd.files import cache_dir, cached, digest_json, read_json, write_json
from retrieval_kd.progress import bar, say
from retrieval_kd.training.trainer.curve import DevTask, all_scores

MOST = 40  # subsets that are tried
RESULT = "layers.json"


def choose_layers(
    make: Callable[[list[int]], Any], count: int, keep: int, dev: DevTask, key: Any
) -> dict[str, Any]:
    """Try subsets of a model's layers, untrained, and return the best with all that was tried.

    Each is measured as a point of the learning curve is: by nDCG@10 on `dev`. Of subsets that are
    equally good, the first counts. Values are cached, so that the seeds of a student, its stages
    and a call after a killed one measure none twice.

    Args:
        make: numbers of layers → the student that keeps them.
        count: number of the model's layers.
        key: what decides the untrained student, besides the layers.

    Returns:
        `kept`, `queries` and `documents` of the task, and `tried`: `layers` and `ndcg@10` of each.
        The value is None for layers with which the architecture cannot be saved.

    Raises:
        InputError: it can be saved with none of them.
    """
    tried = []
    subsets = candidate_layers(count, keep)
    with bar("trying layers on dev queries", len(subsets)) as progress:
        for layers in subsets:

            def measure(folder: Path, layers: list[int] = layers) -> None:
                write_json(folder / RESULT, {"ndcg@10": _measured(make, layers, dev)})

            folder = cache_dir() / "layers" / digest_json([key, layers, asdict(dev)])
            tried.append({"layers": layers, **read_json(cached(folder, measure) / RESULT)})
            progress.advance()
    values = [-1.0 if t["ndcg@10"] is None else t["ndcg@10"] for t in tried]
    best = tried[int(np.argmax(values))]
    if best["ndcg@10"] is None:
        raise InputError(
            f"this architecture loads as it was saved with no {keep} of the layers tried",
            remedy="name the layers to keep, its first one among them",
        )
    kept = ", ".join(map(str, best["layers"]))
    say(
        f"layers {kept} of {count} kept: nDCG@10 {best['ndcg@10']:.4f} on dev queries, the best of "
        f"{len(tried)} choices",
        error=True,
    )
    return {
        "kept": best["layers"],
        "queries": len(dev.queries),
        "documents": len(dev.documents),
        "tried": tried,
    }


def candidate_layers(count: int, keep: int) -> list[list[int]]:
    """Return the subsets to try: all if there are at most 40, else 40 around the evenly spaced one.

    Those are found by moving one layer by one place, then one layer of each result, and so on.

    Example:
        >>> candidate_layers(3, 2)
        [[0, 1], [0, 2], [1, 2]]
        >>> candidate_layers(12, 3)[:3]
        [[0, 6, 11], [1, 6, 11], [0, 5, 11]]
    """
    if comb(count, keep) <= MOST:
        return [list(layers) for layers in combinations(range(count), keep)]
    found = [np.linspace(0, count - 1, keep).round().astype(int).tolist()]
    for layers in found:
        for moved in _neighbours(layers, count):
            if moved not in found:
                found.append(moved)
        if len(found) >= MOST:
            break
    return found[:MOST]


def _neighbours(layers: Sequence[int], count: int) -> list[list[int]]:
    """Return the subsets in which one layer is the one before or after it."""
    moved = []
    for place, step in product(range(len(layers)), (-1, 1)):
        at = layers[place] + step
        if 0 <= at < count and at not in layers:
            moved.append([*layers[:place], at, *layers[place + 1 :]])
    return moved


def _measured(make: Callable[[list[int]], Any], layers: list[int], dev: DevTask) -> float | None:
    try:
        student = make(layers)
    except InputError as error:
        log.warning("layers %s are not tried: %s", layers, error)
        return None
    return dev.ndcg(all_scores(student, list(dev.queries.values()), dev.documents))
