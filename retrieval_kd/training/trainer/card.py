"""What a model's `README.md` says of its training, above Sentence Transformers' own text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.files import write_text

SILENT = ("name", "weight")  # of a term: said first
USUAL = {"candidates": "slate", "student": "score", "teacher": "stored", "joint": False}
SETTINGS = {
    "steps": "steps",
    "batch_queries": "queries in a batch",
    "slate_size": "documents of a query's slate",
    "max_tokens": "tokens of a text",
    "learning_rate": "learning rate",
    "seed": "seed",
}


def describe_training(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """Put the training into the card that the model was saved with, if it was saved with one.

    Args:
        name: of the model, for the title.
        record: what `training.json` holds.
    """
    path = folder / "README.md"
    if not path.is_file():
        return
    card = path.read_text("utf-8")
    title = re.search(r"^# .*\n+", card, flags=re.M)
    if title:
        section = f"# {name}\n\n{training_section(record)}\n"
        write_text(path, card[: title.start()] + section + card[title.end() :])


def describe_stages(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Put all stages of a student's training where its card tells of the last one."""
    path = folder / "README.md"
    if not path.is_file() or len(records) < 2:
        return
    told = [training_section(record, f"### Stage {n}") for n, record in enumerate(records, 1)]
    head = f"## Training\n\nIn {len(records)} stages, each going on from the student before.\n"
    last = training_section(records[-1])
    write_text(path, path.read_text("utf-8").replace(last, "\n".join([head, *told])))


def training_section(record: Mapping[str, Any], heading: str = "## Training") -> str:
    """What was minimised, with which settings, and what came of it on dev.

    Example:
        >>> print(training_section({"terms": [{"name": "kl", "weight": 1.0, "teacher": "stored"}],
        ...     "settings": {"steps": 40, "seed": 0}, "queries": 9, "curve": []}))
        ## Training
        <BLANKLINE>
        Trained with `rkd` to minimise `1 × kl`: 40 steps, seed 0, on 9 queries.
        All settings and the learning curve are in `training.json`.
        <BLANKLINE>
    """
    objective = " + ".join(map(_term, record.get("terms", [])))
    aim = f" to minimise `{objective}`" if objective else ""
    told = [_setting(key, record["settings"]) for key in SETTINGS if key in record["settings"]]
    dev = [{k: v for k, v in point.items() if k.startswith("dev_")} for point in record["curve"]]
    measured = [point for point in dev if point]
    learnt = ""
    if len(measured) > 1:
        changes = [
            f"{key.removeprefix('dev_')} of re-ranking {measured[0][key]:.4f} before, "
            f"{measured[-1][key]:.4f} after"
            for key in measured[-1]
        ]
        learnt = f" On dev queries: {'; '.join(changes)}."
    return (
        f"{heading}\n\nTrained with `rkd`{aim}: {', '.join(told)}, on {record['queries']:,} "
        f"queries.{learnt}\nAll settings and the learning curve are in `training.json`.\n"
    )


def _term(term: Mapping[str, Any]) -> str:
    """A term as the command line takes it, with what is not as usual."""
    own = {
        key: value
        for key, value in term.items()
        if key not in SILENT and value not in (USUAL.get(key), [], ())
    }
    told = ", ".join(f"{key}={value}" for key, value in own.items())
    return f"{term['weight']:g} × {term['name']}" + (f"({told})" if told else "")


def _setting(key: str, settings: Mapping[str, Any]) -> str:
    value, word = settings[key], SETTINGS[key]
    return f"{word} {value}" if key in ("learning_rate", "seed") else f"{value} {word}"
