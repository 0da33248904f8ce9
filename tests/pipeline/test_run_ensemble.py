"""The teachers of one run: teachers that choose pairs for others, latency, a single dev query."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from retrieval_kd.config.run import Config
from retrieval_kd.errors import InputError
from retrieval_kd.files import write_json
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.descriptions import cost_notes, teacher_notes
from retrieval_kd.pipeline.stages import choose_queries, retrieve_candidates, score_candidates
from retrieval_kd.schema import validate
from retrieval_kd.teachers.pointwise import retrievers as first_stage
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher
from retrieval_kd.workspace import Stage, Workspace

PARTS = ("train", "dev", "test", "unlabelled")


@pytest.fixture(scope="module")
def told(tmp_path_factory, tiny_collection, tiny_encoder) -> dict:
    """A run with its queries, and three candidates for two of them in each part; no scores."""
    values = {
        "name": "Members",
        "collection": str(tiny_collection),
        "out": str(tmp_path_factory.mktemp("members") / "run"),
        "encoder": str(tiny_encoder),
        "splits": {"dev": "dev"},
        "first_stage": {"with": "bm25", "depth": 3},
        "teacher": {"fuse_with": ["bm25"]},
        "student": {"base": str(tiny_encoder), "max_length": 32},
        "students": {"labels": {"objective": "infonce"}, "distilled": {"objective": "kl"}},
    }
    context = context_of(validate(Config, values))
    choose_queries(context)
    retrieve_candidates(context)
    for part in PARTS:
        two = dict(list(context.candidates(part).items())[:2])
        write_json(context.work.path("candidates", f"{part}.json"), two)
    return values


@pytest.fixture
def few(told, tmp_path) -> dict:
    """A copy of the run, to score in."""
    shutil.copytree(told["out"], tmp_path / "run")
    return {**told, "out": str(tmp_path / "run")}


def context_of(config: Config) -> RunContext:
    return RunContext(config, Workspace(config.out))


def taught(values: dict, **teacher: object) -> RunContext:
    return context_of(validate(Config, {**values, "teacher": teacher}))


def uncertain(decoder: object, by: object) -> str:
    return f"pairwise:{decoder}?passage_tokens=16&pairs=uncertain&most=2&by={by}"


def test_a_teacher_without_a_weight_is_asked_where_it_chooses_for_one_that_has(few, tiny_decoder):
    chosen = uncertain(tiny_decoder, "bm25")
    context = taught(few, fuse_with=["bm25", chosen])
    write_json(context.work.path("teacher.json"), {"weights": {"bm25": 0.0, chosen: 1.0}})
    ensemble = context.ensemble
    assert ensemble.score("bm25", ["test"])["scored"] == 6  # 2 queries × 3 candidates
    assert ensemble.score(chosen, ["test"])["scored"] == 8  # × 2 pairs in both orders


def test_who_chooses_is_asked_first_wherever_it_is_named(few, tiny_decoder):
    chosen = uncertain(tiny_decoder, "bm25")
    context = taught(few, fuse_with=[chosen, "bm25"])
    for member in (chosen, "bm25"):
        one = partial(context.ensemble.score, member, ["dev"])
        context.work.add(Stage(f"try:{member}", one, (), None))
    context.work.execute(lambda *_: None)
    first, second = (context.work.record(stage.name)["facts"] for stage in context.work.stages)
    assert (first["scored"], first["scored_to_choose"], second["scored"]) == (8, 6, 0)
    [told] = cost_notes(context.work)
    assert "scored 6 pairs" in told and "answered 8 questions" in told


def test_a_query_is_timed_with_the_teacher_that_chooses(few, tiny_decoder):
    chosen = uncertain(tiny_decoder, "bm25")
    context = taught(few, fuse_with=["bm25", chosen])
    write_json(context.work.path("teacher.json"), {"weights": {"bm25": 0.0, chosen: 1.0}})
    query, found = next(iter(context.candidates("test").items()))
    for asked in (4, 8):  # again for each: nothing is kept
        context.ensemble.answer(context.queries("test").texts[query], found)
        assert context.ensemble.timed[chosen].model.usage.calls == asked
    assert not context.ensemble.store.path.exists()


def test_who_chooses_goes_by_its_name_here_and_as_it_is_asked_now(
    few, tiny_decoder, tiny_cross_encoder
):
    """Not by its name in the store, which also has its scores with other settings."""
    named = f"pointwise:{tiny_cross_encoder}"
    shutil.copytree(tiny_cross_encoder, Path(few["out"], "teacher"))  # as if it was fitted
    fit = {"base": str(tiny_cross_encoder)}
    for by, members, length in (
        ("cross-encoder", {"fit": fit, "fuse_with": []}, 48),
        (named, {"fuse_with": [named]}, 48),
        (named, {"fuse_with": [named]}, 32),
    ):
        chosen = uncertain(tiny_decoder, by)
        told = {**members, "fuse_with": [*members["fuse_with"], chosen], "max_length": length}
        ensemble = taught(few, **told).ensemble
        assert ensemble.score(by, ["dev"])["pairs"] == 6
        assert ensemble.score(chosen, ["dev"])["pairs"] == 8


def test_a_run_reads_from_and_writes_to_a_store_that_exists(few, tmp_path):
    first = taught(few, fuse_with=["bm25"])
    assert first.ensemble.score("bm25", ["dev"])["scored"] == 6
    shared = Path(shutil.move(Path(few["out"], "scores"), tmp_path / "shared"))
    second = taught(few, fuse_with=["bm25"], store=str(shared))
    assert second.ensemble.score("bm25", ["dev"])["scored"] == 0
    write_json(second.work.path("teacher.json"), {"weights": {"bm25": 1.0}})
    assert second.ensemble.score("bm25", ["test"])["scored"] == 6
    assert not Path(few["out"], "scores").exists()
    with pytest.raises(InputError, match="is a file, and a score store is a folder"):
        taught(few, fuse_with=["bm25"], store=str(Path(few["out"], "teacher.json")))


@pytest.mark.parametrize("how", ["calibrated", "learned", "ranks"])
def test_one_judged_query_is_enough_to_tune_but_not_to_hold_some_out(few, how):
    context = taught(few, fuse_with=["bm25", f"dense:{few['encoder']}"], fusion=how)
    dev, candidates = context.queries("dev"), context.candidates("dev")
    query = next(q for q in candidates if any(dev.qrels[q].values()))
    one = {"texts": {query: dev.texts[query]}, "qrels": {query: dev.qrels[query]}, "sources": {}}
    write_json(context.work.path("queries", "dev.json"), one)
    write_json(context.work.path("candidates", "dev.json"), {query: candidates[query]})
    facts = context.ensemble.tune()
    assert (facts["dev_ndcg@10_held_out"] is None) == (how != "ranks")  # ranks fit nothing
    assert any(("too few" in note) == (how != "ranks") for note in teacher_notes(facts)[-1:])


def test_two_strategies_of_one_model_are_two_teachers(few, tiny_decoder):
    """Their answers share a folder of the store, and neither changes the other's scores."""
    every, near = (
        f"pairwise:{tiny_decoder}?passage_tokens=16&pairs={pairs}" for pairs in ("all", "adjacent")
    )
    ensemble = taught(few, fuse_with=[every, near]).ensemble
    for member in (every, near):
        ensemble.score(member, ["dev"])
    rates, strengths = (ensemble.scores("dev", member) for member in (every, near))
    assert all(0 < rate < 1 for found in rates.values() for rate in found.values())  # win rates
    for found in strengths.values():  # Bradley–Terry's
        assert sum(found.values()) == pytest.approx(0, abs=1e-6)
    candidates = ensemble.candidates("dev")
    for number, pairs in ((0, 6), (1, 4)):
        for listed, better in ensemble.pairs("dev", number, candidates).values():
            assert len(listed) == 3 and np.isfinite(better).sum() == pairs


def test_who_teaches_single_students_is_asked_for_them_and_not_about_test_queries(
    few, tiny_decoder
):
    """Test queries are ranked by the teachers with a weight alone."""
    dense, pairwise = f"dense:{few['encoder']}", f"pairwise:{tiny_decoder}?passage_tokens=16"
    told = {
        **few,
        "teacher": {"fuse_with": ["bm25", dense, pairwise], "weights": [1.0, 0.0, 0.0]},
        "students": {
            **few["students"],
            "of_dense": {"objective": "kl", "teachers": {dense: 1}},
            "of_pairs": {"objective": [{"name": "pair_kl", "teacher": "pairs:2"}]},
        },
    }
    context = context_of(validate(Config, told))
    write_json(
        context.work.path("teacher.json"), {"weights": {"bm25": 1.0, dense: 0.0, pairwise: 0.0}}
    )
    for member in ("bm25", dense, pairwise):
        train, both = (
            context.ensemble.score(member, ["train", *more])["pairs"] for more in ([], ["test"])
        )
        assert train > 0 and (both > train) == (member == "bm25")


@pytest.mark.parametrize("kind", ["bm25", "dense", "pointwise", "pairwise"])
def test_a_query_for_which_nothing_was_found_is_timed_too(
    few, kind, tiny_encoder, tiny_cross_encoder, tiny_decoder, monkeypatch
):
    """BM25 finds nothing for a query of unknown words; also in a big collection."""
    monkeypatch.setattr(first_stage, "WHOLE", 0)
    models = {"dense": tiny_encoder, "pointwise": tiny_cross_encoder, "pairwise": tiny_decoder}
    member = f"{kind}:{models[kind]}" if kind in models else kind
    context = taught(few, fuse_with=[member])
    write_json(context.work.path("teacher.json"), {"weights": {member: 1.0}})
    context.ensemble.answer("zzz", {})


def test_a_cross_encoder_orders_nothing_where_nothing_was_found(few, tiny_cross_encoder):
    collection = taught(few, fuse_with=["bm25"]).collection
    model = CrossEncoderTeacher(str(tiny_cross_encoder), max_length=32)
    assert score_candidates(model, collection, {"q": "zzz"}, {"q": {}}) == {}
