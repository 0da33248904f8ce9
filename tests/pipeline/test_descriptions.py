"""What a report says of a run in words."""

from __future__ import annotations

from benchmarks.teachers import CONFIG
from retrieval_kd.config.run import load_config
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
