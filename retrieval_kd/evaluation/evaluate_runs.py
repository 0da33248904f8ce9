"""`rkd evaluate`: from files of runs and judgments to a table, tests and a result file."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.outputs import Outputs, check_card, system_of_card
from retrieval_kd.evaluation.report.table import print_table, to_latex, to_markdown
from retrieval_kd.evaluation.result_file import collection_record, seal
from retrieval_kd.files import digest_file, digest_json, write_json, write_text
from retrieval_kd.metrics.evaluation import Evaluation, system_of
from retrieval_kd.metrics.measures import DEFAULT_MEASURES, evaluate
from retrieval_kd.metrics.significance import Comparison, Method, compare

if TYPE_CHECKING:
    from retrieval_kd.data.qrels import Qrels
    from retrieval_kd.data.runs import Run

SUFFIXES = {".gz", ".trec", ".txt", ".run", ".tsv"}


def evaluate_files(
    run_paths: Sequence[str | Path],
    *,
    collection: str | None = None,
    split: str | None = None,
    qrels_path: str | Path | None = None,
    measures: str | Iterable[str] = DEFAULT_MEASURES,
    baseline: str | None = None,
    method: Method = "t",
    exclude_self: bool = True,
    condensed: bool = False,
    outputs: Outputs | None = None,
    json_out: str | Path | None = None,
    console: Console | None = None,
) -> tuple[Evaluation, list[Comparison]]:
    """Evaluate run files against a collection's split or a file of judgments, and print the table.

    A run is named after its file. Files named `NAME#seed1.trec`, `NAME#seed2.trec` are seeds of one
    system: they are averaged per query before tests. Without `baseline`, all pairs are compared.

    Args:
        split: of the collection; default test.
    """
    outputs = outputs or Outputs(json=json_out)
    paths = run_names(run_paths)
    check_card(outputs, {name: name for name in map(system_of, paths)})
    qrels, source = _judgments(collection, split, qrels_path)
    runs = {name: _read(name, path) for name, path in paths.items()}
    evaluation = evaluate(
        qrels, runs, measures, exclude_self=exclude_self, condensed=condensed
    ).group()
    comparisons = compare(evaluation, _baseline(baseline, paths), method=method)
    print_table(evaluation, comparisons, console=console)
    for comparison in comparisons:
        if comparison.measure == evaluation.measures[0]:
            line = f"{comparison.a} − {comparison.b}: {comparison.power_sentence()}"
            (console or Console()).print(line, markup=False, highlight=False, emoji=False)
    files = {name: {"path": str(path), "digest": digest_file(path)} for name, path in paths.items()}
    inputs = {"judgments": source, "runs": files}
    record = seal(collection_record(evaluation, comparisons, inputs))
    if outputs.json is not None:
        write_json(outputs.json, record)
    if outputs.markdown is not None:
        write_text(outputs.markdown, to_markdown(evaluation, comparisons) + "\n")
    if outputs.latex is not None:
        write_text(outputs.latex, to_latex(evaluation, comparisons) + "\n")
    if outputs.report is not None:
        _report(outputs.report, evaluation, comparisons, source, record["versions"])
    if outputs.card is not None:
        from retrieval_kd.evaluation.report.model_card import update_model_card

        of_file = Path(str(qrels_path)).name  # of which split it is, nobody said
        name = f"{source['name']}, {source['split']}" if "name" in source else of_file
        system = system_of_card(outputs, {s: s for s in evaluation.systems})
        update_model_card(outputs.card, {name: evaluation}, system, digest=record["digest"])
    return evaluation, comparisons


def _report(
    path: str | Path,
    evaluation: Evaluation,
    comparisons: Sequence[Comparison],
    source: dict[str, Any],
    versions: dict[str, str],
) -> None:
    from retrieval_kd.evaluation.report.data import ReportData, SystemRow
    from retrieval_kd.evaluation.report.page import write_report

    data = ReportData(
        title=f"Evaluation on {source.get('name') or Path(source['path']).name}",
        subtitle=f"{len(evaluation.queries):,} queries",
        collection={**source, "queries": len(evaluation.queries)},
        systems=[SystemRow.of(evaluation, system) for system in evaluation.systems],
        comparisons=list(comparisons),
        versions=versions,
        commands=[shlex.join(["rkd", *sys.argv[1:]])],
        notes=[*evaluation.warnings],
        rules=evaluation.rules,
        measure=evaluation.measures[0],
    )
    write_report(data, path)


def run_names(paths: Sequence[str | Path]) -> dict[str, Path]:
    """A name for each run file: its stem; where two are alike, with the folder before it.

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
    # in one folder only the suffix differs; else as much of the path as makes names differ
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


def _read(name: str, path: Path) -> Run:
    from retrieval_kd.data.runs import Run, read_run

    return Run(name, read_run(path).results)


def _baseline(baseline: str | None, paths: dict[str, Path]) -> str | None:
    """The baseline's name, also where it was given as the path of its run."""
    by_path = {str(path): name for name, path in paths.items()}
    return by_path.get(baseline, baseline) if baseline is not None else None


def _judgments(
    collection: str | None, split: str | None, qrels_path: str | Path | None
) -> tuple[Qrels, dict[str, Any]]:
    """Judgments, and where they came from."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.data.qrels import read_qrels

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
        return qrels, {**path, "qrels_digest": digest_json(qrels)}
    assert collection is not None
    split = split or "test"
    opened = open_collection(collection)
    qrels = opened.qrels(split)
    digests = {"qrels_digest": opened.qrels_digest(split), "texts_digest": opened.digest()}
    return qrels, {"collection": collection, "name": opened.name, "split": split, **digests}
