"""Suites: their collections, splits and measures, and where the collections' data lie.

A suite is a file `configs/suites/NAME.yaml`; its data are BEIR folders, zips or `ir_datasets`.
Nothing is downloaded unless the caller wants it.
"""

from __future__ import annotations

import contextlib
import logging
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retrieval_kd.data.beir import beir_reader
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.irds import irds_reader
from retrieval_kd.data.sources import Source
from retrieval_kd.data.specs import data_folder
from retrieval_kd.errors import InputError
from retrieval_kd.metrics.names import parse_measures
from retrieval_kd.schema import Depth, Part, read_yaml, validate

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
        "test", description="split of the BEIR folder; null: test, or else the one it has"
    )
    group: str | None = Field(
        None, description="collections of one group are averaged first and then count once"
    )
    in_average: bool = Field(True, description="whether the suite's average includes it")
    language: str | None = Field(None, description="BM25's stemmer, PyStemmer's name, or none")


class Suite(Part):
    """Collections that are evaluated together, with the measures their papers report."""

    name: str = Field(description="as a heading shows it")
    measures: list[str] = Field(description="the first is the main one")
    depth: Depth = Field(100, description="documents retrieved per query")
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
        names = ", ".join(suite_names()) or "none is installed"
        remedy = f"name one of {names}, or a YAML file"
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


NOT_HERE = "not downloaded"
PREFERRED = ("test", "dev", "validation", "heldout")


@dataclass(frozen=True)
class Located:
    """An available collection: how to open it, and which split to evaluate."""

    name: str
    spec: str
    split: str
    splits: tuple[str, ...]

    def open(self) -> Collection:
        return open_collection(self.spec)


def find_members(suite: Suite, data: str | Path | None = None) -> dict[str, Member]:
    """Return the suite's collections; for a local suite, every folder and zip in the data folder.

    A collection that exists both as a folder and as a zip counts once, as the folder.
    """
    if not suite.local:
        return dict(suite.collections)
    folder = _data(data)
    if not folder.is_dir():
        remedy = "name a folder that holds BEIR folders or zips with --data"
        raise InputError("no such folder", file=folder, remedy=remedy)
    if (folder / "corpus.jsonl").is_file():
        return {folder.resolve().name: Member(beir=str(folder.resolve()), split=None)}
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: (not p.is_dir(), p.name)):
        if not path.name.startswith(".") and (path.is_dir() or path.suffix == ".zip"):
            paths.setdefault(path.name if path.is_dir() else path.stem, path.resolve())
    if not paths:
        remedy = "put BEIR folders or zips there, or name another with --data"
        raise InputError("no folder or zip in here", file=folder, remedy=remedy)
    return {name: Member(beir=str(paths[name]), split=None) for name in sorted(paths)}


def choose_members(
    suite: Suite, data: str | Path | None = None, only: Sequence[str] = ()
) -> dict[str, Member]:
    """Return the suite's collections, or those of them that are in `only`."""
    members = find_members(suite, data)
    unknown = next((name for name in only if name not in members), None)
    if unknown is not None:
        remedy = f"it has {', '.join(members)}"
        raise InputError(f"the suite has no collection {unknown!r}", remedy=remedy)
    return {name: member for name, member in members.items() if not only or name in only}


def locate(
    name: str, member: Member, data: str | Path | None = None, *, download: bool = False
) -> Located:
    """Find a collection without reading its texts.

    A BEIR folder or zip is preferred to `ir_datasets`, which may connect only with `download`.

    Raises:
        InputError: it is not available; the message says why, and what to do.
    """
    folder, file = _data(data), member.beir or name
    path = next((p for p in (folder / file, folder / f"{file}.zip") if p.exists()), None)
    if path is not None:
        return _folder(name, member, path)
    if member.irds is None:
        raise InputError(f"put its BEIR folder or zip at {folder / file}[.zip]")
    return _irds(name, member.irds, folder / file, download)


def _data(data: str | Path | None) -> Path:
    return Path(data).expanduser() if data is not None else data_folder()


def _folder(name: str, member: Member, path: Path) -> Located:
    reader = beir_reader(Source(path))
    if reader is None:
        raise InputError("no BEIR collection: it holds no corpus.jsonl", file=path)
    splits = sorted(reader.judgments)
    if not splits:
        raise InputError("no judgments", file=path, remedy="add qrels/test.tsv")
    if member.split is not None and member.split not in splits:
        problem = f"no split {member.split!r}; it has {', '.join(splits)}"
        raise InputError(problem, file=path, remedy=f"add qrels/{member.split}.tsv")
    split = member.split or next((s for s in PREFERRED if s in splits), splits[0])
    return Located(name, str(path), split, tuple(splits))


def _irds(name: str, id: str, beir: Path, download: bool) -> Located:
    import ir_datasets

    reader = irds_reader(id)
    if reader is None:
        raise InputError(f"this version of ir_datasets does not know {id}: pip install -U it")
    if not download:
        with offline():
            reason = _absent(ir_datasets.load(id))
        if reason:
            home = ir_datasets.util.home_path()
            problem = f"not in {home}" + (f" ({reason})" if reason != NOT_HERE else "")
            raise InputError(
                f"{problem}: let ir_datasets fetch {id} there with --download, or put its BEIR "
                f"folder or zip at {beir}[.zip]",
            )
    [split] = reader.judgments
    return Located(name, f"irds:{id}", split, (split,))


def _absent(dataset: Any) -> str:
    """Say why the first query, judgment and document cannot be read locally; empty if they can.

    The documents, the largest part, come last, so that they are not unpacked in vain.
    """
    for part in (dataset.queries_iter, dataset.qrels_iter, dataset.docs_iter):
        try:
            next(iter(part()))
        except Exception as error:  # ir_datasets wraps ours in many classes, or raises its own
            text = " ".join(str(error).split())
            return NOT_HERE if NOT_HERE in text else f"{type(error).__name__}: {text[:300]}"
    return ""


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Make ir_datasets fail silently, within the block, where it would open a connection.

    It has no option for that, but all its downloads import `requests` through one function.
    """
    import ir_datasets

    def refuse() -> Any:
        raise ConnectionError(NOT_HERE)

    libraries = ir_datasets.lazy_libs
    requests, level = libraries.requests, logging.root.manager.disable
    libraries.requests = refuse
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        libraries.requests = requests
        logging.disable(level)
