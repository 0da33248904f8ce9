"""Evaluation results in a student's model card, both in its metadata (`model-index`) and its text.

The card is the folder's `README.md`, which Sentence Transformers writes when it saves a model.
Results and one section are added to it, and replaced when they are measured again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.report.grid import Cell, Grid, to_markdown
from retrieval_kd.files import write_text
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.names import readable

BEGIN, END = "<!-- rkd evaluation: begin -->", "<!-- rkd evaluation: end -->"
TASK = ("information-retrieval", "Information Retrieval")  # as Sentence Transformers names it
TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction"]


def update_model_card(
    folder: str | Path,
    evaluations: Mapping[str, Evaluation],
    system: str,
    *,
    digest: str = "",
) -> Path:
    """Put a system's results into the `README.md` of a model folder; create the file if missing.

    Args:
        evaluations: collection (such as "scifact, test") → its evaluation; the card's results on
            other collections stay.
        system: which of the evaluated systems the model is.
        digest: of the result file, so that the origin of the numbers can be found.

    Raises:
        InputError: the folder holds no model, or its card cannot be read.
    """
    card, text = open_card(folder)
    data: Any = card.data  # its fields depend on the card
    measured = {
        _key(result): result
        for collection, evaluation in evaluations.items()
        for measure in evaluation.measures
        for result in [_result(collection, measure, round(evaluation.mean(system, measure), 6))]
    }
    # our own results are replaced in place; all others stay, even two of one measure
    kept = [measured.pop(_key(r), r) for r in data.get("eval_results") or []]
    data.model_name = data.get("model_name") or Path(folder).resolve().name
    data.eval_results = [*kept, *measured.values()]
    section = _section(evaluations, system, digest)
    card.text = f"{text}\n\n{section}\n"
    path = Path(folder) / "README.md"
    write_text(path, str(card))
    return path


def open_card(folder: str | Path) -> tuple[ModelCard, str]:
    """Read a model folder's card, and return it and its text without our section."""
    folder = Path(folder)
    if not (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
        problem = "no Sentence Transformers model in here, so no model card"
        raise InputError(problem, file=folder, remedy="name a student's folder")
    card = _read(folder)
    return card, _without_section(card.text, folder / "README.md").rstrip()


def _read(folder: Path) -> ModelCard:
    path = folder / "README.md"
    if not path.is_file():
        name = folder.resolve().name
        data = ModelCardData(
            library_name="sentence-transformers",
            pipeline_tag="sentence-similarity",
            tags=TAGS,
            model_name=name,
        )
        head = f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n"
        return ModelCard(f"{head}A [Sentence Transformers](https://sbert.net) model.\n")
    try:
        return ModelCard(path.read_text(encoding="utf-8"))
    except Exception as error:  # YAML errors, and several of huggingface_hub's own
        problem = f"the model card's head cannot be read: {' '.join(str(error).split())}"
        raise InputError(problem, file=path, remedy="mend or delete README.md") from error


def _result(collection: str, measure: str, value: float) -> EvalResult:
    return EvalResult(
        task_type=TASK[0],
        task_name=TASK[1],
        dataset_type=re.sub(r"\W+", "-", collection).strip("-") or "unknown",
        dataset_name=collection,
        metric_type=measure,
        metric_name=readable(measure),
        metric_value=value,
    )


def _key(result: EvalResult) -> tuple[str | None, ...]:
    """Results with the same key are the same measurement; ours have no split or configuration."""
    dataset = result.dataset_name, result.dataset_split, result.dataset_config
    return (result.task_type, result.metric_type, *dataset, result.dataset_revision)


def _section(evaluations: Mapping[str, Evaluation], system: str, digest: str) -> str:
    first = next(iter(evaluations.values()))
    others = [other for other in first.systems if other != system]
    rows = [
        [
            Cell(collection),
            Cell(readable(measure)),
            *(Cell(f"{evaluation.mean(s, measure):.4f}") for s in (system, *others)),
        ]
        for collection, evaluation in evaluations.items()
        for measure in evaluation.measures
    ]
    grid = Grid(["Collection", "Measure", "This model", *others], rows, left=2)
    rules = "\n".join(f"- {rule}" for rule in first.rules)
    queries = ", ".join(f"{name} {len(e.queries):,}" for name, e in evaluations.items())
    origin = f" Result file: digest `{digest}`." if digest else ""
    return (
        f"{BEGIN}\n## Retrieval results\n\nMeasured with `rkd evaluate`. Queries: {queries}."
        f"{origin}\n\n{to_markdown(grid)}\n\nRules:\n\n{rules}\n{END}"
    )


def _without_section(text: str, path: Path) -> str:
    """Remove the section, unless a mark without its partner makes its extent unclear."""
    marks = re.findall(f"{re.escape(BEGIN)}|{re.escape(END)}", text)
    if marks != [BEGIN, END] * (len(marks) // 2):
        raise InputError(
            f"the section's marks {BEGIN} and {END} are not in pairs, so its extent is unknown",
            file=path,
            remedy="delete the old section and its marks",
        )
    return re.sub(re.escape(BEGIN) + r".*?" + re.escape(END), "", text, flags=re.DOTALL)
