"""The teacher of `rkd run`: whatever makes several one, it is fitted on dev, kept, and used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import AggregationName
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.plan import plan
from retrieval_kd.pipeline.stages import choose_queries, retrieve_candidates
from retrieval_kd.schema import validate
from retrieval_kd.store.usage import read_usage
from retrieval_kd.targets.aggregate_orders import ORDER_AGGREGATIONS
from retrieval_kd.targets.aggregate_pairs import PAIR_AGGREGATIONS
from retrieval_kd.workspace import Workspace

HOWS = ("z_scores", "calibrated", "ranks", "agreement", "learned")


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_collection, tiny_encoder) -> Config:
    return validate(
        Config,
        {
            "name": "Teachers",
            "collection": str(tiny_collection),
            "out": str(tmp_path_factory.mktemp("ensemble") / "run"),
            "encoder": str(tiny_encoder),
            "splits": {"dev": "dev", "dev_queries": 10},
            "first_stage": {"with": "bm25", "depth": 8},
            "teacher": {"fuse_with": ["bm25", f"dense:{tiny_encoder}"], "max_length": 48},
            "student": {"base": str(tiny_encoder), "max_length": 32},
            "students": {"labels": {"objective": "infonce"}, "distilled": {"objective": "kl"}},
        },
    )


@pytest.fixture(scope="module")
def candidates(config) -> Config:
    """Queries and candidates are there, as of a run that was stopped before its teachers."""
    context = RunContext(config, Workspace(config.out))
    choose_queries(context)
    retrieve_candidates(context)
    return config


def with_teacher(config: Config, **settings: object) -> Config:
    told = config.model_dump(by_alias=True)
    return validate(Config, {**told, "teacher": {**told["teacher"], **settings}})


@pytest.mark.parametrize("how", HOWS)
def test_the_way_that_is_configured_is_fitted_on_dev_and_makes_the_targets(candidates, how):
    config = with_teacher(candidates, fusion=how)
    facts = RunContext(config, Workspace(config.out)).ensemble.tune()
    assert 0 <= facts["dev_ndcg@10"] <= 1
    assert facts.get("fusion", "z_scores") == how
    written = json.loads((Path(config.out) / "teacher.json").read_text())
    assert written.get("combination", {"how": "z_scores"})["how"] == how
    if how == "learned":
        assert list(facts["weights"].values()) == [1.0, 1.0] and not facts["chosen_on_dev"]
    fused = RunContext(config, Workspace(config.out)).ensemble.fused(
        "test", Drops()
    )  # from the file
    assert fused and all(np.isfinite(list(found.values())).all() for found in fused.values())


def test_a_single_teacher_can_be_calibrated(candidates):
    config = with_teacher(candidates, fusion="calibrated", fuse_with=["bm25"])
    ensemble = RunContext(config, Workspace(config.out)).ensemble
    ensemble.tune()
    calibration = json.loads((Path(config.out) / "teacher.json").read_text())["combination"]
    fitted = calibration["calibrations"]["bm25"]
    drops = Drops()
    raw = ensemble.scores("test", "bm25")
    query, document = next((q, d) for q, found in raw.items() for d in found)
    expected = fitted["slope"] * raw[query][document] + fitted["intercept"]
    assert ensemble.fused("test", drops)[query][document] == pytest.approx(expected)


def test_choosing_another_way_repeats_nothing_before_the_weights(config):
    keys = [plan(with_teacher(config, fusion=how)).keys for how in HOWS]
    assert len({one["weights"] for one in keys}) == len(HOWS)
    assert len({one["try:bm25"] for one in keys}) == 1


def test_an_aggregation_is_part_of_the_key_of_the_weights(config, tiny_decoder):
    members = ["bm25", f"listwise:{tiny_decoder}"]
    plain = plan(with_teacher(config, fuse_with=members))
    named = plan(with_teacher(config, fuse_with=members, aggregate={members[1]: "borda"}))
    assert named.keys["weights"] != plain.keys["weights"]
    assert named.keys[f"try:{members[1]}"] == plain.keys[f"try:{members[1]}"]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"aggregate": {"pairwise:x": "borda"}}, "aggregate names 'pairwise:x'"),
        ({"aggregate": {"bm25": "borda"}}, "bm25 scores one by one"),
        (
            {"fuse_with": ["pairwise:x"], "aggregate": {"pairwise:x": "borda"}},
            "one of win_rate, copeland, bradley_terry",
        ),
        (
            {"fuse_with": ["listwise:x"], "aggregate": {"listwise:x": "copeland"}},
            "one of reciprocal_rank, borda",
        ),
        ({"fuse_with": [f"m{i}" for i in range(7)], "fusion": "learned"}, "6 teachers, not 7"),
        ({"fuse_with": ["bm25", "pairwise:x?pairs=uncertain&by=org/m"]}, "by=org/m; .*: bm25"),
        ({"fuse_with": ["bm25", "pairwise:x?pairs=uncertain"]}, "needs by=TEACHER; .*: bm25"),
        (
            {"fuse_with": ["pairwise:x", "pairwise:y?pairs=uncertain&by=pairwise:x"]},
            "by=pairwise:x; .*: none",
        ),
    ],
)
def test_teachers_that_could_not_do_what_is_said_are_refused_before_any_is_asked(
    config, settings, problem
):
    with pytest.raises(InputError, match=problem):
        with_teacher(config, **settings)


def test_a_pairwise_teacher_is_asked_and_aggregated_as_configured(candidates, tiny_decoder):
    """A decoder of random weights, about few enough candidates to compare all with all."""
    spec = f"pairwise:{tiny_decoder}?passage_tokens=16"
    told = {"fuse_with": [spec], "weights": [1.0]}
    plain = RunContext(with_teacher(candidates, **told), Workspace(candidates.out)).ensemble
    query, few = next((q, dict(list(f.items())[:3])) for q, f in plain.candidates("test").items())
    rates = plain.scores("test", spec, {query: few})[query]
    duels = with_teacher(candidates, **told, aggregate={spec: "copeland"})
    balances = RunContext(duels, Workspace(candidates.out)).ensemble.scores(
        "test", spec, {query: few}
    )[query]
    assert rates.keys() == balances.keys() == few.keys()
    assert all(0 < rate < 1 for rate in rates.values())
    assert set(balances.values()) <= {-1.0, -0.5, 0.0, 0.5, 1.0}


def test_what_a_teacher_took_is_noted_once(candidates, tiny_cross_encoder):
    config = with_teacher(candidates, fuse_with=[f"pointwise:{tiny_cross_encoder}"])
    ensemble = RunContext(config, Workspace(config.out)).ensemble
    [member] = ensemble.members
    asked = ensemble.score(member, ["dev"])
    assert ensemble.score(member, ["dev"])["scored"] == 0
    [key] = [k for k in ensemble.store.teachers() if k.model == str(tiny_cross_encoder)]
    usage = read_usage(ensemble.store.folder(key))
    assert usage.calls == asked["scored"] > 0 and usage.seconds > 0


def test_the_configuration_names_the_aggregations_that_there_are():
    assert get_args(AggregationName) == (*PAIR_AGGREGATIONS, *ORDER_AGGREGATIONS)


def test_answers_about_pairs_are_asked_for_the_students_that_learn_them(candidates, tiny_decoder):
    """Also of a teacher without a weight in the fused scores, as PairDistill's."""
    spec = f"pairwise:{tiny_decoder}?passage_tokens=16&pairs=adjacent"
    told = candidates.model_dump(by_alias=True)
    told["teacher"] |= {"fuse_with": ["bm25", spec], "weights": [1.0, 0.0]}
    pair = {"name": "pair_kl", "teacher": "pairs:1"}
    told["students"]["distilled"]["objective"] = [{"name": "kl"}, pair]
    config = validate(Config, told)
    context = RunContext(config, Workspace(config.out))
    context.ensemble.tune()
    [query, *_] = context.candidates("train")
    few = {query: context.candidates("train")[query]}
    listed, better = context.ensemble.pairs("train", 1, few)[query]
    assert set(few[query]) <= set(listed) and np.isfinite(better).sum() == 2 * (len(listed) - 1)
    assert context.ensemble.named_alone == {spec}
    told["students"]["distilled"]["objective"] = [{**pair, "teacher": "pairs:0"}]
    with pytest.raises(InputError, match="pairs:0 is bm25, which is not a pairwise teacher"):
        validate(Config, told)
    chosen = f"pairwise:{tiny_decoder}?passage_tokens=16&pairs=uncertain&most=2&by=bm25"
    told["teacher"] |= {"fuse_with": ["bm25", chosen], "weights": [0.0, 1.0]}
    told["students"]["distilled"]["objective"] = [pair]
    by = RunContext(validate(Config, told), Workspace(config.out)).ensemble
    assert by.pairs("train", 1, few)[query][0] == listed


def test_a_prompt_that_was_changed_is_another_teacher(config, tiny_decoder, tmp_path):
    prompt, keys = tmp_path / "mine.yaml", []
    asked = f"yesno:{tiny_decoder}?prompt={prompt}"
    for question in ("Is it?", "Is it so?"):
        prompt.write_text(f"user: '{question} {{query}} {{passage}}'\nanswers: ['yes', 'no']\n")
        keys.append(plan(with_teacher(config, fuse_with=["bm25", asked])).keys)
    assert keys[0][f"try:{asked}"] != keys[1][f"try:{asked}"]
    assert keys[0]["try:bm25"] == keys[1]["try:bm25"]
