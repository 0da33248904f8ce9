"""Token vectors whose sums are given vectors of documents."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.models.modules.token_table import TokenBags
from retrieval_kd.students import fit_tokens as module
from retrieval_kd.students.fit_tokens import drawn, fit_tokens

VOCABULARY, WIDTH = 40, 8


@pytest.fixture(scope="module")
def world():
    """Documents of random words, whose vectors are the sums of unknown vectors of the words."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, VOCABULARY - 1, 12).tolist() for _ in range(300)]  # never the last word
    truth = rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    bags = TokenBags.of(ids, VOCABULARY)
    vectors = np.stack([truth[row].sum(axis=0) for row in ids])
    return bags, truth, vectors


def test_words_get_the_vectors_that_documents_are_made_of(world):
    bags, truth, vectors = world
    start = np.random.default_rng(1).normal(size=truth.shape).astype(np.float32)
    found = fit_tokens(start, np.ones(VOCABULARY, np.float32), bags, drawn(len(bags)), vectors)
    centred = truth - truth[:-1].mean(axis=0)

    def cosines(one):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(centred, axis=1)
        return ((one * centred).sum(axis=1) / lengths)[:-1]

    assert cosines(found).mean() > 0.95 > 0.3 > cosines(start).mean()


def test_many_documents_are_fitted_nearly_as_well(world, monkeypatch):
    bags, truth, vectors = world
    start, idf = np.zeros_like(truth) + 0.1, np.ones(VOCABULARY, np.float32)
    exact = fit_tokens(start, idf, bags, drawn(len(bags)), vectors)
    monkeypatch.setattr(module, "EXACT", 10)
    near = fit_tokens(start, idf, bags, drawn(len(bags)), vectors)
    monkeypatch.setattr(module, "TOLERANCE", 1e-4)
    nearer = fit_tokens(start, idf, bags, drawn(len(bags)), vectors)
    assert 1e-6 < np.abs(near - exact).max() < 0.3 * np.abs(exact).max()
    np.testing.assert_allclose(nearer, exact, atol=1e-2)


def test_a_word_that_no_document_has_keeps_its_start(world):
    bags, truth, vectors = world
    found = fit_tokens(truth, np.ones(VOCABULARY, np.float32), bags, drawn(len(bags)), vectors)
    np.testing.assert_allclose(
        found[-1] / np.linalg.norm(found[-1]), truth[-1] / np.linalg.norm(truth[-1]), atol=1e-5
    )


def test_of_many_documents_some_are_drawn_and_the_same_ones_each_time(monkeypatch):
    assert drawn(150).tolist() == list(range(150))
    monkeypatch.setattr(module, "MOST", 150)
    made = [drawn(300, seed) for seed in (0, 0, 1)]
    assert all(len({*rows}) == 150 and (np.diff(rows) > 0).all() for rows in made)
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()


@pytest.mark.parametrize("ids", [[[1, 2, 3]], [[1, 2], [1, 2]], [[], []]])
def test_documents_that_are_all_alike_are_refused(ids):
    bags, start = TokenBags.of(ids, VOCABULARY), np.ones((VOCABULARY, WIDTH), np.float32)
    vectors = np.ones((len(ids), WIDTH), np.float32)
    with pytest.raises(InputError, match="all alike to the encoder"):
        fit_tokens(start, np.ones(VOCABULARY, np.float32), bags, drawn(len(bags)), vectors)
