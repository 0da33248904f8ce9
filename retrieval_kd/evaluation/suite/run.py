"""`rkd suite`: retrieve, measure and test on every available collection of a suite.

Each collection has a folder with a run file per system and records of finished work, so that a
suite that was stopped, or got one more system or collection, does only what is new.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import Run, read_run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.efficiency import measure_latency, prepare
from retrieval_kd.evaluation.result_file import collection_record
from retrieval_kd.evaluation.suite.spec import (
    Located,
    Member,
    Suite,
    choose_members,
    load_suite,
    locate,
)
from retrieval_kd.evaluation.systems import named_baseline, run_file, system_key, system_names
from retrieval_kd.files import digest_file, digest_json
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.names import cutoff, parse_measures
from retrieval_kd.metrics.significance import Comparison, Method, compare
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.workspace import Stage, Workspace

log = logging.getLogger("retrieval_kd")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The user's options, which hold for all collections of a suite."""

    systems: dict[str, str]  # name → the system as `retrieve` knows it
    measures: list[str]
    depth: int
    max_length: int | None = None
    baseline: str | None = None
    method: Method = "t"
    exclude_self: bool = True
    condensed: bool = False


@dataclass
class Evaluated:
    """The results on one collection."""

    located: Located
    documents: int
    evaluation: Evaluation
    comparisons: list[Comparison]
    costs: dict[str, dict[str, Any]]
    inputs: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        record = collection_record(self.evaluation, self.comparisons, self.inputs)
        return {**record, "documents": self.documents, "costs": self.costs}


@dataclass
class SuiteResult:
    """The results on all collections of a suite, and why some are missing."""

    suite: Suite
    members: dict[str, Member]
    options: Options
    collections: dict[str, Evaluated] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def systems(self) -> list[str]:
        return list(self.options.systems)


def evaluate_suite(
    suite: str | Path | Suite,
    with_: Sequence[str] = ("bm25",),
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    only: Sequence[str] = (),
    measures: str | Sequence[str] | None = None,
    depth: int | None = None,
    max_length: int | None = None,
    baseline: str | None = None,
    method: Method = "t",
    exclude_self: bool = True,
    condensed: bool = False,
    download: bool = False,
    progress: Progress = lambda line: None,
) -> SuiteResult:
    """Evaluate first-stage systems on the available collections of a suite.

    Args:
        with_: systems as `retrieve` knows them: bm25, bm25-lucene, a MODEL, A+B.
        data: folder with BEIR folders and zips; default `$RETRIEVAL_KD_DATA`.
        out: folder for run files and records of finished work; default `runs/suites/NAME`.
        only: names of the collections to evaluate; default all.
        depth: documents per query; default the suite's, or more if a measure looks deeper.
        baseline: system to test the others against; default: test all pairs.
        download: let `ir_datasets` download missing collections.
        progress: called with a line of text about each step.
    """
    name = suite.name if isinstance(suite, Suite) else Path(suite).stem
    chosen = suite if isinstance(suite, Suite) else load_suite(suite)
    wanted = parse_measures(measures) if measures else chosen.measures
    deepest = max((k for k in map(cutoff, wanted) if k), default=1)
    if depth is not None and depth < deepest:
        progress(
            f"only {depth} documents per query are retrieved, but a measure looks at {deepest}"
        )
    options = Options(
        systems=system_names(with_),
        measures=wanted,
        depth=depth or max(chosen.depth, deepest),
        max_length=max_length,
        baseline=named_baseline(baseline, with_),
        method=method,
        exclude_self=exclude_self,
        condensed=condensed,
    )
    keys = {s: system_key(with_name) for s, with_name in options.systems.items()}
    members = choose_members(chosen, data, only)
    result = SuiteResult(chosen, members, options)
    folder = Path(out) if out is not None else Path("runs") / "suites" / name
    for number, (collection, member) in enumerate(members.items(), start=1):
        place = f"[{number}/{len(members)}] {collection}"
        try:
            located = locate(collection, member, data, download=download)
            progress(f"{place}, {located.split}")
            result.collections[collection] = _evaluate(
                located, member, options, keys, folder / collection, progress
            )
        except InputError as error:  # do not stop the other collections
            result.missing[collection] = str(error)
            progress(f"{place} left out: {error}")
    if not result.collections:
        example = next(iter(result.missing.values()))
        raise InputError(f"no collection of this suite could be evaluated; {example}")
    return result


def _evaluate(
    located: Located,
    member: Member,
    options: Options,
    keys: Mapping[str, str],
    folder: Path,
    progress: Progress,
) -> Evaluated:
    """Rank and time what is not done yet, and evaluate all systems on one collection."""
    collection, work = located.open(), Workspace(folder)
    texts = collection.query_texts(located.split)
    _add_stages(work, collection, texts, member, options, keys)
    work.execute(
        lambda stage, done, number: progress(f"    {stage.name}{' is done already' * done}")
    )
    files = {system: work.path(run_file(system)) for system in options.systems}
    evaluation = evaluate(
        collection.qrels(located.split),
        {system: Run(system, read_run(path).results) for system, path in files.items()},
        options.measures,
        exclude_self=options.exclude_self,
        condensed=options.condensed,
    )
    timed = work.record("latency")["facts"]
    costs = {
        system: work.record(f"run:{system}")["facts"] | timed.get(with_name, {})
        for system, with_name in options.systems.items()
    }
    inputs = {
        "judgments": {
            "collection": located.spec,
            "name": located.name,
            "split": located.split,
            "splits": list(located.splits),
            "qrels_digest": collection.qrels_digest(located.split),
            "texts_digest": collection.digest(),
        },
        "runs": {
            system: {
                "path": str(path),
                "digest": digest_file(path),
                "system_digest": keys[system],
            }
            for system, path in files.items()
        },
    }
    comparisons = compare(evaluation, options.baseline, method=options.method)
    documents = len(collection.documents)
    return Evaluated(located, documents, evaluation, comparisons, costs, inputs)


def _add_stages(
    work: Workspace,
    collection: Collection,
    texts: dict[str, str],
    member: Member,
    options: Options,
    keys: Mapping[str, str],
) -> None:
    """Add a stage that ranks for each system, and one that times all of them."""
    settings: dict[str, Any] = {"language": member.language, "max_length": options.max_length}
    ranked = settings | {"exclude_self": options.exclude_self}

    def rank(system: str) -> dict[str, Any]:
        with_name = options.systems[system]
        costs = prepare(with_name, collection, **settings)
        run = retrieve(collection, texts, with_name, options.depth, **ranked)
        write_run(Run(system, run.results), work.path(run_file(system)))
        return costs

    shared = ranked | {
        "texts": collection.digest(),
        "queries": digest_json(sorted(texts)),
        "depth": options.depth,
    }
    for system in options.systems:
        key = {**shared, "system": keys[system]}
        work.add(Stage(f"run:{system}", partial(rank, system), (run_file(system),), key))
    needs = tuple(stage.name for stage in work.stages)
    time_all = partial(
        measure_latency,
        list(options.systems.values()),
        collection,
        list(texts.values()),
        depth=options.depth,
        **settings,
    )
    work.add(Stage("latency", time_all, (), list(options.systems), needs))
