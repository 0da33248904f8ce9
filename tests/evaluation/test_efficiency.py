"""Costs of systems that are not one dense vector per text."""

from __future__ import annotations

from functools import partial

import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.evaluation.efficiency import (
    documents_per_second,
    measure_latency,
    prepare,
    timed_build,
)
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.spec import load_spec, spec_for
from retrieval_kd.retrieval.retrieve import cached_index
from retrieval_kd.students.make import make_student


@pytest.mark.parametrize("kind", ["sparse", "multi_vector"])
def test_a_student_of_another_kind_has_its_own_costs(kind, tiny_collection, tiny_encoder, tmp_path):
    folder = tmp_path / kind
    make_student(str(tiny_encoder), kind, [0, 3], max_length=32, seed=0).save(str(folder))
    collection = open_collection(str(tiny_collection))
    costs = prepare(str(folder), collection, max_length=32)
    assert costs["kind"] == kind and costs["layers"] == 2
    assert costs["index"] == "made now" and costs["documents_per_second"] > 0
    assert costs["index_bytes"] >= 60  # documents
    encoding = cached_index(collection, str(folder), kind, max_length=32).manifest["seconds"]
    measured = documents_per_second(60, encoding["encode"])
    assert costs["documents_per_second"] == measured, "without loading"
    assert prepare(str(folder), collection, max_length=32)["index"] == "cached"
    timed = measure_latency(
        [str(folder)], collection, ["sparrow wing", "anchor"], depth=5, max_length=32
    )
    assert timed[str(folder)]["latency_ms_p50"] > 0


@pytest.mark.parametrize("kind", ["dense", "sparse", "multi_vector"])
def test_how_fast_an_index_was_encoded_is_known_only_where_all_of_it_was_now(
    kind, tiny_collection, tiny_encoder, tmp_path
):
    """Neither of an index that was there, nor of one whose vectors or first shards were."""
    model, collection = str(tmp_path / kind), open_collection(str(tiny_collection))
    make_student(str(tiny_encoder), kind, [0, 3], max_length=32, seed=0).save(model)
    spec = load_spec("indexes/flat.yaml") if kind == "dense" else spec_for(kind)

    def built(name):
        build = partial(build_index, collection, model, spec, tmp_path / name, max_length=24)
        index, speed = timed_build(build, tmp_path / name)
        assert len(index) == len(collection.documents)
        return speed

    assert built("one") > 0
    assert built("one") is None
    # one vector per text is kept for all indexes of a model, the others' are the index's own
    assert (built("two") is None) == (kind == "dense")
    (tmp_path / "three" / ".shards-of-an-earlier-process").mkdir(parents=True)
    assert built("three") is None
