"""A training job fits its data."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.job import TrainingJob, schedule
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.trainer.settings import TrainSettings

POOLS = [Pool(f"q{n}", np.arange(2), np.ones(2), np.array([1, 0])) for n in range(3)]


@pytest.mark.parametrize(("asked", "used"), [(5000, 3), (3, 3), (2, 2)])
def test_a_batch_larger_than_the_data_is_cut_with_a_warning(
    asked: int, used: int, tiny_collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = open_collection(tiny_collection).documents
    settings, terms = TrainSettings(steps=4, batch_queries=asked), [Term(name="infonce")]
    with caplog.at_level(logging.WARNING, "retrieval_kd"):
        job = TrainingJob(None, POOLS, texts, terms, settings, tmp_path)
    assert job.settings == settings.model_copy(update={"batch_queries": used})
    assert ("cut to 3" in caplog.text) == (asked > used)
    assert len(schedule(len(POOLS), job.settings)) == 4 * used
