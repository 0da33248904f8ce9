"""The published methods in `configs/methods/NAME.yaml`, as `rkd methods` lists them.

Reads only YAML and JSON, so that listing needs no torch. `rkd run` runs a method.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from pydantic import Field

from retrieval_kd.errors import InputError, did_you_mean
from retrieval_kd.files import read_json
from retrieval_kd.schema import Part, read_extended, validate

ROOT = Path(__file__).parents[2]  # of a checkout
SHARED = Path(sysconfig.get_path("data")) / "share" / "retrieval_kd"  # of an installation
FOLDERS = (ROOT / "configs" / "methods", SHARED / "methods")
RESULTS = (ROOT / "benchmarks" / "results" / "methods.json", SHARED / "methods.json")
SECTIONS = {
    "A": "Ranking distillation into retrievers",
    "D": "Smaller shapes",
    "E": "Objectives and schedules from distillation at large",
    "F": "Honesty",
}
MEASURE = "ndcg@10"

Need = Literal[
    "teacher scores",
    "labels",
    "encoder's vectors",
    "live encoder",
    "live multi-vector model",
    "live cross-encoder",
    "LLM",
]


class Paper(Part):
    """Where a method was published."""

    title: str = Field(description="in full")
    authors: str = Field(description="first author et al.")
    year: int = Field(ge=1990, description="of its first version")
    arxiv: str | None = Field(None, pattern=r"^\d{4}\.\d{4,5}$", description="arXiv ID")

    @property
    def link(self) -> str:
        """Markdown: authors, year and title, with a link if the paper is on arXiv."""
        text = f"{self.authors} {self.year}, {self.title}"
        return f"[{text}](https://arxiv.org/abs/{self.arxiv})" if self.arxiv else text


class Method(Part):
    """The part `method` of a configuration: the published method that the file reproduces."""

    paper: Paper = Field(description="who published it")
    section: Literal["A", "D", "E", "F"] = Field(
        description="A: ranking distillation into retrievers; D: smaller shapes; E: objectives and "
        "schedules from distillation at large; F: honesty"
    )
    new: str = Field(description="what is new in it, one sentence")
    needs: list[Need] = Field(description="what a training must have")
    settings_from: dict[str, str] = Field(
        description="setting → the section or table of the paper it is from, or `ours`"
    )
    left_out: str | None = Field(None, description="what of the paper this file does not do")
    elsewhere: str | None = Field(
        None,
        description="for a method that does not train: the command, and where it is shown",
    )


@dataclass(frozen=True)
class Entry:
    """One method: its file, its description, and its measured results.

    `student` is the name of the method's own student in the file, and `objective` what that student
    minimises; `measured` has one value per seed, by collection and measure.
    """

    name: str
    config: Path
    method: Method
    student: str
    objective: str
    measured: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what `rkd methods --json` prints."""
        own = {"config": shown(self.config), "objective": self.objective}
        return {
            "name": self.name,
            **self.method.model_dump(),
            **own,
            "measured": self.measured or None,
        }


def list_methods(folder: str | Path | None = None) -> list[Entry]:
    """Return all methods, ordered by section and name.

    Raises:
        InputError: the folder has no YAML files, or one of them is wrong.
    """
    at = _folder(folder)
    path = next((path for path in RESULTS if path.exists()), None)
    results = read_json(path)["collections"] if path else {}
    entries = [_entry(file, results) for file in sorted(at.glob("*.yaml"))]
    return sorted(entries, key=lambda entry: (entry.method.section, entry.name))


def find_method(name: str, folder: str | Path | None = None) -> Entry:
    """Return one method by name.

    Example:
        >>> find_method("margin_mse").objective
        'margin_mse'
    """
    entries = {entry.name: entry for entry in list_methods(folder)}
    if name not in entries:
        raise InputError(f"no method {name!r}", remedy=_nearest(name, entries))
    return entries[name]


def config_file(name: str | Path) -> Path:
    """Return a configuration's path; a name without a suffix is one of this project's, or a file.

    Example:
        >>> config_file("adapt").name, config_file("mine.yaml").name
        ('adapt.yaml', 'mine.yaml')
    """
    path = Path(name)
    if path.is_file() or path.suffix or path.name != str(name):
        return path
    methods = _folder(None)
    files = {file.stem: file for at in (methods, methods.parent) for file in at.glob("*.yaml")}
    if str(name) not in files:
        remedy = f"{_nearest(str(name), files)}; give a file's path with its .yaml"
        raise InputError(f"no configuration and no method {str(name)!r}", remedy=remedy)
    return files[str(name)]


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    return did_you_mean(name, known) or "rkd methods lists the methods"


def shown(path: Path) -> str:
    """Return a path relative to the checkout if it is in it, else the whole path."""
    resolved = path.resolve()
    return str(resolved.relative_to(ROOT) if resolved.is_relative_to(ROOT) else resolved)


def mean_spread(values: list[float]) -> str:
    """Format mean ± standard deviation over seeds; a dash if there are no values.

    Example:
        >>> mean_spread([0.5, 0.6]), mean_spread([])
        ('0.5500 ± 0.0707', '–')
    """
    if not values:
        return "–"
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean(values):.4f}{spread}"


def _folder(folder: str | Path | None) -> Path:
    candidates = FOLDERS if folder is None else (Path(folder),)
    for candidate in candidates:
        if any(candidate.glob("*.yaml")):
            return candidate
    raise InputError(
        "no methods there",
        file=candidates[0],
        remedy="name the folder with --configs, configs/methods of the repository",
    )


def _entry(path: Path, results: Mapping[str, Any]) -> Entry:
    values = read_extended(path)
    if "method" not in values:
        raise InputError("no part `method`", file=path, remedy="say which paper it is")
    method = validate(Method, values["method"], path)
    try:
        student = values.get("compare", ["distilled"])[0]
        training = values.get("students", {}).get(student)
        if not isinstance(training, Mapping):
            raise InputError(f"no student {student!r}, which compare names first", file=path)
        objective = _objective(training)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        remedy = "write them as in configs/methods/margin_mse.yaml"
        raise InputError("compare or students cannot be read", file=path, remedy=remedy) from error
    measured = {
        collection: {MEASURE: list(record["systems"][student][MEASURE])}
        for collection, record in results.items()
        if student in record["systems"] and method.elsewhere is None
    }
    return Entry(path.stem, path, method, student, objective, measured)


def _objective(training: Mapping[str, Any]) -> str:
    """Return the objective of a student's training in one line, its stages in order.

    Example:
        >>> _objective({"objective": [{"name": "kl", "candidates": "batch", "weight": 0.9}]})
        '0.9 kl@batch'
    """
    stages = training.get("stages") or [training]
    sums = [stage.get("objective", []) for stage in stages]
    return " → ".join(s if isinstance(s, str) else " + ".join(map(_term, s)) for s in sums)


def _term(term: Mapping[str, Any]) -> str:
    weight = f"{term['weight']:g} " if term.get("weight", 1) != 1 else ""
    candidates = "@batch" if term.get("candidates") == "batch" else ""
    sides = [f"{term['student']} learns"] if "student" in term else []
    sides += [f"from {term['teacher']}"] if "teacher" in term else []
    return f"{weight}{term['name']}{candidates}" + (f" ({' '.join(sides)})" if sides else "")
