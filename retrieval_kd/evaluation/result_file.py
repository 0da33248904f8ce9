"""The files that evaluations write, and result files read again: content, and digest that seals it.

`rkd evaluate` writes the record of one collection, `rkd suite` a file with several such records,
and `rkd run` its `results.json`, whose values per query are in the `report.json` beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.report.grid import Grid, to_latex, to_markdown
from retrieval_kd.files import DamagedFile, digest_json, read_json, write_json, write_text
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.significance import Comparison

FORMAT = 1
KINDS = "name a JSON file written by `rkd evaluate --json`, or the results.json of an `rkd run`"
AGAIN = "write it again with `rkd evaluate --json`, not by hand"


@dataclass(frozen=True)
class Measured:
    """One collection's part of a result file: values, and digests of the inputs."""

    evaluation: Evaluation
    judgments: str | None = None  # digest; None if the file does not give it
    texts: str | None = None  # digest of documents and queries
    runs: dict[str, str] = field(default_factory=dict)  # system → digest of its run
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultFile:
    """A result file: its collections by name (`""` if unnamed), and whether it is intact."""

    path: Path
    collections: dict[str, Measured]
    digest: str | None = None
    intact: bool = True  # False: changed after it was written


def collection_record(
    evaluation: Evaluation, comparisons: Sequence[Comparison], inputs: dict[str, Any]
) -> dict[str, Any]:
    """Build the record of one collection: values, tests and inputs.

    `made_from` is a digest of judgments, runs, measures and rules: two records with the same
    `made_from` have the same values.
    """
    origin = [_digests(inputs), evaluation.measures, evaluation.rules, sorted(evaluation.systems)]
    return {
        **evaluation.to_json(),
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "inputs": inputs,
        "made_from": digest_json(origin),
    }


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add format, versions and a digest of the whole record, so that later changes are noticed.

    Example:
        >>> record = seal({"measures": ["ndcg@10"]})
        >>> is_intact(record), is_intact({**record, "measures": ["map"]})
        (True, False)
    """
    from retrieval_kd.hardware import versions  # imports torch, so only when a file is written

    whole = {"format": FORMAT, **record, "versions": versions()}
    whole = json.loads(json.dumps(whole))  # as it will be read back
    return whole | {"digest": digest_json(whole)}


def is_intact(record: Mapping[str, Any]) -> bool:
    """Whether a record is unchanged since `seal`; a record without a digest passes."""
    rest = {key: value for key, value in record.items() if key != "digest"}
    return record.get("digest") in (None, digest_json(rest))


def read_result(path: str | Path) -> ResultFile:
    """Read a result file of any kind.

    Raises:
        InputError: the file is not a result file, or has no values per query.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "results.json"
    if not path.is_file():
        raise InputError("no such file", file=path, remedy=KINDS)
    try:
        record = read_json(path)
        collections = _collections(record, path)
        for measured in collections.values():
            _check(measured.evaluation, path)
    except DamagedFile as error:
        raise InputError(error.problem, file=error.file, remedy=KINDS) from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"not a result file ({type(error).__name__}: {error})"
        raise InputError(problem, file=path, remedy=KINDS) from error
    return ResultFile(path, collections, record.get("digest"), is_intact(record))


def _check(evaluation: Evaluation, path: Path) -> None:
    """Check that every system has one number per measure and query: people edit files by hand."""
    if not evaluation.per_query:
        raise InputError("no system in this file", file=path, remedy=KINDS)
    first = next(iter(evaluation.per_query))
    queries = evaluation.per_query[first][evaluation.measures[0]].keys()
    for system, by_measure in evaluation.per_query.items():
        for measure in evaluation.measures:
            values = by_measure.get(measure, {})
            if values.keys() != queries:
                problem = f"{measure} of {system} is for other queries than {first}'s"
                raise InputError(problem, file=path, remedy=AGAIN)
            for query, value in values.items():
                if type(value) not in (int, float) or not math.isfinite(value):
                    problem = f"{measure} of {system} is {value!r} where a number belongs"
                    raise InputError(problem, file=path, id=query, remedy=AGAIN)


def _collections(record: dict[str, Any], path: Path) -> dict[str, Measured]:
    if "suite" in record:
        return {name: _measured(part) for name, part in record["collections"].items()}
    systems = record["systems"]
    if all("per_query" in system for system in systems.values()):
        return {record.get("inputs", {}).get("judgments", {}).get("name", ""): _measured(record)}
    return {record["collection"]["name"]: _of_run(record, path)}


def _measured(record: dict[str, Any]) -> Measured:
    inputs = record.get("inputs", {})
    judgments = inputs.get("judgments", {})
    return Measured(
        evaluation=Evaluation.from_json(record),
        judgments=judgments.get("qrels_digest"),
        texts=judgments.get("texts_digest"),
        runs={name: run["digest"] for name, run in inputs.get("runs", {}).items()},
        costs=record.get("costs", {}),
    )


def _of_run(record: dict[str, Any], path: Path) -> Measured:
    """Read results of `rkd run`, whose values per query are in the report.json beside them."""
    beside = path.with_name("report.json")
    report = read_json(beside) if beside.is_file() else {}
    if "values" not in report:
        problem = "results of `rkd run` need the report.json that this version writes beside them"
        raise InputError(problem, file=path, remedy="keep both in one folder, or run it again")
    evaluation = Evaluation.from_json(report["values"])
    if set(evaluation.systems) != set(record["systems"]):
        raise InputError(
            "the report.json beside it belongs to a different run",
            file=path,
            remedy="put this run's report.json beside it",
        )
    costs = record.get("costs", {})
    return Measured(evaluation, texts=record["collection"].get("digest"), costs=costs)


def _digests(inputs: Any) -> Any:
    """Keep only digests of the inputs: paths and names do not matter."""
    if isinstance(inputs, dict):
        kept = {k: v for k, v in inputs.items() if isinstance(v, dict) or k.endswith("digest")}
        return {key: _digests(value) for key, value in kept.items()}
    return inputs


@dataclass(frozen=True)
class Outputs:
    """Paths to write to; a file whose path is None is not written."""

    json: str | Path | None = None
    report: str | Path | None = None
    latex: str | Path | None = None
    markdown: str | Path | None = None
    card: str | Path | None = None  # a student's folder
    card_system: str | None = None  # which system the student is, if several could be

    def write(
        self,
        record: Callable[[], dict[str, Any]],
        grids: Sequence[Grid],
        page: Callable[[], str] = str,
        evaluations: Mapping[str, Evaluation] | None = None,
        systems: Mapping[str, str] | None = None,
    ) -> None:
        """Write each file in one step, so that none is ever half written.

        Args:
            record: makes the result file; it is called only if that is needed, since it digests all
                values and imports torch for its versions.
            page: renders the HTML report.
            evaluations: collection → its evaluation, for the model card.
            systems: as `student` takes them.
        """
        student = self.student(systems or {}) if self.card is not None else ""
        sealed = cache(record)
        if self.json is not None:
            write_json(self.json, sealed())
        if self.markdown is not None:
            write_text(self.markdown, "\n\n".join(map(to_markdown, grids)) + "\n")
        if self.latex is not None:
            write_text(self.latex, "\n\n".join(map(to_latex, grids)) + "\n")
        if self.report is not None:
            write_text(self.report, page())
        if self.card is not None:
            from retrieval_kd.evaluation.report.model_card import update_model_card

            update_model_card(self.card, evaluations or {}, student, digest=sealed()["digest"])

    def student(self, systems: Mapping[str, str]) -> str:
        """Return the system whose model is in the folder `card`.

        It is `card_system` if that is set, else the system made from this folder, else the only
        system.
        """
        if self.card_system is not None:
            if self.card_system not in systems:
                remedy = f"name one of {', '.join(systems)}"
                raise InputError(f"unknown system {self.card_system!r}", remedy=remedy)
            return self.card_system
        folder = Path(str(self.card)).resolve()
        same = [name for name, source in systems.items() if Path(source).resolve() == folder]
        if len(same or systems) == 1:
            return next(iter(same or systems))
        raise InputError(
            f"which of {', '.join(systems)} is the model in {folder.name}?",
            remedy="name it with --card-system",
        )

    def check_card(self, systems: Mapping[str, str]) -> None:
        """Raise InputError before anything is measured if the model card could not be written."""
        if self.card is not None:
            from retrieval_kd.evaluation.report.model_card import open_card

            self.student(systems)
            open_card(self.card)
