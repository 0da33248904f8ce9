"""Teachers as users make them: by `rkd fit-teacher`, of one collection or several, or `rkd run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval_kd.cli.app import main
from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import FitTeacher
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run, read_run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.stages import (
    choose_queries,
    fine_tune_teacher,
    retrieve_candidates,
)
from retrieval_kd.pipeline.train_stored import fit_stored
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.schema import validate
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.spec import open_teacher
from retrieval_kd.workspace import Workspace
from tests.students.stopping import assert_same_after_a_stop
from tests.tiny_models import write_collection

FEW = {"steps": 2, "batch_queries": 2, "slate_size": 2}


def rkd(*arguments: object, fails: bool = False) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert bool(end.value.code) == fails


def test_a_store_is_distilled_into_an_adapter_which_is_merged_and_scores(
    tiny_collection, tiny_decoder, tmp_path
):
    collection = open_collection(str(tiny_collection))
    queries = collection.query_texts("train")
    found = bm25_run(collection, queries, 4).results
    write_run(Run("bm25", dict(list(found.items())[:4])), tmp_path / "run.trec")
    data = ("--collection", tiny_collection, "--candidates", tmp_path / "run.trec")
    store = ("--store", tmp_path / "store")
    rkd("score", *data, *store, "--teacher", "bm25")
    asked = ("--base", f"yesno:{tiny_decoder}", "--max-length", 9, "--steps", 2)
    learnt = ("--teacher", "bm25", "--objective", "ranknet", "--lora", 2, "--lora-targets")
    few = ("--set", "batch_queries=2", "--set", "slate_size=2")
    out = tmp_path / "small"
    rkd("fit-teacher", *data, *store, *asked, *learnt, "q_proj,v_proj", *few, "--out", out)
    record = json.loads((out / "training.json").read_text())
    assert record["lora"]["targets"] == ["q_proj", "v_proj"]
    assert record["terms"][0]["name"] == "ranknet" and record["settings"]["max_tokens"] == 9
    rkd("merge", out, "--out", tmp_path / "merged")
    for folder in (out, tmp_path / "merged"):
        rkd("score", *data, *store, "--teacher", f"yesno:{folder}")
    scored = ScoreStore(tmp_path / "store")
    keys = [key for key in scored.teachers() if key.model != "bm25"]
    assert len({key.fingerprint for key in keys}) == 2  # same scores, but not the same bytes
    one, other = (scored.read(key)["score"].to_numpy() for key in keys)
    assert one == pytest.approx(other, abs=0.05)  # bfloat16, where the machine is fast in it
    assert len(one) == sum(map(len, read_run(tmp_path / "run.trec").results.values()))


def test_what_its_options_cannot_mean_is_said(tiny_collection, tiny_decoder, capfd, tmp_path):
    data = ("--collection", tiny_collection, "--candidates", "none.trec", "--out", tmp_path / "o")
    for base, more, message in (
        (f"yesno:{tiny_decoder}", ("--set", "max_tokens=9"), "--max-length"),
        (f"yesno:{tiny_decoder}", ("--lora-alpha", "4"), "add --lora 8"),
        (tiny_decoder, ("--lora", "4"), "yesno:MODEL"),
        ("bm25", (), "not fine-tuned"),
    ):
        rkd("fit-teacher", *data, "--base", base, *more, fails=True)
        assert message in capfd.readouterr().err


def test_a_configuration_fine_tunes_a_decoder_and_asks_it(
    tiny_collection, tiny_decoder, tiny_encoder, tmp_path
):
    base = f"yesno:{tiny_decoder}?passage_tokens=9"
    config = Config(
        name="Tiny",
        collection=str(tiny_collection),
        out=str(tmp_path / "run"),
        encoder=str(tiny_encoder),
        splits={"dev": "dev", "dev_queries": 10},
        first_stage={"with": "bm25", "depth": 4},
        teacher={"fit": {"base": base, "lora": {"rank": 2}, "train": FEW}},
        student={"base": str(tiny_encoder)},
        students={name: {"objective": "kl"} for name in ("distilled", "labels")},
    )
    work = Workspace(config.out)
    context = RunContext(config, work)
    for step in (choose_queries, retrieve_candidates, fine_tune_teacher):
        step(context)
    [member] = context.ensemble.members
    facts = context.ensemble.score(member, ["dev"])
    assert facts["scored"] == sum(map(len, context.candidates("dev").values()))
    fitted = open_teacher(f"yesno:{tmp_path / 'run' / 'teacher'}", context.collection)
    assert facts["fingerprint"] == fitted.key.fingerprint and fitted.key.max_length == 9


def test_adapters_are_refused_for_what_is_no_decoder(tiny_encoder):
    with pytest.raises(InputError, match="yesno:MODEL"):
        validate(FitTeacher, {"base": str(tiny_encoder), "lora": {"rank": 2}})


def test_folders_of_others_are_no_adapters_of_ours(tmp_path: Path):
    (tmp_path / "plain").mkdir()
    rkd("merge", tmp_path / "plain", "--out", tmp_path / "merged", fails=True)
    assert not (tmp_path / "merged").exists()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> dict[str, Path]:
    """Two collections of equal IDs with different texts, and a run of each one's train split."""
    folder = tmp_path_factory.mktemp("two")
    at = {"a": write_collection(folder / "a"), "b": write_collection(folder / "b", 7)}
    corpus = at["b"] / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("sparrow", "robin").replace("hawk", "eagle"))
    for name in ("a", "b"):
        collection = open_collection(str(at[name]))
        at[f"{name}.trec"] = folder / f"{name}.trec"
        run = bm25_run(collection, collection.query_texts("train"), 6)
        write_run(run, at[f"{name}.trec"])
    return at


def test_a_teacher_learns_from_two_collections_and_continues(two, tiny_encoder, tmp_path):
    def run(out: Path) -> dict:
        settings = {"steps": 8, "batch_queries": 4, "slate_size": 3, "save_steps": 4}
        specs, runs = [str(two[n]) for n in "ab"], [two[f"{n}.trec"] for n in "ab"]
        return fit_stored(
            specs, "train", str(tiny_encoder), "infonce", settings, out, candidates=runs
        )

    record = assert_same_after_a_stop(run, tmp_path)
    assert record["collections"] == {"a": 18, "b": 18} and record["queries"] == 36
    assert "36 queries of a and b" in (tmp_path / "whole" / "README.md").read_text()


def test_one_store_has_the_scores_of_several_collections(two, tiny_cross_encoder, tmp_path, capfd):
    store = ("--store", tmp_path / "store")
    for name in "ab":
        data = ("--collection", two[name], "--candidates", two[f"{name}.trec"])
        rkd("score", *data, *store, "--teacher", tiny_cross_encoder)
    data = [word for name in "ab" for word in ("--collection", two[name])]
    few = ("--steps", 2, "--set", "batch_queries=4", "--set", "slate_size=3")
    made = ("--base", tiny_cross_encoder, "--objective", "kl", "--out", tmp_path / "small")
    capfd.readouterr()
    rkd("fit-teacher", *data, *store, *made, *few)
    assert "2 steps on 36 queries of a and b" in capfd.readouterr().out


def test_a_query_without_candidates_is_not_learnt_from(two, tiny_cross_encoder, tmp_path, caplog):
    """Its relevant documents alone would teach nothing."""
    found = read_run(two["a.trec"]).results
    write_run(Run("part", dict(list(found.items())[:5])), tmp_path / "part.trec")
    record = fit_stored(
        [str(two["a"])], "train", str(tiny_cross_encoder), "infonce", FEW, tmp_path / "out",
        candidates=[tmp_path / "part.trec"],
    )  # fmt: skip
    assert record["queries"] == 5 and "collections" not in record
    assert "training on a/train: 13 × judged query without candidates" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--collection {a} --collection {b} --candidates {a.trec}", "2 × --collection, but 1 ×"),
        ("--collection {a} --collection {a} --candidates {a.trec} --candidates {a.trec}", "twice"),
        ("--collection {a} --candidates no.trec", "no.trec: no such file"),
        ("{both} --split dev", "a.trec: a/dev: none of its queries is in this split"),
        ("{both} --split tset", "collection a has no split 'tset'"),
        ("--collection {a} --collection {b}", "a/train: nothing to train on"),
        ("{both} --objective kl", "a/train: the training needs teacher scores"),
        ("--collection {a} --collection {c} --candidates {a.trec} --candidates {b.trec}",
         "collection c has no split 'train'"),
        ("--collection {b} --collection {a} --candidates {a.trec} --candidates {b.trec}",
         "not in collection b"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_is_said_of_its_collection(two, arguments, problem, tmp_path, capfd):
    """Before a model is loaded: there is none."""
    test_only = write_collection(tmp_path / "c")
    for split in ("train", "dev"):
        (test_only / "qrels" / f"{split}.tsv").unlink()
    both = "--collection {a} --collection {b} --candidates {a.trec} --candidates {b.trec}"
    words = arguments.replace("{both}", both)
    for name, place in {**two, "c": test_only}.items():
        words = words.replace(f"{{{name}}}", str(place))
    rkd("fit-teacher", *words.split(), "--base", "no/model", "--out", tmp_path / "o", fails=True)
    said = capfd.readouterr().err
    assert problem in said and "To fix" in said and not (tmp_path / "o").exists()
