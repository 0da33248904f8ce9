"""Training of static, residual, asymmetric and adapter students: no transformer takes part."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from retrieval_kd.cli.app import app
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import write_run
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.models.encode import document_vectors
from retrieval_kd.models.load import load_retriever
from retrieval_kd.retrieval.bm25 import bm25_run, bm25_scores
from retrieval_kd.students.make import make_student, saved_as
from retrieval_kd.students.student import student_of
from retrieval_kd.training.batches.pools import build_pools
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.objective.terms import parse_terms
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.train_table import _Training
from retrieval_kd.training.trainer.curve import build_dev_task
from retrieval_kd.training.trainer.settings import TrainSettings

SETTINGS = TrainSettings(
    steps=12, batch_queries=8, slate_size=4, learning_rate=5e-3, eval_steps=4, warmup=0.1
)
TEXT = ["tides and the moon"]


@pytest.fixture(scope="module")
def collection(tiny_collection):
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def pools(collection):
    queries = collection.query_texts("train")
    run = bm25_run(collection, queries, 12)
    scores = bm25_scores(collection, queries, {q: list(found) for q, found in run.results.items()})
    return build_pools(queries, run.results, collection, collection.qrels("train"), scores, Drops())


def job(
    tiny_encoder,
    collection,
    pools,
    out,
    *,
    kind="static",
    terms="kl@batch",
    options=None,
    **changes,
):
    student = make_student(
        str(tiny_encoder),
        kind,
        dimensions=64 if kind in ("static", "residual") else None,
        max_length=64,
        options=options,
        documents=collection.documents,
    )
    settings = SETTINGS.model_copy(update=changes)
    first = bm25_run(collection, collection.query_texts("dev"), 12)
    dev = build_dev_task(collection, collection.query_texts("dev"), collection.qrels("dev"), first)
    return TrainingJob(
        student, pools, collection.documents, parse_terms(terms), settings, out, dev=dev,
        teacher_length=64,
    )  # fmt: skip


@pytest.mark.parametrize("terms", ["kl@batch", "kl", "margin_mse", "kl@batch+infonce@batch"])
def test_the_loss_falls_under_every_objective(terms, tiny_encoder, collection, pools, tmp_path):
    every = {"batch_queries": len(pools), "sampling": "hardest"}  # the same slates in each step
    changes = {"steps": 40, "learning_rate": 1e-3, **every}
    record = train_student(
        job(tiny_encoder, collection, pools, tmp_path / "out", terms=terms, **changes)
    )
    losses = [
        sum(v for name, v in point.items() if name not in ("step", "dev_ndcg@10"))
        for point in record["curve"][1:]
    ]
    assert losses[-1] < losses[0]
    assert record["steps"] == 40 and record["queries"] == len(pools)
    assert json.loads((tmp_path / "out" / "training.json").read_text()) == record


@pytest.mark.parametrize("kind", ["static", "residual", "asymmetric", "adapter"])
def test_the_same_job_ends_in_the_same_student_and_is_not_run_twice(
    kind, tiny_encoder, collection, pools, tmp_path, monkeypatch
):
    made = []
    for name in ("one", "other"):
        train_student(job(tiny_encoder, collection, pools, tmp_path / name, kind=kind))
        made.append(load_retriever(str(tmp_path / name)).encode_query(["tides and the moon"]))
    np.testing.assert_array_equal(*made)
    monkeypatch.setattr("retrieval_kd.training.train_table._Training.run", None)  # not called
    again = train_student(job(tiny_encoder, collection, pools, tmp_path / "one", kind=kind))
    assert again["steps"] == 12


def test_a_saturated_static_student_learns_and_is_saved_as_it_was_trained(
    tiny_encoder, collection, pools, tmp_path
):
    every = {"batch_queries": len(pools), "sampling": "hardest", "steps": 40}
    options = {"saturate": True}
    training = job(
        tiny_encoder, collection, pools, tmp_path / "out", options=options, learning_rate=1e-3,
        **every,
    )  # fmt: skip
    record = train_student(replace(training, dev=None))
    losses = [sum(v for n, v in point.items() if n != "step") for point in record["curve"][1:]]
    assert losses[-1] < losses[0]
    trained = _Training(training, student_of(training.student))
    rows = np.arange(len(collection.documents))
    wanted = trained.student.represent(trained.documents.bags.take(rows).features(), "document")
    wanted = torch.nn.functional.normalize(wanted["vector"].detach(), dim=1).numpy()
    found = document_vectors(str(tmp_path / "out"), collection.documents)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_best_point_on_dev_is_kept(tiny_encoder, collection, pools, tmp_path, monkeypatch):
    seen = []

    def measured(training, step):
        seen.append(training._state()[0].clone())
        return {"step": step, "dev_ndcg@10": {0: 0.1, 4: 0.9, 8: 0.3, 12: 0.2}[step]}

    monkeypatch.setattr("retrieval_kd.training.train_table._Training._point", measured)
    training = job(tiny_encoder, collection, pools, tmp_path / "out")
    train_student(training)
    rows = training.student[0].embedding.weight.detach()
    unit = torch.nn.functional.normalize(rows, dim=1)
    at_best, at_end = (torch.nn.functional.normalize(s, dim=1) for s in (seen[1], seen[3]))
    torch.testing.assert_close(unit, at_best, atol=1e-4, rtol=0)
    assert not torch.allclose(unit, at_end, atol=1e-4)


def test_only_weights_and_scale_of_a_residual_student_change(
    tiny_encoder, collection, pools, tmp_path
):
    training = job(tiny_encoder, collection, pools, tmp_path / "out", kind="residual", terms="kl")
    module = training.student.embedding
    vectors = module.table.vectors.detach().clone()
    weights = module.table.log_weights.detach().clone()
    encoder = [p.detach().clone() for p in module.encoder.parameters()]
    train_student(replace(training, dev=None))  # the last point, however good the first is on dev
    torch.testing.assert_close(module.table.vectors, torch.nn.Parameter(vectors))
    assert (module.table.log_weights != weights).any()
    for now, then in zip(module.encoder.parameters(), encoder, strict=True):
        torch.testing.assert_close(now.detach(), then)


@pytest.mark.parametrize("kind", ["dense", "residual"])
def test_the_queries_of_an_asymmetric_student_learn_and_its_documents_stay(
    kind, tiny_encoder, collection, pools, tmp_path
):
    base = str(tiny_encoder)
    if kind == "residual":
        train_student(job(tiny_encoder, collection, pools, tmp_path / "base", kind=kind))
        base = str(tmp_path / "base")
    settings = {"steps": 40, "batch_queries": len(pools), "sampling": "hardest"}
    training = job(
        base, collection, pools, tmp_path / "out", kind="asymmetric", terms="kl", **settings
    )
    record = train_student(replace(training, dev=None))
    losses = [point["kl"] for point in record["curve"][1:]]
    assert losses[-1] < losses[0]
    before, after = load_retriever(base), load_retriever(str(tmp_path / "out"))
    text = ["tides and the moon"]
    np.testing.assert_allclose(after.encode_document(text), before.encode_document(text), atol=1e-5)
    start = make_student(base, "asymmetric", documents=collection.documents).encode_query(text)
    end = after.encode_query(text)
    assert not np.allclose(end / np.linalg.norm(end), start / np.linalg.norm(start), atol=1e-3)


def test_training_an_asymmetric_student_encodes_no_text_that_is_cached(
    tiny_encoder, collection, pools, tmp_path, monkeypatch
):
    document_vectors(str(tiny_encoder), collection.documents, max_length=64)
    training = job(tiny_encoder, collection, pools, tmp_path / "out", kind="asymmetric")
    for loads in ("models.encode.load_encoder", "training.batches.teacher_vectors.load_encoder"):
        monkeypatch.setattr(f"retrieval_kd.{loads}", None)  # must not be called
    assert train_student(training)["student"]["layers"] is None


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_all_documents_of_a_collection_are_candidates_as_those_of_a_batch_that_has_them_all(
    similarity, tiny_encoder, tiny_dot_encoder, collection, tmp_path
):
    queries, ids = collection.query_texts("train"), list(collection.documents.ids())
    scores = {
        query: {ids[(7 * row + k) % len(ids)]: float(k % 5) for k in range(20)}
        for row, query in enumerate(queries)
    }  # each query's own third; all 60 documents together
    pools = build_pools(queries, scores, collection, collection.qrels("train"), scores, Drops())
    base = tiny_encoder if similarity == "cosine" else tiny_dot_encoder
    whole = {"batch_queries": len(pools), "slate_size": 24, "slate_depth": 24, "steps": 20}
    found = []
    for candidates in ("batch", "collection"):
        terms = f"kl@{candidates}+infonce:0.5@{candidates}"
        training = job(
            base, collection, pools, tmp_path / candidates, kind="asymmetric", terms=terms, **whole
        )
        record = train_student(replace(training, dev=None))
        losses = [value for name, value in record["curve"][-1].items() if name != "step"]
        found.append((losses, load_retriever(str(tmp_path / candidates)).encode_query(TEXT)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-3)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)


def test_the_vectors_of_a_whole_collection_stay_on_disk(tiny_encoder, collection, pools, tmp_path):
    training = job(tiny_encoder, collection, pools, tmp_path / "out", kind="asymmetric")
    texts = _Training(training, student_of(training.student)).documents
    assert isinstance(texts.base, np.memmap)
    assert texts.represent(None)["vector"].data_ptr() == texts.base.ctypes.data


@pytest.mark.parametrize("kind", ["static", "residual", "adapter", "dense"])
def test_a_student_whose_documents_are_trained_is_not_trained_on_all_of_them(
    kind, tiny_encoder, collection, pools, tmp_path
):
    training = job(
        tiny_encoder, collection, pools, tmp_path / "out", kind=kind, terms="kl@collection"
    )
    with pytest.raises(InputError, match="every step would have to encode them all"):
        train_student(training)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{}, {"rank": 4}])
def test_only_the_map_of_an_adapter_changes_and_the_loss_falls(
    options, tiny_encoder, collection, pools, tmp_path
):
    every = {"batch_queries": len(pools), "sampling": "hardest", "steps": 40}
    training = job(
        tiny_encoder, collection, pools, tmp_path / "out", kind="adapter", options=options, **every
    )
    before = {name: p.detach().clone() for name, p in training.student.named_parameters()}
    record = train_student(replace(training, dev=None))
    losses = [sum(v for n, v in point.items() if n != "step") for point in record["curve"][1:]]
    assert losses[-1] < losses[0]
    changed = {n for n, p in training.student.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"3.linear.weight"}


@pytest.mark.parametrize("kind", ["static", "residual", "asymmetric", "adapter"])
def test_rkd_train_trains_a_table_on_a_store_and_on_from_the_student_it_made(
    kind, tiny_encoder, tiny_collection, collection, tmp_path
):
    queries = collection.query_texts("train")
    write_run(bm25_run(collection, queries, 8), tmp_path / "c.trec")

    def rkd(*words: object) -> str:
        result = CliRunner().invoke(app, [*map(str, words)])
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return result.output

    common = ["--collection", tiny_collection, "--store", tmp_path / "store"]
    rkd("score", *common, "--candidates", tmp_path / "c.trec", "--teacher", "bm25")
    train = ["train", *common, "--split", "train", "--kind", kind, "--objective", "kl"]
    train += ["--steps", 4, "--batch-queries", 8, "--slate-size", 3]
    said = rkd(*train, "--student", tiny_encoder, "--out", tmp_path / "one")
    assert (
        "4 layers" if kind in ("residual", "adapter") else "no layers"
    ) in said and "4 steps on" in said
    rkd(*train, "--student", tmp_path / "one", "--out", tmp_path / "other")
    assert saved_as(str(tmp_path / "other")) == kind
    rkd("index", *common[:2], "--model", tmp_path / "other", "--out", tmp_path / "ix")
    rkd("search", "--index", tmp_path / "ix", next(iter(queries.values())), "--depth", 3)
