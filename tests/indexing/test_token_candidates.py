"""Candidates through centroids, compared with plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_kd.indexing import token_candidates
from retrieval_kd.indexing.token_candidates import Candidates

CENTROIDS = 12


@pytest.fixture(scope="module")
def shards() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    lengths = [rng.integers(0, 6, count) for count in (7, 1, 12)]
    return [(rng.integers(0, CENTROIDS, own.sum()).astype(np.uint16), own) for own in lengths]


@pytest.fixture(scope="module")
def documents(shards: list[tuple[np.ndarray, np.ndarray]]) -> list[set[int]]:
    """The centroids of each document."""
    return [
        set(part.tolist())
        for cells, lengths in shards
        for part in np.split(cells, np.cumsum(lengths)[:-1])
    ]


@pytest.fixture(scope="module")
def lists(shards, tmp_path_factory) -> Candidates:
    folder = tmp_path_factory.mktemp("lists")
    token_candidates.write(folder, lambda: iter(shards), CENTROIDS)
    return Candidates(folder, 20)


def test_a_list_has_each_document_of_its_centroid_once(lists, documents):
    for cell in range(CENTROIDS):
        found = lists.lists[lists.starts[cell] : lists.starts[cell + 1]].tolist()
        assert found == [at for at, cells in enumerate(documents) if cell in cells]


@pytest.mark.parametrize("nprobe", [1, 3, CENTROIDS - 1, CENTROIDS, 99])
def test_the_best_candidates_have_the_best_approximate_scores(lists, documents, nprobe):
    similar = np.random.default_rng(nprobe).standard_normal((4, CENTROIDS)).astype(np.float32)
    expected = np.zeros(20)
    for row in similar:
        order = np.argsort(-row)
        missing = row[order[nprobe]] if nprobe < CENTROIDS else row.min()
        for at, cells in enumerate(documents):
            led = [row[cell] - missing for cell in order[:nprobe] if cell in cells]
            expected[at] += max(led, default=0)
    for count in (1, 5):
        found = lists.best(similar, nprobe, count)
        assert len(found) == count and (np.diff(found) > 0).all()
        worst = np.sort(expected)[-count]
        assert (expected[found] >= worst - 1e-4).all()


def test_documents_that_nothing_leads_to_are_no_candidates(lists, documents):
    similar = np.zeros((1, CENTROIDS), dtype=np.float32)
    similar[0, 3] = 1.0
    found = lists.best(similar, 1, 20)
    assert found.tolist() == [at for at, cells in enumerate(documents) if 3 in cells]


def test_documents_without_tokens_are_never_candidates(lists, documents):
    similar = np.random.default_rng(0).standard_normal((4, CENTROIDS)).astype(np.float32)
    found = set(lists.best(similar, CENTROIDS, 20).tolist())
    assert found == {at for at, cells in enumerate(documents) if cells} and len(found) < 20
