"""A tiny collection with scripts in it, its indexes of each kind, and a server of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

SCRIPT = "<script>alert('sparrow')</script><img src=x onerror=alert(1)>"
WORDS = "sparrow wing feather"  # a query that the collection answers


@pytest.fixture(scope="session")
def scripted(tiny_collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny collection with a document and a title that hold scripts."""
    folder = tmp_path_factory.mktemp("scripted") / "scripted"
    shutil.copytree(tiny_collection, folder)
    with open(folder / "corpus.jsonl", "a") as corpus:
        row = {"_id": "evil-1", "title": SCRIPT, "text": f"sparrow wing {SCRIPT} \x1b[31m\u202e"}
        corpus.write(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="session")
def indexes(
    scripted: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Index folders by the kind of their model."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.indexing.build import build_index
    from retrieval_kd.indexing.spec import spec_for
    from retrieval_kd.students.make import make_student

    top, collection = tmp_path_factory.mktemp("indexes"), open_collection(scripted)
    folders = {}
    for kind in ("dense", "sparse", "multi_vector"):
        model = tiny_encoder
        if kind != "dense":
            model = top / f"{kind}-model"
            make_student(str(tiny_encoder), kind, [0, 3]).save(str(model))
        folders[kind] = top / f"my-{kind}"
        build_index(collection, str(model), spec_for(kind), folders[kind])
    return folders
