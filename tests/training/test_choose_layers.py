"""Which subsets of layers are tried, and that the best one is kept."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.students.make import make_student
from retrieval_kd.training.choose_layers import MOST, candidate_layers, choose_layers
from retrieval_kd.training.trainer.curve import DevEvaluator, DevTask, build_dev_task


@given(st.integers(1, 48), st.data())
def test_subsets_are_distinct_ordered_and_few(count, data):
    keep = data.draw(st.integers(1, count))
    subsets = candidate_layers(count, keep)
    assert 1 <= len(subsets) <= MOST
    assert len({tuple(layers) for layers in subsets}) == len(subsets)
    for layers in subsets:
        assert len(layers) == keep and layers == sorted(set(layers))
        assert layers[0] >= 0 and layers[-1] < count
    assert subsets == candidate_layers(count, keep)


def test_all_are_tried_if_they_are_few():
    assert candidate_layers(6, 3) == [list(layers) for layers in combinations(range(6), 3)]
    assert candidate_layers(4, 4) == [[0, 1, 2, 3]]
    assert len(candidate_layers(24, 6)) == MOST


@pytest.fixture(scope="module")
def dev(tiny_collection) -> DevTask:
    collection = open_collection(str(tiny_collection))
    queries = collection.query_texts("dev")
    return build_dev_task(
        collection, queries, collection.qrels("dev"), bm25_run(collection, queries, 10)
    )


@pytest.mark.parametrize("kind", ["dense", "sparse", "multi_vector"])
def test_the_best_subset_is_kept_and_none_is_measured_twice(kind, tiny_encoder, dev, capsys):
    made = []

    def make(layers):
        made.append(layers)
        return make_student(str(tiny_encoder), kind, layers)

    choice = choose_layers(make, 4, 2, dev, [kind, "test"])
    assert made == [list(layers) for layers in combinations(range(4), 2)]
    assert f"layers {', '.join(map(str, choice['kept']))} of 4 kept" in capsys.readouterr().err
    evaluate = DevEvaluator(dev)
    values = [one["ndcg@10"] for one in choice["tried"]]
    kept = make_student(str(tiny_encoder), kind, choice["kept"])
    assert max(values) == pytest.approx(evaluate(kept)["dev_ndcg@10"])
    assert [one["layers"] for one in choice["tried"]] == made
    assert (choice["queries"], choice["documents"]) == (len(dev.queries), len(dev.documents))
    assert choose_layers(make, 4, 2, dev, [kind, "test"]) == choice and len(made) == 6
    choose_layers(make, 4, 2, dev, [kind, "another"])
    assert len(made) == 12


def test_layers_that_cannot_be_saved_are_left_out(tiny_encoder, dev, caplog):
    def make(layers):
        if layers[0]:
            raise InputError("this architecture does not load as it was saved")
        return make_student(str(tiny_encoder), "dense", layers)

    choice = choose_layers(make, 4, 1, dev, "first only")
    assert choice["kept"] == [0] and [t["ndcg@10"] is None for t in choice["tried"]] == [
        False, True, True, True
    ]  # fmt: skip
    assert "layers [1] are not tried: this architecture" in caplog.text

    def never(layers):
        raise InputError("it does not load")

    with pytest.raises(InputError, match="with no 3 of the layers tried"):
        choose_layers(never, 4, 3, dev, "none")
