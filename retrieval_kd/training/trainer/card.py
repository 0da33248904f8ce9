"""Writes about the training into a model's `README.md`, above Sentence Transformers' own text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.files import read_json, write_text

# Sentence Transformers' example, which encodes queries as if they were documents
SAMPLE = re.compile(
    r"from sentence_transformers import (\w+)\n\n# Download from the(?:(?!```).)*?"
    r"model\.encode(?:(?!```).)*",
    flags=re.S,
)
SILENT = ("name", "weight")  # settings of a term that are written first
USUAL = {"candidates": "slate", "student": "score", "teacher": "stored", "joint": False}
SETTINGS = {
    "steps": "{} steps",
    "batch_queries": "{} queries in a batch",
    "slate_size": "{} documents of a query's slate",
    "max_tokens": "{} tokens of a text",
    "learning_rate": "learning rate {}",
    "seed": "seed {}",
}


def describe_training(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """Add the training to the model card, if the model was saved with one."""
    path = folder / "README.md"
    if not path.is_file():
        return
    card = path.read_text("utf-8")
    title = re.search(r"^# .*\n+", card, flags=re.M)
    if title:
        section = f"# {name}\n\n{training_section(record)}\n"
        card = card[: title.start()] + section + card[title.end() :]
        write_text(path, SAMPLE.sub(lambda found: usage(found[1], _own_code(folder)), card))


def usage(class_name: str, own_code: bool) -> str:
    """Return the example of a card: queries and documents are encoded by functions of their own.

    Example:
        >>> print(usage("SentenceTransformer", own_code=True))
        from sentence_transformers import SentenceTransformer
        <BLANKLINE>
        # FOLDER is this folder; the code of the model is in it
        model = SentenceTransformer("FOLDER", trust_remote_code=True)
        queries = model.encode_query(["Does vitamin D help?"])
        documents = model.encode_document(["Vitamin D helps.", "It rains."])
        scores = model.similarity(queries, documents)  # (1, 2)
        <BLANKLINE>
    """
    code = "; the code of the model is in it" if own_code else ""
    trust = ", trust_remote_code=True" if own_code else ""
    return (
        f"from sentence_transformers import {class_name}\n\n"
        f"# FOLDER is this folder{code}\n"
        f'model = {class_name}("FOLDER"{trust})\n'
        'queries = model.encode_query(["Does vitamin D help?"])\n'
        'documents = model.encode_document(["Vitamin D helps.", "It rains."])\n'
        "scores = model.similarity(queries, documents)  # (1, 2)\n"
    )


def _own_code(folder: Path) -> bool:
    """Whether a module of the saved model is not one of Sentence Transformers'."""
    path = folder / "modules.json"
    modules = read_json(path, kind=list) if path.is_file() else []
    return any(not module["type"].startswith("sentence_transformers.") for module in modules)


def describe_stages(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Replace the last stage in a student's card with all stages of its training."""
    path = folder / "README.md"
    if not path.is_file() or len(records) < 2:
        return
    stages = [training_section(record, f"### Stage {n}") for n, record in enumerate(records, 1)]
    head = f"## Training\n\nIn {len(records)} stages, each starting from the student before it.\n"
    last = training_section(records[-1])
    write_text(path, path.read_text("utf-8").replace(last, "\n".join([head, *stages])))


def training_section(record: Mapping[str, Any], heading: str = "## Training") -> str:
    """Describe what was minimised, with which settings, and the result on dev.

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
    settings = [
        template.format(record["settings"][key])
        for key, template in SETTINGS.items()
        if key in record["settings"]
    ]
    dev = [{k: v for k, v in point.items() if k.startswith("dev_")} for point in record["curve"]]
    measured = [point for point in dev if point]
    dev_result = ""
    if len(measured) > 1:
        changes = [
            f"{key.removeprefix('dev_')} of re-ranking {measured[0][key]:.4f} before, "
            f"{measured[-1][key]:.4f} after"
            for key in measured[-1]
        ]
        dev_result = f" On dev queries: {'; '.join(changes)}."
    return (
        f"{heading}\n\nTrained with `rkd`{aim}: {', '.join(settings)}, on {learnt_from(record)}."
        f"{dev_result}\nAll settings and the learning curve are in `training.json`.\n"
    )


def learnt_from(record: Mapping[str, Any]) -> str:
    """Return what a training drew from.

    Example:
        >>> learnt_from({"queries": 1200}), learnt_from({"texts": 9})
        ('1,200 queries', '9 texts')
        >>> learnt_from({"queries": 9, "collections": {"squad": 5, "wikiqa": 4}})
        '9 queries of squad and wikiqa'
    """
    noun = "texts" if "texts" in record else "queries"
    *others, last = record.get("collections") or [""]
    names = " and ".join([", ".join(others), last] if others else [last])
    return f"{record[noun]:,} {noun}" + (f" of {names}" if names else "")


def _term(term: Mapping[str, Any]) -> str:
    """Write a term as on the command line, with the settings that differ from the defaults."""
    own = {
        key: value
        for key, value in term.items()
        if key not in SILENT and value not in (USUAL.get(key), [], ())
    }
    options = ", ".join(f"{key}={value}" for key, value in own.items())
    return f"{term['weight']:g} × {term['name']}" + (f"({options})" if options else "")
