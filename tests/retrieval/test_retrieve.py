from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run, read_run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.retrieval.retrieve import hybrid_run, retrieve


def test_every_retriever_returns_a_run_that_survives_a_trec_file(
    tiny_collection: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    collection = open_collection(tiny_collection)
    queries = collection.query_texts("test")
    parts = {name: retrieve(collection, queries, name, 10) for name in ("bm25", str(tiny_encoder))}
    hybrid = retrieve(collection, queries, f"bm25+{tiny_encoder}", 10)
    assert hybrid == hybrid_run(list(parts.values()), depth=10)
    for run in (*parts.values(), hybrid, retrieve(collection, queries, "bm25-lucene", 10)):
        assert list(run.results) == list(queries)
        write_run(run, tmp_path / "run.trec")
        assert read_run(tmp_path / "run.trec").results == run.results


def test_an_unknown_retriever_is_an_error(tiny_collection: Path) -> None:
    collection = open_collection(tiny_collection)
    with pytest.raises(InputError, match="no installed Python package 'no_such_encoder'"):
        retrieve(collection, {"q": "sparrow"}, "bm25+package:no-such-encoder", 10)
    with pytest.raises(InputError, match="depth is 0"):
        retrieve(collection, {"q": "sparrow"}, "bm25", 0)


def by_hand(runs: list[Run], query: str, k: int) -> list[tuple[str, float]]:
    scores: dict[str, float] = {}
    for run in runs:
        for rank, (id, _) in enumerate(best_first(run.results.get(query, {})), start=1):
            scores[id] = scores.get(id, 0.0) + 1 / (k + rank)
    return best_first(scores)


def best_first(scores: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda hit: (np.float32(hit[1]), hit[0]), reverse=True)


RUNS = [
    Run("one", {"q1": {"a": 3.0, "b": 2.0, "c": 2.0}, "q2": {"a": -1.0, "b": -5.0}}),
    Run("two", {"q1": {"c": 0.9, "d": 0.4}, "q2": {}, "q3": {"x": 7.0, "w": 7.0}}),
    Run("three", {"q1": {"d": 11.0, "b": 10.0, "long-identifier": 1.0}}),
]


@pytest.mark.parametrize("k", [1, 60])
@pytest.mark.parametrize("runs", [RUNS, RUNS[:2], RUNS[1:]])
def test_fusion_equals_its_formula_even_if_a_run_lacks_queries(runs: list[Run], k: int) -> None:
    fused = hybrid_run(runs, k=k)
    queries = {query for run in runs for query in run.results}
    assert set(fused.results) == queries
    for query in queries:
        expected = by_hand(runs, query, k)
        assert list(fused.results[query]) == [id for id, _ in expected]
        assert fused.results[query] == pytest.approx(dict(expected))


def test_a_fusion_is_cut_to_its_depth_and_named_after_its_runs() -> None:
    fused = hybrid_run(RUNS, depth=2)
    assert fused.name == "one+two+three"
    assert len(fused.results["q1"]) == 2 and list(fused.results["q3"]) == ["x", "w"]


def test_a_query_without_results_in_any_run_stays_empty() -> None:
    fused = hybrid_run([Run("a", {"q": {}}), Run("b", {"q": {}})])
    assert fused.results == {"q": {}}


def test_fusing_a_single_run_is_an_error() -> None:
    with pytest.raises(InputError, match="at least two"):
        hybrid_run(RUNS[:1])
