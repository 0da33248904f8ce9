"""Suites: which collections, splits and measures belong together, from `configs/suites/NAME.yaml`.

`data.py` finds the collections' data.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retrieval_kd.errors import InputError
from retrieval_kd.metrics.names import parse_measures
from retrieval_kd.schema import read_yaml, validate

FOLDERS = (
    Path(__file__).parents[3] / "configs" / "suites",  # of a checkout
    Path(sysconfig.get_path("data")) / "share" / "retrieval_kd" / "suites",  # of an installation
)


class Member(BaseModel):
    """One collection of a suite: where it may come from, and which queries count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    irds: str | None = Field(None, description="its ir_datasets ID, judgments included")
    beir: str | None = Field(
        None, description="name of its BEIR folder or zip in the data folder; default: its own name"
    )
    split: str | None = Field(
        "test", description="split of the BEIR folder; none: test, or else the one it has"
    )
    group: str | None = Field(
        None, description="collections of one group are averaged first and then count once"
    )
    in_average: bool = Field(True, description="whether the suite's average includes it")
    language: str | None = Field(None, description="BM25's stemmer, PyStemmer's name, or none")


class Suite(BaseModel):
    """Collections that are evaluated together, with the measures their papers report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="as a heading shows it")
    measures: list[str] = Field(description="the first is the main one")
    depth: int = Field(100, ge=1, description="documents retrieved per query")
    local: bool = Field(False, description="the collections are those found in the data folder")
    collections: dict[str, Member] = Field({}, description="by name, in the order of the report")

    @field_validator("measures")
    @classmethod
    def _known(cls, measures: list[str]) -> list[str]:
        return parse_measures(measures)


def suite_names() -> list[str]:
    """List the suites that come with the project."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})


def load_suite(name: str | Path) -> Suite:
    """Load a suite by name or from a YAML file.

    Example:
        >>> suite = load_suite("trec-dl-2019")
        >>> suite.measures, suite.depth
        (['ndcg@10', 'map-l2', 'recall@1000-l2'], 1000)
        >>> suite.collections["trec-dl-2019"].irds
        'msmarco-passage/trec-dl-2019/judged'
    """
    paths = [folder / f"{name}.yaml" for folder in FOLDERS]
    if Path(name).suffix in (".yaml", ".yml"):
        paths = [Path(name)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        known = ", ".join(suite_names()) or "none is installed"
        remedy = f"name one of {known}, or a YAML file"
        raise InputError(f"unknown suite {str(name)!r}", remedy=remedy)
    suite = validate(Suite, read_yaml(path), path)
    if not suite.local and not suite.collections:
        raise InputError("a suite without collections", file=path, remedy="name some, or `local`")
    return suite


def average_units(members: Mapping[str, Member], present: Iterable[str]) -> dict[str, list[str]]:
    """Map each unit of the average to its collections among those that are present.

    A group's collections are averaged first and then count as one, as BEIR does with the twelve
    parts of CQADupStack. Collections outside the average are left out.

    Example:
        >>> members = {"a": Member(), "b1": Member(group="b"), "b2": Member(group="b")}
        >>> average_units(members, ["a", "b1", "b2"])
        {'a': ['a'], 'b': ['b1', 'b2']}
    """
    units: dict[str, list[str]] = {}
    for name in present:
        if members[name].in_average:
            units.setdefault(members[name].group or name, []).append(name)
    return units
