"""Terms that would learn nothing from the data are refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from retrieval_kd import objectives
from retrieval_kd.errors import InputError
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.objective.term_checks import SQUARE, check_for_collection, check_targets
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


@pytest.mark.parametrize(
    ("objective", "fixed", "message"),
    [
        ("kl@collection", False, "encode them all: candidates: batch"),
        ("ranknet@collection", True, "compares every document with others.*candidates: batch"),
    ],
)
def test_a_whole_collection_is_not_scored_where_that_costs_too_much(
    objective: str, fixed: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_for_collection(parse_terms(objective), fixed)
    check_for_collection(parse_terms("kl@collection+infonce@collection+ranknet@batch"), True)


class Largest(TorchDispatchMode):
    """Measures the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("name", objectives.__all__)
def test_objectives_on_a_whole_collection_need_one_number_per_query_and_document(name: str) -> None:
    """Those that need more are listed, and no other is."""
    student, teacher = torch.randn(3, 50), torch.randn(3, 50)
    more = {"preferences": torch.rand(3, 50, 50)} if name == "pair_kl" else {}
    with Largest() as seen:
        getattr(objectives, name)(student, teacher, torch.ones(3, 50).bool(), **more)
    assert (seen.elements > 3 * 50) == (name in SQUARE)
