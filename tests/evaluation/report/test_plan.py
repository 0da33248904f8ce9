"""The plan beside what stages took."""

from __future__ import annotations

from retrieval_kd.evaluation.report.plan import plan_grid


def test_a_stage_of_less_than_a_second_has_no_ratio_but_counts_in_all():
    stages = [
        {"title": "report", "planned": 0.8, "took": 0.01},
        {"title": "search", "planned": 0.5, "took": 10.0},
    ]
    grid = plan_grid(stages)
    assert grid is not None
    assert [row[-1].text for row in grid.rows] == ["", "0.05", "0.13"]


def test_a_run_without_a_plan_has_no_table():
    assert plan_grid([]) is None
