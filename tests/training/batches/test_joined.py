"""Pools of several collections become one training: own documents, equal shares."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from retrieval_kd.data.rows import Row
from retrieval_kd.data.texts import build_texts
from retrieval_kd.training.batches.joined import join_pools
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.job import schedule
from retrieval_kd.training.trainer.settings import TrainSettings


def texts(folder, *words):
    return build_texts([Row(f"d{n}", "", word) for n, word in enumerate(words)], folder)


def pool(query, *positions):
    numbers = np.array(positions)
    gains = np.array([1] + [0] * (len(positions) - 1))
    scores = np.zeros(len(positions), np.float32)
    return Pool(query, numbers, scores, gains, ignored=np.array([0]))


def test_equal_ids_and_positions_stay_documents_of_their_own_collection(tmp_path):
    ships, birds = texts(tmp_path / "a", "sail", "mast"), texts(tmp_path / "b", "wing", "nest")
    parts = {"ships": ([pool("boat", 1, 0)], ships), "birds": ([pool("bird", 1, 0)], birds)}
    pools, joined, groups = join_pools(parts)
    read = [[joined.at(int(at)).text for at in pool.positions] for pool in pools]
    assert read == [["mast", "sail"], ["nest", "wing"]]
    assert [joined.at(int(pool.ignored[0])).text for pool in pools] == ["sail", "wing"]
    assert groups == {"ships": (0, 1, 0.5), "birds": (1, 2, 0.5)}
    assert [document.text for document in joined.iterate()] == ["sail", "mast", "wing", "nest"]
    assert pickle.loads(pickle.dumps(joined)).at(3).text == "nest"
    with pytest.raises(TypeError, match="by position"):
        joined["d1"]
    assert len(joined) == 4 and joined.digest not in (ships.digest, birds.digest)


def test_a_collection_of_few_queries_gets_as_large_a_share(tmp_path):
    one = texts(tmp_path / "a", "sail", "mast")
    parts = {"many": ([pool("q", 0, 1)] * 90, one), "few": ([pool("q", 0, 1)] * 3, one)}
    pools, _, groups = join_pools(parts)
    rows = schedule(len(pools), TrainSettings(steps=10, batch_queries=20), groups)
    assert Counter(index < 90 for index in rows["pool"]) == {True: 100, False: 100}


def test_one_collection_is_left_as_it_is(tmp_path):
    one = texts(tmp_path / "a", "sail", "mast")
    pools, documents, groups = join_pools({"only": ([pool("q", 0, 1)], one)})
    assert documents is one and groups == {} and pools[0].positions.tolist() == [0, 1]
