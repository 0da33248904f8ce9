"""What a stage draws from: shares of its parts, among them slates of sure candidates."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from retrieval_kd.config.run import Config
from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import Drops
from retrieval_kd.pipeline.pools import stage_pools
from retrieval_kd.pipeline.queries import Queries
from retrieval_kd.retrieval.bm25 import bm25_run, bm25_scores
from retrieval_kd.schema import validate


def test_a_share_of_the_judged_queries_slates_is_of_sure_candidates(tiny_collection, tmp_path):
    collection = open_collection(str(tiny_collection))
    texts = collection.query_texts("train")
    candidates = bm25_run(collection, texts, 12).results
    scores = bm25_scores(collection, texts, {q: list(found) for q, found in candidates.items()})
    training = {"objective": "kl", "denoised": {"below": 1.0, "above": 1e9, "share": 0.25}}
    given = {
        "name": "n", "collection": str(tiny_collection), "out": str(tmp_path), "encoder": "m",
        "teacher": {"model": "bm25"}, "student": {"base": "m"}, "students": {"one": training},
        "compare": ["one", "bm25"],
    }  # fmt: skip
    config = validate(Config, given)
    ensemble = SimpleNamespace(
        collection=collection,
        unlabelled=None,
        queries=lambda part: Queries(texts, collection.qrels("train"), {}),
        candidates=lambda part: candidates,
        fused=lambda *_: scores,  # one teacher: its scores as they are
    )
    pools, groups = stage_pools(config.students["one"].all_stages[0], ensemble, "", Drops())
    assert {name: share for name, (_, _, share) in groups.items()} == {
        "denoised": pytest.approx(0.25),
        "train": pytest.approx(0.75),
    }
    start, end, _ = groups["denoised"]
    for pool in pools[start:end]:
        assert ((pool.gains > 0) | (pool.teacher < 1.0)).all() and len(pool.ignored)
    start, end, _ = groups["train"]
    assert any(((pool.gains <= 0) & (pool.teacher >= 1.0)).any() for pool in pools[start:end])
    assert sum(e - s for s, e, _ in groups.values()) == len(pools)
