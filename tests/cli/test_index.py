"""`rkd index`, and the commands that change an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

Printed = tuple[int, str]


@pytest.fixture
def index(tiny_collection: Path, tiny_encoder: Path, tmp_path: Path, command: Any) -> Path:
    options = ("--collection", tiny_collection, "--model", tiny_encoder, "--out", tmp_path / "ix")
    code, said = command("index", *options)
    assert code == 0 and "ix: 60 documents" in said, said
    return tmp_path / "ix"


def write(path: Path, *documents: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def test_documents_are_added_replaced_deleted_and_shown(
    index: Path, tmp_path: Path, command: Any
) -> None:
    new = write(
        tmp_path / "new.jsonl",
        {"_id": "new1", "title": "Newcomer", "text": "sparrow nest"},
        {"_id": "birds1", "text": "violin chord"},
    )
    code, said = command("index", "add", "--index", index, "--documents", new)
    assert code == 0 and "1 document added, 1 replaced; 61 documents in the index" in said, said
    code, said = command("search", "--index", index, "Newcomer sparrow nest", "--depth", 1)
    assert code == 0 and "Newcomer  [new1]" in said and "sparrow nest" in said, said

    (tmp_path / "gone").write_text("new1\n\nnobody\n")
    code, said = command("index", "delete", "--index", index, "--ids-from", tmp_path / "gone")
    assert code == 2 and "1 of 2 IDs to delete are not in this index: nobody" in said, said
    lines = ("--ids-from", tmp_path / "gone", "--missing", "skip")
    code, said = command("index", "delete", "--index", index, "birds2", *lines)
    assert code == 0 and "2 documents deleted, 1 ID not there; 59 documents" in said, said
    code, said = command("search", "--index", index, "sparrow nest", "--depth", 100)
    assert code == 0 and "[birds3]" in said and "new1" not in said and "[birds2]" not in said

    many = [f"{topic}{n}" for topic in ("ships", "music") for n in range(10)]
    code, said = command("index", "delete", "--index", index, *many)
    assert "rkd index compact makes it smaller" in said, said
    code, said = command("index", "compact", "--index", index)
    assert code == 0 and "compacted; 39 documents" in said and "makes it" not in said, said
    assert command("index", "verify", "--index", index) == (0, f"{index}: all is well\n")


def test_verify_names_the_damaged_file(index: Path, command: Any) -> None:
    path = index / "index.faiss"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert command("index", "verify", "--index", index)[1].endswith("ix: 1 problem\n")
    (index / "ids.arrow").unlink()
    code, said = command("index", "verify", "--index", index)
    assert code == 1 and "index.faiss: digest differs" in said and "ids.arrow: the index" in said
    assert said.endswith("ix: 2 problems\n"), said


def test_a_mistake_names_the_line(index: Path, tmp_path: Path, command: Any) -> None:
    one = {"_id": "new1", "text": "nest"}
    twice = write(tmp_path / "twice.jsonl", one, {"_id": "new2", "text": "egg"}, one)
    code, said = command("index", "add", "--index", index, "--documents", twice)
    assert code == 2 and "twice.jsonl:3: duplicate document ID, first at" in said, said
    assert "twice.jsonl:1 (id new1)" in said and said.count("\n") == 1
    broken = write(tmp_path / "broken.jsonl", one, {"_id": "new2"})
    code, said = command("index", "add", "--index", index, "--documents", broken)
    assert code == 2 and 'broken.jsonl:2: no "text" (id new2)' in said, said
    code, said = command("index", "add", "--index", index, "--documents", tmp_path / "none")
    assert code == 2 and "no such file of documents" in said, said
    code, said = command("index", "delete", "--index", index)
    assert code == 2 and "no document ID to delete" in said, said
    for verb in ("add", "delete", "compact", "verify"):
        more = {"add": ("--documents", twice), "delete": ("x",)}.get(verb, ())
        code, said = command("index", verb, "--index", tmp_path, *more)
        assert code == 2 and "no finished index here" in said, said


def test_without_a_verb_it_builds(command: Any) -> None:
    code, said = command("index")
    assert code == 2 and "Missing option '--collection'" in said, said
    code, said = command("index", "--collection", "x", "--help")
    assert code == 0 and "rkd index build" in said, said
    code, said = command("index", "--help")
    assert code == 0 and all(verb in said for verb in ("build", "add", "delete", "compact"))
    code, said = command("index", "ad")
    assert code == 2 and "No such command 'ad'" in said, said
