"""The plan of a run beside what its stages took, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_kd.evaluation.report.formats import duration
from retrieval_kd.evaluation.report.grid import Cell, Grid

SHORT = 1.0  # seconds; the ratio of a stage that took less says nothing


def plan_grid(stages: Sequence[Mapping[str, Any]]) -> Grid | None:
    """Tabulate stages with `title`, `planned` and `took` (seconds); None without any.

    A stage that took less than a second has no ratio.

    Example:
        >>> grid = plan_grid([{"title": "candidates", "planned": 30.0, "took": 40.0}])
        >>> [cell.text for cell in grid.rows[0]], [cell.text for cell in grid.rows[-1]]
        (['candidates', '30 s', '40 s', '0.75'], ['in all', '30 s', '40 s', '0.75'])
    """
    if not stages:
        return None
    sums = {name: sum(float(stage[name]) for stage in stages) for name in ("planned", "took")}
    rows = [_row(stage) for stage in [*stages, {"title": "in all", **sums}]]
    note = "Planned by `rkd plan` before these stages ran; times of this machine."
    return Grid(["Stage", "Planned", "Took", "Planned / took"], rows, note)


def _row(stage: Mapping[str, Any]) -> list[Cell]:
    planned, took = float(stage["planned"]), float(stage["took"])
    share = f"{planned / took:.2f}" if took >= SHORT else ""
    return [Cell(str(stage["title"])), Cell(duration(planned)), Cell(duration(took)), Cell(share)]
