"""The report's sentences about systems, teachers and costs."""

from __future__ import annotations

import pytest

from benchmarks.teachers import CONFIG
from retrieval_kd.config.run import load_config
from retrieval_kd.evaluation.report.grid import to_markdown
from retrieval_kd.evaluation.report.table import to_grid
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.pipeline.descriptions import cost_sentence, describe_system


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


@pytest.mark.parametrize(
    ("more", "of_encoder", "said"),
    [
        ({}, True, "3 of 6 layers and 17.4 M of 22.7 M parameters; 5.9 against 9.6 ms a query (ag"),
        ({}, False, "3 layers, 17.4 M parameters, 5.9 ms a query (the encoder: 6, 22.7 M, 9.6 ms;"),
        ({"re_ranks": True}, True, "5.9 ms to re-rank a query's candidates (the encoder: 6, "),
    ],
)
def test_a_student_is_a_part_of_the_encoder_only_where_it_was_made_of_it(more, of_encoder, said):
    sentence = cost_sentence("small", {**COSTS, "small": STUDENT | more}, of_encoder)
    assert said in sentence and "the teacher re-ranks in 304 ms" in sentence
    assert ("it was made of" in sentence) == (of_encoder and not more)


def test_a_table_says_whose_latency_is_without_the_first_stage():
    systems = [*COSTS, "ranker", "dense"]
    evaluation = Evaluation(["map"], {system: {"map": {"q": 0.5}} for system in systems})
    facts = {**COSTS, "ranker": STUDENT | {"re_ranks": True}, "dense": STUDENT}
    text = to_markdown(to_grid(evaluation, facts=facts))
    assert text.endswith("Without the first stage: teacher, ranker.")
    assert "first stage" not in to_markdown(to_grid(evaluation, facts={"dense": STUDENT}))
