"""Terms that would learn nothing from the data are refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.objective.term_checks import check_targets
from retrieval_kd.training.objective.terms import parse_terms


def pool(*scores: float) -> Pool:
    gains = np.array([1] + [0] * (len(scores) - 1))
    return Pool("q", np.arange(len(scores)), np.array(scores, np.float32), gains)


ONE, TWO = pool(1.5, np.nan), pool(1.5, 0.5, np.nan)


@pytest.mark.parametrize("objective", ["kl", "margin_mse", "ranknet", "pearson", "kl+infonce"])
def test_one_scored_candidate_per_query_teaches_nothing(objective: str) -> None:
    with pytest.raises(InputError, match="no query has two with a teacher score"):
        check_targets([ONE, ONE], parse_terms(objective))


@pytest.mark.parametrize("objective", ["mse", "bce", "infonce", "infonce@batch", "kl@batch"])
def test_objectives_that_learn_from_one_scored_candidate_may(objective: str) -> None:
    check_targets([ONE, ONE], parse_terms(objective))


def test_queries_that_teach_nothing_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "retrieval_kd"):
        check_targets([ONE, TWO, TWO], parse_terms("kl"))
    assert "kl learns nothing from 1 of 3 queries" in caplog.text
