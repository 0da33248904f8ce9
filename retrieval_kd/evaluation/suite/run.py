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
    collection = located.open()
    work = Workspace(folder)
    texts = collection.query_texts(located.split)
    shared = {
        "texts": collection.digest(),
        "queries": digest_json(sorted(texts)),
        "depth": options.depth,
        "max_length": options.max_length,
        "exclude_self": options.exclude_self,
        "language": member.language,
    }

    def rank(system: str) -> dict[str, Any]:
        with_name = options.systems[system]
        costs = prepare(
            with_name, collection, language=member.language, max_length=options.max_length
        )
        run = retrieve(
            collection,
            texts,
            with_name,
            options.depth,
            language=member.language,
            max_length=options.max_length,
            exclude_self=options.exclude_self,
        )
        write_run(Run(system, run.results), work.path(run_file(system)))
        return costs

    def time_all() -> dict[str, Any]:
        return measure_latency(
            list(options.systems.values()),
            collection,
            list(texts.values()),
            depth=options.depth,
            language=member.language,
            max_length=options.max_length,
        )

    for system in options.systems:
        settings = {**shared, "system": keys[system]}
        work.add(Stage(f"run:{system}", partial(rank, system), (run_file(system),), settings))
    needs = tuple(stage.name for stage in work.stages)
    work.add(Stage("latency", time_all, (), list(options.systems), needs))
    work.execute(
        lambda stage, done, number: progress(f"    {stage.name}{' is done already' * done}")
    )
    runs = {s: Run(s, read_run(work.path(run_file(s))).results) for s in options.systems}
    evaluation = evaluate(
        collection.qrels(located.split),
        runs,
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
                "path": str(work.path(run_file(system))),
                "digest": digest_file(work.path(run_file(system))),
                "system_digest": keys[system],
            }
            for system in options.systems
        },
    }
    comparisons = compare(evaluation, options.baseline, method=options.method)
    documents = len(collection.documents)
    return Evaluated(located, documents, evaluation, comparisons, costs, inputs)
