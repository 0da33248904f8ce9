"""The budget of a fitted cross-encoder is measured once, so that a restart fits the same one."""

from __future__ import annotations

from benchmarks.cross_encoder import TRIAL, line, steps_in


def test_the_steps_of_a_budget_are_measured_once(tmp_path):
    timed = []

    def trained(steps, folder):
        timed.append(steps)
        return {"seconds": 2.0 * steps}

    assert [steps_in(minutes, tmp_path, trained) for minutes in (1, 1, 2)] == [30, 30, 60]
    assert timed == [TRIAL, TRIAL]


def test_a_line_says_what_the_cross_encoder_adds():
    tests = [{"difference": 0.0123, "p": 0.04}, {"difference": -0.1, "p": 0.0001}]
    measured = {"split": "dev", "queries": 40, "ndcg@10": {"bm25 + encoder": 0.4}}
    said = line("cacm", {**measured, "comparisons": tests})
    assert "cacm (40 dev queries)" in said and "with it +0.0123 (p 0.040), alone -0.1000" in said
