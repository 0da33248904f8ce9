"""Averaging the weights of models: what it gives, what it refuses, and what a run does with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from retrieval_kd.cli.app import app
from retrieval_kd.config.run import Config
from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json
from retrieval_kd.models.load import is_cross_encoder, load_cross_encoder, load_retriever
from retrieval_kd.pipeline.plan import plan, run
from retrieval_kd.schema import validate
from retrieval_kd.students.make import check_seeds_alike, make_student, saved_as
from retrieval_kd.training import merge
from retrieval_kd.training.merge import merge_saved, merge_with_start, state_of
from retrieval_kd.training.trainer.curve import DevTask
from tests.tiny_models import write_decoder, write_encoder

KINDS = ("dense", "sparse", "multi_vector", "interaction", "cross_encoder", "static", "residual")


@pytest.fixture(scope="module")
def documents(tiny_collection):
    return open_collection(str(tiny_collection)).documents


def load(folder: Path):
    load_one = load_cross_encoder if is_cross_encoder(str(folder)) else load_retriever
    return load_one(str(folder), dtype=torch.float32)


def moved(model, seed: int):
    """A model with other weights, as after a training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in filter(lambda one: one.requires_grad, model.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tiny_encoder, documents, tmp_path_factory):
    """Two trainings of a student of one kind."""
    folder = tmp_path_factory.mktemp(request.param)
    more = {"documents": documents} if request.param in ("static", "residual") else {}
    for seed in (1, 2):
        student = make_student(str(tiny_encoder), request.param, max_length=32, **more)
        moved(student, seed).save(str(folder / str(seed)))
    return request.param, folder / "1", folder / "2"


def test_a_merged_model_has_the_mean_of_all_weights_and_is_of_its_kind(pair, tmp_path):
    kind, one, other = pair
    merge_saved([str(one), str(other)], None, tmp_path / "mean")
    states = [state_of(load(folder)) for folder in (one, other)]
    merged = state_of(load(tmp_path / "mean"))
    for name, weights in merged.items():
        torch.testing.assert_close(weights, (states[0][name] + states[1][name]) / 2)
    assert saved_as(str(tmp_path / "mean")) == kind
    card = (tmp_path / "mean" / "README.md").read_text()
    assert f"The weights are 0.5 × {one} + 0.5 × {other}." in card


def test_a_share_of_one_is_the_model_itself(pair, tmp_path):
    _, one, other = pair
    merge_saved([str(one), str(other)], [0, 2], tmp_path / "same")
    merged, itself = state_of(load(tmp_path / "same")), state_of(load(other))
    assert all(torch.equal(merged[name], itself[name]) for name in itself)


def test_an_inference_free_student_is_merged_with_its_start(tiny_encoder, documents, tmp_path):
    def made():
        return make_student(str(tiny_encoder), "sparse", [0], documents=documents, query="idf")

    moved(made(), 1).save(str(tmp_path / "trained"))
    merge_with_start(tmp_path / "trained", made(), "ENCODER", 0.5, tmp_path / "out", None)
    states = [state_of(model) for model in (made(), load(tmp_path / "trained"))]
    for name, weights in state_of(load(tmp_path / "out")).items():
        torch.testing.assert_close(weights, (states[0][name] + states[1][name]) / 2)
    assert saved_as(str(tmp_path / "out")) == "sparse"


def test_three_models_have_their_shares(tmp_path, tiny_encoder):
    folders = [str(write_encoder(tmp_path / str(seed), seed=seed)) for seed in (1, 2, 3)]
    assert merge_saved(folders, [2, 1, 1], tmp_path / "out") == [0.5, 0.25, 0.25]
    states = [state_of(load(Path(folder))) for folder in folders]
    for name, weights in state_of(load(tmp_path / "out")).items():
        expected = 0.5 * states[0][name] + 0.25 * states[1][name] + 0.25 * states[2][name]
        torch.testing.assert_close(weights, expected)


def test_models_that_differ_in_more_than_weights_are_refused_with_the_first_difference(
    tiny_encoder, tiny_dot_encoder, tiny_cross_encoder, documents, tmp_path
):
    made = {
        "shallow": make_student(str(tiny_encoder), layers=[0, 1]),
        "sparse": make_student(str(tiny_encoder), "sparse"),
        "first": make_student(str(tiny_encoder)),
        **{
            f"seed{seed}": make_student(
                str(tiny_encoder), "residual", seed=seed, documents=documents
            )
            for seed in (0, 1)
        },
    }
    made["first"][1].pooling_mode = ("cls",)
    made["long"] = SentenceTransformer(modules=list(make_student(str(tiny_encoder)))[:2])
    for name, model in made.items():
        model.save(str(tmp_path / name))
    write_decoder(tmp_path / "decoder")
    for one, other, message in (
        (tiny_encoder, "shallow", "encoder.layer.2.* is missing there and has shape"),
        (tiny_encoder, "sparse", "one is a SparseEncoder, the other a SentenceTransformer"),
        (tiny_encoder, tiny_cross_encoder, "one is a CrossEncoder"),
        (tiny_encoder, tiny_dot_encoder, "similarity of the model is 'dot' there"),
        (tiny_encoder, "first", r"pooling_mode of module 1 \(Pooling\)"),
        (tiny_encoder, "long", r"module 2 \(Normalize\) is missing there"),
        ("seed0", "seed1", "drawn with different seeds"),
        (tiny_encoder, "decoder", "language model"),
    ):
        with pytest.raises(InputError, match=message):
            merge_saved([str(tmp_path / one), str(tmp_path / other)], None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("shares", "message"), [([1], "1 shares of 2"), ([-1, 2], "not be negative"), ([0, 0], "above")]
)
def test_shares_that_mean_nothing_are_refused(shares, message, tiny_encoder, tmp_path):
    with pytest.raises(InputError, match=message):
        merge_saved([str(tiny_encoder)] * 2, shares, tmp_path / "out")


def test_the_best_share_on_dev_is_taken(tiny_encoder, tmp_path, monkeypatch):
    moved(make_student(str(tiny_encoder)), 1).save(str(tmp_path / "trained"))
    start = make_student(str(tiny_encoder))
    measured = iter((0.4, 0.6, 0.6, 0.1))  # of the shares 1, 0.7, 0.5, 0.3
    monkeypatch.setattr(DevTask, "ndcg", lambda *_: next(measured))
    dev = DevTask({"q": "moon"}, {"q": {"d": 1}}, ["d"], ["the moon"])
    facts = merge_with_start(tmp_path / "trained", start, "ENCODER", "dev", tmp_path / "out", dev)
    assert facts["share"] == 0.7
    assert facts["merged_dev_ndcg@10"] == {"1": 0.4, "0.7": 0.6, "0.5": 0.6, "0.3": 0.1}
    trained, begun = state_of(load(tmp_path / "trained")), state_of(start)
    for name, weights in state_of(load(tmp_path / "out")).items():
        torch.testing.assert_close(weights, 0.7 * trained[name] + 0.3 * begun[name])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "0.7 × the trained student + 0.3 × its start, ENCODER" in card


def test_a_merge_that_is_stopped_leaves_what_was_there(tiny_encoder, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(merge, "seal", stop)
    with pytest.raises(KeyboardInterrupt):
        merge_saved([str(tiny_encoder)] * 2, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_merges_models_and_says_what_it_cannot_read(tiny_encoder, tmp_path):
    def rkd(*words):
        return CliRunner().invoke(app, ["merge", *map(str, words), "--out", str(tmp_path / "out")])

    assert "cannot read the shares" in repr(rkd(tiny_encoder, tiny_encoder, "--share", "1;2"))
    assert "no shares" in repr(rkd(tiny_encoder, "--share", "1").exception)
    assert rkd(tiny_encoder, tiny_encoder, "--share", "3,1").exit_code == 0
    assert "something already" in repr(rkd(tiny_encoder, tiny_encoder).exception)


@pytest.fixture(scope="module")
def given(tiny_collection, tiny_encoder, tmp_path_factory):
    return {
        "name": "n", "collection": str(tiny_collection), "encoder": str(tiny_encoder),
        "out": str(tmp_path_factory.mktemp("run")), "splits": {"dev": "dev", "dev_queries": 10},
        "first_stage": {"with": "bm25", "depth": 6}, "teacher": {"model": "bm25"},
        "student": {"base": str(tiny_encoder), "layers": [0, 3], "max_length": 16},
        "train": {"steps": 2, "batch_queries": 4, "slate_size": 2, "max_tokens": 16},
        "students": {"one": {"objective": "kl", "merge": {"with": "start", "share": "dev"}}},
        "compare": ["one", "encoder"],
    }  # fmt: skip


def test_a_run_searches_with_the_average_and_trains_once(given):
    config = validate(Config, given)
    run(config)
    out = Path(config.out)
    folder = out / "students" / "one-seed0-merged"
    assert "chosen on dev" in (out / "report.html").read_text()
    share = plan(config).record("merge:one-seed0")["facts"]["share"]
    start = state_of(make_student(given["encoder"], layers=[0, 3], max_length=16))
    trained = state_of(load(folder.with_name("one-seed0")))
    for name, weights in state_of(load(folder)).items():
        torch.testing.assert_close(weights, share * trained[name] + (1 - share) * start[name])
    assert plan(config).todo() == []
    half = validate(Config, {**given, "students": {"one": {"objective": "kl", "merge": {}}}})
    todo = [stage.name for stage in plan(half).todo()]
    assert "merge:one-seed0" in todo and not any(name.startswith("train:") for name in todo)


def test_a_share_cannot_be_chosen_without_dev_queries_or_for_a_re_ranker(given):
    with pytest.raises(InputError, match="chosen on dev queries"):
        validate(Config, {**given, "splits": {}})
    with pytest.raises(InputError, match="not tried on dev"):
        validate(Config, {**given, "student": {**given["student"], "kind": "cross_encoder"}})


def test_the_average_of_all_seeds_is_one_more_system(given, tmp_path):
    students = {"one": {"objective": "kl", "merge": {"with": "seeds"}}}
    changed = {"out": str(tmp_path), "students": students, "seeds": [0, 1], "widths": [8]}
    config = validate(Config, {**given, **changed})
    assert list(config.systems) == ["one", "one@8", "one-merged", "one-merged@8"]
    run(config)
    states = [state_of(load(tmp_path / "students" / f"one-seed{seed}")) for seed in (0, 1)]
    assert any((states[0][name] != states[1][name]).any() for name in states[0])
    merged = tmp_path / "students" / "one-merged"
    for name, weights in state_of(load(merged)).items():
        torch.testing.assert_close(weights, (states[0][name] + states[1][name]) / 2)
    assert "0.5 × the student of seed 0" in (merged / "README.md").read_text()
    results = read_json(tmp_path / "results.json")
    for system in ("one-merged", "one-merged@8"):
        assert len(results["systems"][system]["ndcg@10"]["per_seed"]) == 1
        assert results["costs"][system]["latency_ms_p50"] > 0
    seconds = [results["costs"][name]["training_seconds"] for name in ("one", "one-merged")]
    assert seconds[1] > seconds[0]
    assert "the average of 2 seeds" in (tmp_path / "report.html").read_text()
    assert plan(config).todo() == []


def test_seeds_that_cannot_be_averaged_are_refused_before_anything_runs(given, tmp_path):
    def students(kind="dense", **merge):
        own = {"objective": "kl", "merge": {"with": "seeds", **merge}}
        return {"one": {**own, "student": {"kind": kind, "layers": None}}}

    changed = {**given, "out": str(tmp_path), "seeds": [0, 1]}
    with pytest.raises(InputError, match="there is one seed"):
        validate(Config, {**changed, "seeds": [3], "students": students()})
    with pytest.raises(InputError, match="leave `share` out"):
        validate(Config, {**changed, "students": students(share=0.3)})
    with pytest.raises(InputError, match="'one-merged' is already the name"):
        both = {**students(), "one-merged": {"objective": "kl"}}
        validate(Config, {**changed, "students": both})
    with pytest.raises(InputError, match=r"each seed of a residual student .* means nothing"):
        plan(validate(Config, {**changed, "students": students("residual")}))


def test_students_that_each_seed_starts_differently_are_averaged_only_from_one_of_their_kind(
    pair, tiny_encoder, documents
):
    kind, saved, _ = pair
    more = {"documents": documents} if kind in ("static", "residual") else {}
    for base in (str(tiny_encoder), str(saved)):
        one, other = (state_of(make_student(base, kind, seed=seed, **more)) for seed in (0, 1))
        if any(not torch.equal(one[name], other[name]) for name in one):
            assert base == str(tiny_encoder)
            with pytest.raises(InputError, match="starts from other random weights"):
                check_seeds_alike(base, kind)
    check_seeds_alike(str(saved), kind)


def test_seeds_with_projections_of_their_own_are_not_averaged(tiny_encoder):
    check_seeds_alike(str(tiny_encoder), "dense", 32)
    with pytest.raises(InputError, match="other random weights"):
        check_seeds_alike(str(tiny_encoder), "dense", 48)
