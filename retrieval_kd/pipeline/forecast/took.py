"""Reads a run's plan back, to stand beside what its stages took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json
from retrieval_kd.workspace import Workspace

FORMAT = 1
PLAN = "plan.json"


def planned_and_taken(work: Workspace, path: Path) -> list[dict[str, Any]]:
    """Return each stage that was planned and has run: `title`, `planned` and `took` (seconds).

    Without a plan, or where settings have changed since, there is nothing to compare.
    """
    rows = []
    titles = {stage.name: stage.title for stage in work.stages}
    for stage in read_plan(path).get("stages", []):
        name, planned = stage.get("name"), stage.get("seconds")
        record = work.record(name) if name in titles else {}
        if planned is not None and record and record.get("key") == stage.get("key"):
            rows.append(
                {"title": titles[name], "planned": float(planned), "took": record["seconds"]}
            )
    return rows


def read_plan(path: Path) -> dict[str, Any]:
    """Read a plan; a missing, damaged or foreign file counts as none."""
    try:
        found = read_json(path)
    except (OSError, ValueError, InputError):
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}
