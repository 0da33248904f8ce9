"""The report's sentences about systems, teachers and costs."""

from __future__ import annotations

from benchmarks.teachers import CONFIG
from retrieval_kd.config.run import load_config
from retrieval_kd.evaluation.report.grid import to_markdown
from retrieval_kd.evaluation.report.table import to_grid
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.pipeline.descriptions import describe_system


def test_who_taught_is_said_and_who_has_no_weight_is_not():
    config = load_config(CONFIG)
    weights = dict(zip(config.teacher.members, config.teacher.weights or [], strict=True))
    _, teacher, _ = describe_system(config, weights, "teacher")
    assert "by 1 × cross-encoder, 1 × bm25, 1 × dense:" in teacher and "0 ×" not in teacher
    told = {name: describe_system(config, weights, name)[1] for name in config.students}
    assert told["of_bm25"].endswith("trained with 1 kl by 1 × bm25")
    assert told["of_fusion"].endswith("trained with 1 kl")
    assert told["of_pairs"].endswith("trained with 1 pair_kl_from_pairs_4")  # BM25 only chooses


STUDENT = {"layers": 3, "parameters": 17_400_000, "latency_ms_p50": 5.9}
COSTS = {
    "bm25": {"latency_ms_p50": 0.4},
    "encoder": {"layers": 6, "parameters": 22_700_000, "latency_ms_p50": 9.6},
    "teacher": {"latency_ms_p50": 304.0, "re_ranks": True},
}


def test_a_table_says_whose_latency_is_without_the_first_stage():
    systems = [*COSTS, "ranker", "dense"]
    evaluation = Evaluation(["map"], {system: {"map": {"q": 0.5}} for system in systems})
    facts = {**COSTS, "ranker": STUDENT | {"re_ranks": True}, "dense": STUDENT}
    text = to_markdown(to_grid(evaluation, facts=facts))
    assert text.endswith("Without the first stage: teacher, ranker.")
    assert "first stage" not in to_markdown(to_grid(evaluation, facts={"dense": STUDENT}))
