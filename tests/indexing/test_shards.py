from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.change import add_documents
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.shards import Shards
from retrieval_kd.indexing.snippets import snippets
from retrieval_kd.indexing.spec import IndexSpec


def build(
    documents: list[Document], model: Path, to: Path, prompt: str | None = None, **spec: Any
) -> Path:
    data = to.with_suffix(".data")
    data.mkdir(parents=True)
    rows = [{"_id": d.id, "title": d.title, "text": d.text} for d in documents]
    (data / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "queries.jsonl").write_text('{"_id": "q1", "text": "sparrow nest"}\n')
    build_index(open_collection(data), str(model), IndexSpec(**spec), to, document_prompt=prompt)
    return to


@pytest.fixture(scope="module")
def documents(tiny_collection: Path) -> list[Document]:
    return list(open_collection(tiny_collection).documents.iterate())


@pytest.fixture(scope="module")
def parts(documents: list[Document], tiny_encoder: Path, tmp_path_factory: Any) -> list[Path]:
    home = tmp_path_factory.mktemp("parts")
    return [
        build(documents[at::3], tiny_encoder, home / f"part{at}", factory=factory)
        for at, factory in enumerate(("Flat", "HNSW8", "Flat"))
    ]


def test_several_indexes_find_what_one_of_all_documents_finds(
    parts: list[Path], documents: list[Document], tiny_encoder: Path, tmp_path: Path, command: Any
) -> None:
    whole = Index.open(build(documents, tiny_encoder, tmp_path / "whole"))
    queries = ["sparrow nest", "violin chord tempo", "rook castle"]
    shards = Shards.open(parts)
    assert len(shards) == len(documents)
    for depth in (5, 60):
        for hits, expected in zip(
            shards.search(queries, depth), whole.search(queries, depth), strict=True
        ):
            assert dict(hits) == pytest.approx(dict(expected), abs=1e-5)
    run = shards.search_run({"q1": queries[0]}, 4)
    assert run.name == "part0+part1+part2" and len(run.results["q1"]) == 4

    add_documents(parts[1], [Document("new1", "Newcomer", "sparrow nest")])
    shards = Shards.open(parts)
    [hits] = shards.search(["Newcomer sparrow nest"], 3)
    assert hits[0][0] == "new1" and len(snippets(shards.texts(), hits, "nest")) == 3
    named = [word for part in parts for word in ("--index", part)]
    code, said = command("search", *named, "Newcomer sparrow nest", "--depth", 2)
    assert code == 0 and "Newcomer  [new1]" in said, said


def test_indexes_whose_scores_do_not_compare_are_refused(
    parts: list[Path],
    documents: list[Document],
    tiny_encoder: Path,
    tiny_dot_encoder: Path,
    tmp_path: Path,
) -> None:
    other = build(documents[:5], tiny_dot_encoder, tmp_path / "other")
    with pytest.raises(InputError, match=r"other: its model is .*dot, and that of .*part0"):
        Shards.open([parts[0], other])
    narrow = build(documents[:5], tiny_encoder, tmp_path / "narrow", dimensions=8)
    with pytest.raises(InputError, match=r"its number of dimensions is 8, and that of .* 32"):
        Shards.open([parts[0], narrow])
    prompted = build(documents[:5], tiny_encoder, tmp_path / "prompted", prompt="passage: ")
    with pytest.raises(InputError, match=r"its document prompt is passage: , and that of .* None"):
        Shards.open([parts[0], prompted])


def test_an_index_that_is_given_twice_is_refused(
    parts: list[Path], tmp_path: Path, command: Any
) -> None:
    (tmp_path / "link").symlink_to(parts[0])
    for again in (parts[0], tmp_path / "link"):
        with pytest.raises(InputError, match=r"an index is given twice. To fix: give each once"):
            Shards.open([parts[0], parts[1], again])
    code, said = command("search", "--index", parts[0], "--index", parts[0], "nest")
    assert code == 2 and "an index is given twice" in said and "delete" not in said, said


def test_a_document_in_two_indexes_is_an_error_that_names_both(
    parts: list[Path], documents: list[Document], tiny_encoder: Path, tmp_path: Path
) -> None:
    again = build(documents[:1], tiny_encoder, tmp_path / "again")
    with pytest.raises(InputError, match=r"again: a document with this ID is in .*part0 too"):
        Shards.open([parts[0], again]).search([documents[0].full], 5)
