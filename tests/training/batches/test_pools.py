"""Pools in columns, against pools that are built query by query from dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.rows import Row
from retrieval_kd.data.texts import build_texts
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.training.batches.pools import PACKED, Pools, build_pools
from retrieval_kd.training.batches.slates import NOTHING, Pool, PoolPairs, digest_pools

QUERIES, DOCUMENTS = ["q0", "q1", "q2"], ["d0", "d1", "d2", "d3", "d4"]
some = st.sampled_from(DOCUMENTS)
few = st.sampled_from([-1.5, 0.0, 0.1, 2.0])  # ties are common


def by_query(values):
    return st.dictionaries(st.sampled_from(QUERIES), values)


scores = by_query(st.dictionaries(some, few))
judgments = by_query(
    st.dictionaries(st.sampled_from([*DOCUMENTS, "gone"]), st.integers(-1, 2), max_size=3)
)


class Shelf:
    """A collection of nothing but documents."""

    def __init__(self, folder) -> None:
        self.documents = build_texts([Row(id, "", id) for id in DOCUMENTS], folder)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return Shelf(tmp_path_factory.mktemp("texts") / "t")


def one_by_one(
    queries, candidates, shelf, qrels, teacher, drops, *, judged_only, members, sources, pairs
):
    """What `build_pools` does, query by query and document by document."""
    place, pools = DOCUMENTS.index, []
    for query, text in queries.items():
        judged = {d: g for d, g in qrels.get(query, {}).items() if d in DOCUMENTS}
        scored = (teacher or {}).get(query, {})
        relevant = [d for d, gain in judged.items() if gain > 0]
        ids = list(dict.fromkeys([*candidates.get(query, {}), *relevant]))
        if judged_only and not relevant and not scored:
            drops.add("query without a relevant document or teacher score", query)
            continue
        if len(ids) < 2:
            drops.add("query with fewer than two candidates", query)
            continue
        unscored = [d for d in ids if d not in scored]
        positive = [d for d in unscored if d in relevant]
        if scored and positive:
            what = "relevant document without a teacher score (masked; `rkd score --judged SPLIT`)"
            drops.add(what, query, len(positive))
        if scored and len(unscored) > len(positive):
            what = "candidate without a teacher score (masked)"
            drops.add(what, query, len(unscored) - len(positive))
        ids.sort(key=lambda d: -np.float32(scored.get(d, -np.inf)))
        source, answered = sources.get(query), None
        ignored = NOTHING if source in (None, "gone", *ids) else np.array([place(source)])
        if pairs is not None:
            if query not in pairs:
                drops.add("query without an answer about pairs", query)
            answered = PoolPairs.of(ids, *pairs.get(query, ()))
        alone = [[member.get(query, {}).get(d, np.nan) for d in ids] for member in members]
        pools.append(
            Pool(
                text,
                np.array([place(d) for d in ids]),
                np.array([scored.get(d, np.nan) for d in ids], np.float32),
                np.array([max(0, judged.get(d, 0)) for d in ids]),
                np.array(alone, np.float32) if members else None,
                ignored,
                answered,
            )
        )
    return pools


@given(
    candidates=scores,
    qrels=judgments,
    teacher=st.none() | scores,
    judged_only=st.booleans(),
    members=st.lists(scores, max_size=2),
    sources=st.dictionaries(st.sampled_from(QUERIES), st.sampled_from([*DOCUMENTS, "gone"])),
    compared=st.none() | st.sets(st.sampled_from(QUERIES)),
)
def test_pools_are_those_of_the_dictionaries(shelf, candidates, qrels, teacher, compared, **more):
    queries = {query: f"text of {query}" for query in reversed(QUERIES)}
    answers = np.array([[np.nan, 0.75], [0.25, np.nan]])
    more["pairs"] = compared if compared is None else dict.fromkeys(
        compared, (["d1", "d3"], answers)
    )  # fmt: skip
    drops, expected_drops = Drops(), Drops()
    expected = one_by_one(queries, candidates, shelf, qrels, teacher, expected_drops, **more)
    if not expected:
        with pytest.raises(InputError, match="no query to train on"):
            build_pools(queries, candidates, shelf, qrels, teacher, drops, **more)
        return
    found = build_pools(queries, candidates, shelf, qrels, teacher, drops, **more)
    assert drops.summary() == expected_drops.summary()
    assert digest_pools(found) == digest_pools(expected) and len(found) == len(expected)
    for pool, other in zip(found, expected, strict=True):
        assert (pool.members is None) == (other.members is None)
        assert (pool.positions.dtype, pool.teacher.dtype, pool.gains.dtype) == (
            np.int64, np.float32, np.int64,
        )  # fmt: skip
    assert digest_pools(Pools.of(expected)) == digest_pools(expected)


def small(number):
    positions = np.arange(number % 4)
    return Pool(str(number), positions, positions.astype(np.float32), positions, ignored=positions)


@pytest.mark.parametrize("count", [0, 1, PACKED, PACKED + 3])
def test_packed_pools_are_the_same(count):
    pools = [small(number) for number in range(count)]
    packed = Pools.of(iter(pools))
    assert len(packed) == count and digest_pools(packed) == digest_pools(pools)
    assert Pools.of(packed) is packed


@given(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([None, 1, 2, -1]))
def test_pools_are_sliced_like_a_list(first, end, step):
    pools = [small(number) for number in range(7)]
    part = Pools.of(pools)[first:end:step]
    assert isinstance(part, Pools)
    assert digest_pools(part) == digest_pools(pools[first:end:step])
    again = Pools.joined([part, Pools.of(pools)])
    assert digest_pools(again) == digest_pools([*pools[first:end:step], *pools])


def test_a_pool_views_the_arrays():
    packed = Pools.of(map(small, range(9)))
    assert packed[7].positions.base is not None and packed[-1].query == "8"
    assert np.shares_memory(packed[2:5][0].gains, packed.gains)
    with pytest.raises(IndexError):
        packed[9]
