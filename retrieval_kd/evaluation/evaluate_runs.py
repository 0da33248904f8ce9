"""`rkd evaluate`: evaluate run files and systems on one collection; print and write the results."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from retrieval_kd.data.qrels import Qrels, read_qrels
from retrieval_kd.data.runs import Run, read_run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.report.grid import print_grid
from retrieval_kd.evaluation.report.table import to_grid
from retrieval_kd.evaluation.result_file import Outputs, collection_record, seal
from retrieval_kd.files import digest_file, digest_json
from retrieval_kd.metrics.evaluation import Evaluation, system_of
from retrieval_kd.metrics.measures import DEFAULT_MEASURES, evaluate
from retrieval_kd.metrics.names import cutoff, parse_measures
from retrieval_kd.metrics.significance import Comparison, Method, compare
from retrieval_kd.progress import Screen

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection

SUFFIXES = {".gz", ".trec", ".txt", ".run", ".tsv"}
DEPTH = 100  # documents that a system retrieves, or more if a measure looks deeper


def evaluate_files(
    run_paths: Sequence[str | Path],
    *,
    with_: Sequence[str] = (),
    collection: str | None = None,
    split: str | None = None,
    qrels_path: str | Path | None = None,
    measures: str | Iterable[str] = DEFAULT_MEASURES,
    baseline: str | None = None,
    method: Method = "t",
    exclude_self: bool = True,
    condensed: bool = False,
    outputs: Outputs | None = None,
    console: Console | None = None,
) -> tuple[Evaluation, list[Comparison]]:
    """Evaluate run files and systems, print the table and write `outputs`.

    A run is named after its file. Files named `NAME#seed1.trec`, `NAME#seed2.trec` are seeds of one
    system and are averaged per query before the tests. Without `baseline`, all pairs are compared.

    Args:
        with_: systems to run on the collection, as `retrieve` names them.
        split: split of the collection; default test.
    """
    outputs, console = outputs or Outputs(), console or Screen()
    measures = parse_measures(measures)
    paths, systems = _sources(run_paths, with_)
    # after seeds are averaged, a system has the name without its seed
    made_of = {system_of(name): system_of(name) for name in paths}
    made_of |= {system_of(name): with_name for name, with_name in systems.items()}
    outputs.check_card(made_of)
    qrels, source, opened = _judgments(collection, split, qrels_path)
    runs = {name: Run(name, read_run(path).results) for name, path in paths.items()}
    inputs: dict[str, dict[str, Any]] = {
        name: {"path": str(path), "digest": digest_file(path)} for name, path in paths.items()
    }
    if systems:
        if opened is None:
            raise InputError("--with needs texts to search", remedy="name a --collection")
        depth = max([DEPTH, *(k for k in map(cutoff, measures) if k)])
        from retrieval_kd.retrieval.retrieve import retrieve

        queries = opened.query_texts(source["split"])
        retrieved = {
            name: Run(name, retrieve(opened, queries, w, depth, exclude_self=exclude_self).results)
            for name, w in systems.items()
        }
        runs |= retrieved
        inputs |= {
            name: {"with": systems[name], "depth": depth, "digest": digest_json(run.results)}
            for name, run in retrieved.items()
        }
    evaluation = evaluate(
        qrels, runs, measures, exclude_self=exclude_self, condensed=condensed
    ).group()
    names = {str(path): name for name, path in paths.items()}
    names |= {system: name for name, system in systems.items()}
    comparisons = compare(evaluation, names.get(baseline or "", baseline), method=method)
    grid = to_grid(evaluation, comparisons)
    print_grid(grid, console)
    for comparison in comparisons:
        if comparison.measure == evaluation.measures[0]:
            line = f"{comparison.a} − {comparison.b}: {comparison.power_sentence()}"
            console.print(line, markup=False, highlight=False, emoji=False)

    def record() -> dict[str, Any]:
        origin = {"judgments": source, "runs": inputs}
        return seal(collection_record(evaluation, comparisons, origin))

    # a file of judgments does not say which split it holds
    name = f"{source['name']}, {source['split']}" if "name" in source else Path(source["path"]).name
    outputs.write(
        record,
        [grid],
        page=lambda: _page(evaluation, comparisons, source),
        evaluations={name: evaluation},
        systems=made_of,
    )
    return evaluation, comparisons


def _page(evaluation: Evaluation, comparisons: list[Comparison], source: dict[str, Any]) -> str:
    from retrieval_kd.evaluation.report.data import ReportData, SystemRow
    from retrieval_kd.evaluation.report.page import render
    from retrieval_kd.hardware import versions

    return render(
        ReportData(
            title=f"Evaluation on {source.get('name') or Path(source['path']).name}",
            subtitle=f"{len(evaluation.queries):,} queries",
            collection={**source, "queries": len(evaluation.queries)},
            values=evaluation.to_json(),
            systems=[SystemRow(system) for system in evaluation.systems],
            comparisons=comparisons,
            versions=versions(),
            commands=[shlex.join(["rkd", *sys.argv[1:]])],
            notes=evaluation.warnings,
            rules=evaluation.rules,
            measure=evaluation.measures[0],
        )
    )


def _sources(
    run_paths: Sequence[str | Path], with_: Sequence[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return name → run file, and name → system to run."""
    if not with_:
        return run_names(run_paths), {}
    from retrieval_kd.evaluation.systems import system_names

    systems = system_names(with_)
    paths = run_names(run_paths) if run_paths else {}
    both = next((name for name in paths if name in systems), None)
    if both is not None:
        problem = f"a run file and a system are both named {both}"
        raise InputError(problem, file=paths[both], remedy="rename the file")
    return paths, systems


def run_names(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Name each run file by its stem; where two stems are equal, with the folder before it.

    Example:
        >>> list(run_names(["a/bm25.trec", "b/bm25.trec.gz", "b/dense.run"]))
        ['a/bm25', 'b/bm25', 'dense']
    """
    files = [Path(path) for path in paths]
    if not files:
        raise InputError("no run to evaluate", remedy="name run files with --run")
    twice = [p for p, n in Counter(p.resolve() for p in files).items() if n > 1]
    if twice:
        raise InputError("this run is given twice", file=twice[0], remedy="name it once")
    places = Counter((path.resolve().parent, _stem(path)) for path in files)
    # within one folder the suffix tells files apart, else as much of the path as it takes
    short = [p.name if places[p.resolve().parent, _stem(p)] > 1 else _stem(p) for p in files]
    names, depth = list(short), 0
    while len(set(names)) < len(names):
        depth += 1
        alike = {name for name, n in Counter(names).items() if n > 1}
        for i, path in enumerate(files):
            if names[i] in alike:
                names[i] = "/".join([*path.resolve().parent.parts[-depth:], short[i]])
    return dict(zip(names, files, strict=True))


def _stem(path: Path) -> str:
    name = path.name
    while Path(name).suffix.lower() in SUFFIXES and Path(name).stem:
        name = Path(name).stem
    return name


def _judgments(
    collection: str | None, split: str | None, qrels_path: str | Path | None
) -> tuple[Qrels, dict[str, Any], Collection | None]:
    """Read the judgments, describe their source, and return the collection if they have one."""
    from retrieval_kd.data.collection import open_collection

    if (collection is None) == (qrels_path is None):
        raise InputError(
            "judgments come from a collection or from a file",
            remedy="give exactly one of --collection and --qrels",
        )
    if qrels_path is not None:
        if split is not None:
            raise InputError(
                f"--split {split}: a file of judgments has no splits",
                remedy="leave --split out, or name the collection with --collection in place of "
                "--qrels",
            )
        qrels = read_qrels(qrels_path)
        path = {"path": str(qrels_path), "digest": digest_file(qrels_path)}
        return qrels, {**path, "qrels_digest": digest_json(qrels)}, None
    assert collection is not None
    split = split or "test"
    opened = open_collection(collection)
    qrels = opened.qrels(split)
    digests = {"qrels_digest": opened.qrels_digest(split), "texts_digest": opened.digest()}
    source = {"collection": collection, "name": opened.name, "split": split, **digests}
    return qrels, source, opened
