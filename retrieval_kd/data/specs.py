"""Finds the reader for a collection's spec (what the user types) without reading the source."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from retrieval_kd.data.beir import beir_reader
from retrieval_kd.data.irds import irds_reader
from retrieval_kd.data.msmarco import msmarco_reader
from retrieval_kd.data.python_api import python_api_reader
from retrieval_kd.data.rows import Reader
from retrieval_kd.data.sources import Source
from retrieval_kd.data.trec import trec_reader
from retrieval_kd.errors import InputError

MAY_BE = (
    "name a BEIR folder or zip, a folder of TREC or MS MARCO files, an ir_datasets ID "
    "(irds:ID), python-api, python-api:FOLDER, or a collection in $RETRIEVAL_KD_DATA"
)
HOLDS = (
    "a BEIR folder holds corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv; an MS MARCO folder "
    "collection.tsv, queries.SPLIT.tsv, qrels.SPLIT.tsv; a TREC folder files with "
    "documents, topics and qrels in their names"
)


def find_reader(spec: str) -> Reader:
    """Return the reader for a spec. Raises `InputError` with everything that was tried."""
    kind, _, rest = spec.partition(":")
    if kind == "python-api":
        reader = python_api_reader(rest or None)
    else:
        reader = _find_irds(rest) if kind == "irds" else _find(spec)
    name = re.sub(r"[^\w.-]+", "-", reader.name).strip("-.") or "collection"
    return replace(reader, name=name)


def data_folder() -> Path:
    """The folder for bare names such as `scifact`: `$RETRIEVAL_KD_DATA`."""
    return Path(os.environ.get("RETRIEVAL_KD_DATA") or "../shared/data").expanduser()


def _find_irds(id: str) -> Reader:
    reader = irds_reader(id)
    if reader is None:
        remedy = "see ir-datasets.com for the IDs; there are no shorthands"
        raise InputError("ir_datasets does not know this ID", id=id, remedy=remedy)
    return reader


def _find(spec: str) -> Reader:
    tried = [Path(spec).expanduser()]
    if re.fullmatch(r"[\w.-]+", spec):
        tried += [data_folder() / f"{spec}.zip", data_folder() / spec]
    for path in tried if spec else []:
        if path.exists():
            return _read_files(path)
    reader = irds_reader(spec) if re.fullmatch(r"[\w./-]+", spec) else None
    if reader is None:
        places = ", ".join([*map(str, tried), f"ir_datasets ID {spec}"])
        raise InputError(f"unknown collection {spec!r}; tried {places}", remedy=MAY_BE)
    return reader


def _read_files(path: Path) -> Reader:
    if path.is_file() and path.suffix != ".zip" and not zipfile.is_zipfile(path):
        raise InputError("a file that is not a zip", file=path, remedy=MAY_BE)
    source = Source(path)
    for make in (beir_reader, msmarco_reader, partial(beir_reader, deep=True), trec_reader):
        reader = make(source)
        if reader is not None:
            return reader
    raise InputError("no collection in here", file=path, remedy=HOLDS)
