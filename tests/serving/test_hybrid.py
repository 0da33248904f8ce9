"""A hybrid index is served as its parts and their fusion."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.retrieval.change_hybrid import add_to_hybrid
from retrieval_kd.retrieval.combine import combine_indexes
from retrieval_kd.retrieval.hybrid import HybridIndex
from retrieval_kd.serving.service import Service
from tests.serving.conftest import WORDS

PARTS = ["bm25", "my-dense", "my-sparse"]


@pytest.fixture(scope="module")
def folder(indexes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("served") / "all"
    weights = {"bm25": 0.5, "my-dense": 0.3, "my-sparse": 0.2}
    combine_indexes(["bm25", indexes["dense"], indexes["sparse"]], out, weights=weights)
    return out


def test_its_systems_are_its_parts_and_the_fusion_with_its_weights(folder: Path) -> None:
    service = Service([folder], "bm25", 3)
    service.load()
    assert service.names == [*PARTS, "hybrid"]
    assert service.kinds()[-1][2] == "min_max, weights: bm25 0.5, my-dense 0.3, my-sparse 0.2"
    hybrid = HybridIndex.open(folder)
    lists = {one.system: one.hits for one in service.search(WORDS, 7, rerank=False).lists}
    found = {name: [(hit.id, hit.score) for hit in hits] for name, hits in lists.items()}
    assert dict(found["hybrid"]) == pytest.approx(dict(hybrid.search([WORDS], 7)[0]))
    for name in PARTS:
        assert found[name] == hybrid.search_part(name, [WORDS], 7)[0]
    marked = service.search(WORDS, 3, rerank=True, highlight=True)
    assert marked.reranked and all(one.hits[0].title for one in marked.lists)
    prefixed = service.search(WORDS, 4, prefix="ships", systems=["hybrid"]).lists[0].hits
    assert prefixed and all(hit.id.startswith("ships") for hit in prefixed)


def test_it_is_served_alone_and_as_it_was_changed(
    folder: Path, indexes: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="serve it alone"):
        Service([folder, indexes["dense"]])
    changed = shutil.copytree(folder, tmp_path / "changed")
    add_to_hybrid(changed, [Document("new1", "Otters", "an otter swims")])
    service = Service([changed])
    service.load()
    lists = {one.system: one.hits for one in service.search("otter", 3).lists}
    assert lists["bm25"][0].title == "Otters" and lists["hybrid"][0].id == "new1"
