"""What the tests of hybrid indexes share: a collection with enough judged queries, its indexes."""

from __future__ import annotations

import shutil
from pathlib import Path

from retrieval_kd.data.collection import open_collection
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.spec import spec_for
from retrieval_kd.students.make import make_student

KINDS = ("dense", "sparse", "multi_vector")


def write_judged(source: Path, folder: Path) -> Path:
    """The tiny collection with the judgments of train and dev as one split, `both`: 27 queries."""
    shutil.copytree(source, folder)
    header, *train = (folder / "qrels" / "train.tsv").read_text().splitlines()
    dev = (folder / "qrels" / "dev.tsv").read_text().splitlines()[1:]
    (folder / "qrels" / "both.tsv").write_text("\n".join([header, *train, *dev]) + "\n")
    return folder


def write_indexes(collection: Path, encoder: Path, top: Path) -> dict[str, Path]:
    """Index folders by the kind of their model."""
    folders = {}
    for kind in KINDS:
        model = encoder
        if kind != "dense":
            model = top / f"{kind}-model"
            make_student(str(encoder), kind, [0, 3]).save(str(model))
        folders[kind] = top / kind
        build_index(open_collection(collection), str(model), spec_for(kind), folders[kind])
    return folders
