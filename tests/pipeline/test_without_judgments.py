"""A run on documents alone: no judgment is trained on, and every student is worth its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from retrieval_kd.config.run import load_config
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import read_run
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.files import read_sealed
from retrieval_kd.pipeline.plan import plan, planned, run
from retrieval_kd.pipeline.queries import ChosenQueries
from retrieval_kd.schema import read_extended
from tests.pipeline.shrinking import CONFIGS, shrunk, written
from tests.tiny_models import write_collection

IMITATING = (
    "students.static={uses_unlabelled: false, texts: [WHAT], "
    "objective: [{name: embedding_cosine, teacher: org/model}]}"
)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, tiny_collection, tiny_encoder) -> Path:
    encoder, own = str(tiny_encoder), read_extended(CONFIGS / "adapt.yaml")
    config = shrunk(
        "adapt.yaml",
        tiny_collection,
        tiny_encoder,
        splits=own["splits"],
        train=own.get("train", {}),
        first_stage={"with": f"bm25+{encoder}", "depth": 12},
        teacher={**own["teacher"], "fuse_with": ["bm25", f"dense:{encoder}"]},
        student={"base": encoder, "max_length": 32},
    )
    config["unlabelled"]["limit"] = 20
    for student in config["students"].values():
        student["student"]["dimensions"] = 256
    config["students"]["asymmetric"] = {
        "student": {"kind": "asymmetric"},
        "objective": [{"name": "kl"}, {"name": "kl", "candidates": "collection"}],
    }  # fmt: skip
    config["students"]["saturated"] = {
        "student": {"kind": "static", "options": {"saturate": True}, "dimensions": 256},
        "objective": "kl@batch",
    }
    for student in config["students"].values():
        student["train"] = {"steps": 6, "batch_queries": 8, "eval_steps": 3}
    return written(config, tmp_path_factory.mktemp("adapt"))


def test_no_judgment_and_no_test_query_is_trained_on(finished):
    out = Path(finished.out)
    parts = {
        part: json.loads((out / "queries" / f"{part}.json").read_text())
        for part in ("train", "dev", "test", "unlabelled")
    }
    assert parts["train"]["texts"] == parts["dev"]["texts"] == {}
    assert parts["unlabelled"]["qrels"] == {} and len(parts["unlabelled"]["texts"]) == 20
    texts = [document.full for document in open_collection(finished.collection).documents.iterate()]
    assert all(
        any(query in text for text in texts) for query in parts["unlabelled"]["texts"].values()
    )


def test_every_student_has_its_quality_size_and_time_in_the_results(finished):
    results = json.loads((Path(finished.out) / "results.json").read_text())
    for name in finished.students:
        assert 0 < results["systems"][name]["ndcg@10"]["mean"] <= 1
        costs = results["costs"][name]
        assert costs["training_seconds"] is not None and costs["latency_ms_p50"] > 0
        assert costs["bytes_per_document"] > 4 * (32 if name == "asymmetric" else 256)
    assert "chosen without judgments" in (Path(finished.out) / "report.html").read_text()


def test_teachers_are_weighed_by_how_they_find_documents_that_a_sentence_was_cut_out_of(finished):
    """The tiny encoder is random, so BM25 gets most of the weight."""
    teacher = json.loads((Path(finished.out) / "results.json").read_text())["teacher"]
    bm25, encoder = (teacher["weights"][member] for member in finished.teacher.members)
    assert bm25 + encoder == pytest.approx(1) and bm25 > encoder
    alone = list(teacher["cloze_ndcg@10_alone"].values())
    assert alone[0] > alone[1] and teacher["cloze_queries"] == 60
    assert not any("dev" in fact for fact in teacher)


def test_a_teacher_that_cloze_dropped_is_not_said_to_have_been_tried_on_dev(finished, monkeypatch):
    context, member = planned(finished), finished.teacher.members[1]
    monkeypatch.setattr(type(context.ensemble), "used", [])
    facts = context.ensemble.score(member, ["train", "test"])
    assert facts == {"teacher": member, "skipped": "weight 0 on cut documents"}


def test_short_texts_are_refused_before_anything_runs(config_file, tmp_path):
    lines = [json.dumps({"_id": f"d{n}", "text": f"short text {n}"}) for n in range(50)]
    long = [json.dumps({"_id": f"l{n}", "text": f"{n} long word " * 12}) for n in range(19)]
    write_collection(tmp_path / "short")
    (tmp_path / "short" / "corpus.jsonl").write_text("\n".join([*lines, *long]) + "\n")
    (tmp_path / "short" / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq-birds4\td1\t1\n"
    )
    for name in ("train", "dev"):
        (tmp_path / "short" / "qrels" / f"{name}.tsv").unlink()
    config = load_config(config_file, [f"collection={tmp_path / 'short'}", f"out={tmp_path / 'o'}"])
    with pytest.raises(InputError, match=r"needs 20 .* there are 19.*teacher\.weights=\[1, 1\]"):
        plan(config)
    plan(load_config(config_file, [f"collection={tmp_path / 'short'}", f"out={tmp_path / 'o'}",
                                   "teacher.weights=[1, 1]"]))  # fmt: skip


def test_teachers_weigh_the_same_where_nothing_says_otherwise(config_file, finished, tmp_path):
    """Only what depends on the weights runs again."""
    shutil.copytree(finished.out, tmp_path / "run")
    ran: list[str] = []
    config = load_config(config_file, [f"out={tmp_path / 'run'}", "teacher.weights=null"])
    run(config, lambda stage, done, place: None if done else ran.append(stage.name))
    assert not {"queries", "candidates", "search:bm25", "cloze"} & {*ran} and "weights" in ran
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["teacher"] == {
        "weights": dict.fromkeys(finished.teacher.members, 1.0),
        "chosen_on_dev": False,
    }
    assert "no dev queries" in (tmp_path / "run" / "report.html").read_text()


def test_the_words_of_a_residual_student_help_an_encoder_that_knows_none(finished):
    """The tiny encoder is random; BM25 is not, and the student has a sketch of it."""
    means = json.loads((Path(finished.out) / "results.json").read_text())["systems"]
    found = {name: means[name]["ndcg@10"]["mean"] for name in ("bm25", "encoder", "residual")}
    assert found["residual"] > found["encoder"] + 0.2 * (found["bm25"] - found["encoder"])


def test_an_index_is_searched_as_plain_sentence_transformers_ranks(finished):
    out, name = Path(finished.out), "static-seed0"
    model = SentenceTransformer(str(out / "students" / name))
    collection = open_collection(finished.collection)
    texts = [document.full for document in collection.documents.iterate()]
    queries = collection.query_texts("test")
    scores = model.similarity(model.encode(list(queries.values())), model.encode(texts)).numpy()
    searched = read_run(out / "runs" / f"{name}.trec").results
    for row, query in zip(scores, queries, strict=True):
        best = next(iter(searched[query]))
        at = collection.documents.position(best)
        assert row[at] == pytest.approx(np.max(row), abs=1e-5)


def test_an_asymmetric_students_index_is_the_encoders(finished):
    """The same vectors, so the same bytes; and no document was encoded again for it."""
    out = Path(finished.out)
    own, encoders = (read_sealed(out / "indexes" / name / "manifest.json") for name in
                     ("asymmetric-seed0", "encoder"))  # fmt: skip
    assert own["files"]["index.faiss"] == encoders["files"]["index.faiss"]
    assert own["model_digest"] == encoders["model_digest"] and own["model"] != encoders["model"]
    systems = json.loads((out / "results.json").read_text())["costs"]
    assert systems["asymmetric"]["documents_per_second"] is None


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("unlabelled=null", "without splits.train, set unlabelled.kind"),
        ("unlabelled.kind=queries", "without splits.train, set unlabelled.kind"),
        ("students.static.objective=infonce@batch", "infonce_batch needs judgments"),
        ("students.static.uses_unlabelled=false", "a stage has no query to train on"),
        (IMITATING.replace("WHAT", "queries"), "a stage has no query to train on"),
        ("students.static.student.layers=[0]", "a static student has no layers to keep"),
        ("students.residual.objective=kl(dimensions=[8])@batch", "cannot be cut"),
        ("students.asymmetric.objective=kl(dimensions=[8])@batch", "cannot be cut"),
        ("students.asymmetric.student.dimensions=8", "no `dimensions`"),
        ("students.asymmetric.student.layers=[0]", "has no layers to keep"),
        (
            "students.asymmetric={student: {kind: asymmetric}, live: {t: {model: org/model}}, "
            "objective: [{name: kl, teacher: t}]}",
            "without any transformer: no `live`",
        ),
        ("students.residual.objective=embedding_mse(teacher=org/model)", "without any"),
        ("teacher={fuse_with: [bm25], fusion: learned}", "fitted on judgments"),
        ("teacher.fusion=calibrated", "weights: cloze is for runs without judgments"),
        ("teacher.fuse_with=[bm25]", "weights: cloze weighs several teachers"),
        ("teacher={fit: {base: org/model}}", "no teacher can be fine-tuned"),
        ("teacher.fit.base=org/model", "weights: cloze is for runs without judgments"),
    ],
)
def test_what_needs_judgments_is_refused_before_anything_runs(config_file, override, problem):
    with pytest.raises(InputError, match=problem):
        load_config(config_file, [override])


def test_a_log_is_trained_on_without_the_queries_that_are_tested(config_file, finished, tmp_path):
    collection = open_collection(finished.collection)
    tested = collection.query_texts("test")
    file = tmp_path / "log.txt"
    file.write_text(
        "\n".join([*tested.values(), "the birds of the sea", "red stars", "Red stars!", ""])
    )
    wanted = ["unlabelled.kind=queries", f"out={tmp_path / 'run'}"]
    context = planned(load_config(config_file, [*wanted, f"unlabelled.log={file}"]))
    drops = Drops()
    parts = ChosenQueries(context.config, collection).parts(drops)
    assert [*parts["unlabelled"].texts.values()] == ["the birds of the sea", "red stars"]
    assert drops.counts["repeated query"] == 1
    assert drops.counts["logged query with the text of a test query"] == len({*tested.values()})

    context = planned(load_config(config_file, [*wanted, "unlabelled.log=train"]))
    parts = ChosenQueries(context.config, collection).parts(Drops())
    train = collection.query_texts("train")
    assert parts["unlabelled"].texts.items() <= train.items() and not parts["unlabelled"].qrels


def test_another_log_repeats_the_run(config_file, tmp_path):
    file = tmp_path / "log.txt"
    keys = []
    for text in ("the birds of the sea", "red stars"):
        file.write_text(text)
        overrides = ["unlabelled.kind=queries", f"unlabelled.log={file}", f"out={tmp_path / 'run'}"]
        keys.append(plan(load_config(config_file, overrides)).keys["queries"])
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("test", r"a split that the run uses.*name another log"),
        ("dve", r"neither a file nor a split of the collection \(dev, test, train\)"),
        ("no/log.tsv", "neither a file nor a split"),
    ],
)
def test_a_log_that_cannot_be_one_is_refused_before_anything_runs(
    config_file, tmp_path, log, message
):
    overrides = ["unlabelled.kind=queries", f"unlabelled.log={log}", f"out={tmp_path / 'run'}"]
    with pytest.raises(InputError, match=message):
        plan(load_config(config_file, overrides))


def test_a_log_of_sentences_is_refused(config_file):
    with pytest.raises(InputError, match="a log is of kind queries, not sentences"):
        load_config(config_file, ["unlabelled.log=train"])


def test_a_stage_over_documents_needs_no_query(config_file):
    assert load_config(config_file, [IMITATING.replace("WHAT", "documents")])
