"""The demonstration of benchmarks/planted_leak.py, on sixty documents and a model of two layers."""

from __future__ import annotations

import pytest

from benchmarks.planted_leak import demonstrate
from retrieval_kd.data.collection import open_collection
from retrieval_kd.training.trainer.settings import TrainSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shown(tiny_collection, tiny_encoder, tmp_path_factory):
    """Both students' effect, both audits, and which queries leaked."""
    settings = TrainSettings(
        steps=40, batch_queries=8, slate_size=4, max_tokens=16, learning_rate=3e-3
    )
    return demonstrate(
        open_collection(str(tiny_collection)),
        "train",
        tmp_path_factory.mktemp("leak"),
        settings,
        model=str(tiny_encoder),
        layers=[0, 3],
    )


def test_a_student_trained_on_test_queries_scores_too_high_on_them(shown):
    found, _, _ = shown
    leaked, honest = (found.means[name]["ndcg@10"] for name in ("leaked", "honest"))
    # by how much is a question for the benchmark: sixty documents and two layers vary too widely
    assert leaked["query"] > honest["query"]


def test_the_audit_finds_the_leaked_queries_in_the_teachers_scores(shown):
    _, audits, leaked = shown
    found = {p.eval_id for p in audits["leaked"].pairs if "id" in p.kinds and p.what == "query"}
    assert found == set(leaked)
    assert not any("id" in p.kinds or "exact" in p.kinds for p in audits["honest"].pairs)
