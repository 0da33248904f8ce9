"""Targets and places of a batch's documents, against a look-up one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.training.batches.collate import PoolTargets, slate_columns
from retrieval_kd.training.batches.slates import Pool, Slate

DOCUMENTS = st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True)


@given(st.lists(st.tuples(DOCUMENTS, DOCUMENTS), min_size=1, max_size=4), DOCUMENTS)
def test_a_documents_target_is_the_one_in_the_querys_pool(pairs, batch):
    """Whatever the order of the batch's documents, some of which no pool has, or all there are."""
    pools = [
        Pool(
            "q",
            np.array(own),
            np.array(own, np.float32) / 2,
            np.array(own) % 3,
            members=np.array([own, own], np.float32),
            ignored=np.array(ignored[:3]),
        )
        for own, ignored in pairs
    ]
    for distinct in (np.array(batch), np.arange(12)):
        found = PoolTargets(pools).of(distinct)
        for row, (own, ignored) in enumerate(pairs):
            for column, document in enumerate(distinct.tolist()):
                pooled = document in own
                assert found["batch_teacher"][row, column] == (document / 2 if pooled else -np.inf)
                assert found["batch_gains"][row, column] == (document % 3 if pooled else 0)
                assert found["batch_mask"][row, column] == (pooled or document not in ignored[:3])
                expected = document if pooled else -np.inf
                assert (found["batch_members"][:, row, column] == expected).all()


@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.randoms())
def test_columns_are_the_places_of_a_slates_documents(drawn, random):
    slates = [Slate(np.array(d), np.zeros(len(d)), np.zeros(len(d), int)) for d in drawn]
    distinct = list({document for slate in drawn for document in slate})
    random.shuffle(distinct)
    columns = slate_columns(slates, np.array(distinct), size=8)
    for row, documents in enumerate(drawn):
        assert [distinct[at] for at in columns[row, : len(documents)]] == documents
        assert not columns[row, len(documents) :].any()
