"""Slates, batches and the adapter: what the student sees, and that it learns the same twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.files import seal
from retrieval_kd.retrieval.bm25 import bm25_run, bm25_scores
from retrieval_kd.students.dense import make_dense, score_matrix
from retrieval_kd.training.batches.collate import SlateCollator
from retrieval_kd.training.batches.pools import build_pools
from retrieval_kd.training.batches.slates import Pool, draw
from retrieval_kd.training.job import TrainingJob, schedule
from retrieval_kd.training.live_models import prompts_by_column
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.batch import Batch, evaluate_term, evaluate_terms
from retrieval_kd.training.objective.term_checks import check_targets
from retrieval_kd.training.objective.terms import Term, parse_terms
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer import checkpoints
from retrieval_kd.training.trainer.curve import build_dev_task
from retrieval_kd.training.trainer.settings import TrainSettings


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def pools(collection: Collection) -> list[Pool]:
    queries = collection.query_texts("train")
    run = bm25_run(collection, queries, 12)
    wanted = {query: list(found) for query, found in run.results.items()}
    teacher = bm25_scores(collection, queries, wanted)
    return build_pools(
        queries, run.results, collection, collection.qrels("train"), teacher, Drops()
    )


pool_strategy = st.builds(
    lambda n, seed: Pool(
        "q",
        np.random.default_rng(seed).permutation(100)[:n],
        -np.sort(np.random.default_rng(seed).normal(size=n)).astype(np.float32),
        np.random.default_rng(seed).integers(0, 2, n),
    ),
    st.integers(2, 30),
    st.integers(0, 1000),
)


@given(pool_strategy, st.integers(2, 12), st.integers(1, 40), st.integers(0, 99))
@settings(deadline=None)
def test_a_slate_holds_distinct_candidates_and_a_positive_first(pool, size, depth, seed):
    slate = draw(pool, size, depth, np.random.default_rng(seed))
    assert len(set(slate.positions.tolist())) == len(slate.positions) <= size
    if (pool.gains > 0).any():
        assert slate.gains[0] > 0
    else:
        assert slate.positions[0] == pool.positions[0]
    where = [pool.positions.tolist().index(at) for at in slate.positions]
    assert all(index < depth for index in where[1:])
    np.testing.assert_array_equal(slate.teacher, pool.teacher[where])


def test_pools_are_ordered_by_the_teacher_and_hold_all_relevant_documents(pools, collection):
    for pool in pools:
        scored = pool.teacher[~np.isnan(pool.teacher)]
        assert (np.diff(scored) <= 0).all()
    relevant = sum(int((pool.gains > 0).sum()) for pool in pools)
    judged = collection.qrels("train")
    assert relevant == sum(gain > 0 for gains in judged.values() for gain in gains.values())


def test_queries_with_nothing_to_learn_from_are_counted(collection):
    queries = {"q-birds0": "sparrow", "unjudged": "rook"}
    candidates = {"q-birds0": {"birds1": 1.0, "birds2": 0.5}, "unjudged": {"chess1": 1.0}}
    drops, qrels = Drops(), collection.qrels("train")
    assert len(build_pools(queries, candidates, collection, qrels, None, drops)) == 1
    assert sum(drops.counts.values()) == 1
    with pytest.raises(InputError, match="no query to train on"):
        build_pools({"x": "y"}, {}, collection, {}, None, Drops())


def _batch(pools, collection, student, size=4, rows=6):
    collator = SlateCollator(
        preprocess_fn=student.preprocess,
        pools=pools,
        texts=collection.documents,
        settings=TrainSettings(slate_size=size, slate_depth=10, group_size=5),
    )
    return collator([{"pool": i, "draw": i} for i in range(rows)])


def test_a_batch_encodes_each_document_once_and_scores_what_it_says(
    pools, collection, tiny_encoder
):
    """The loss's matrix equals one computed from texts with plain Sentence Transformers."""
    student = make_dense(str(tiny_encoder)).eval()
    batch = _batch(pools, collection, student)
    groups = [key for key in batch if key.startswith("group") and key.endswith("input_ids")]
    assert len(groups) >= 2
    label = batch["label"]
    documents = label["batch_teacher"].shape[1]
    assert sum(len(batch[key]) for key in groups) == documents
    assert label["columns"][label["mask"]].unique().numel() == documents

    slates = [draw(pools[i], 4, 10, np.random.default_rng([0, i, i])) for i in range(6)]
    features = [
        {
            key.removeprefix(f"{name}_"): value
            for key, value in batch.items()
            if key.startswith(f"{name}_")
        }
        for name in ["query", *(key.removesuffix("_input_ids") for key in groups)]
    ]
    with torch.no_grad():
        parts = [student(dict(f))["sentence_embedding"] for f in features]
        scores = score_matrix(parts[0], torch.cat(parts[1:]), "cosine")
    for row, slate in enumerate(slates):
        texts = [collection.documents.at(int(at)).full for at in slate.positions]
        query = student.encode_query([pools[row].query])
        expected = student.similarity(query, student.encode_document(texts))[0]
        got = scores[row].gather(0, label["columns"][row])[: len(texts)]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(label["teacher"][row][: len(texts)], slate.teacher)


def test_in_batch_targets_come_from_the_whole_pool(pools, collection, tiny_encoder):
    student = make_dense(str(tiny_encoder))
    label = _batch(pools, collection, student, size=3)["label"]
    for row in range(6):
        for column in range(3):
            if label["mask"][row, column]:
                at = label["columns"][row, column]
                torch.testing.assert_close(
                    label["batch_teacher"][row, at], label["teacher"][row, column], equal_nan=True
                )
    known = label["batch_teacher"].isfinite()
    assert known.sum() > label["mask"].sum()  # candidates of other queries' slates too
    assert (~known).any()


@pytest.mark.parametrize("name", ["kl", "infonce"])
def test_what_a_query_ignores_is_no_negative_of_another_slate_either(
    name, pools, collection, tiny_encoder
):
    """The document that an unlabelled query was taken from, when a second query brings it."""
    student = make_dense(str(tiny_encoder))
    other = pools[1].positions[~np.isin(pools[1].positions, pools[0].positions)]
    ignoring = [replace(pools[0], ignored=other), *pools[1:]]
    plain, label = (_batch(p, collection, student)["label"] for p in (pools, ignoring))
    assert plain["batch_mask"].all()
    masked = ~label["batch_mask"]  # (B, M)
    assert masked[0].any() and not masked[1:].any()
    assert label["batch_mask"][0, label["columns"][0]].all()  # its own slate is as before
    scores = torch.randn(masked.shape, generator=torch.manual_seed(0), requires_grad=True)
    term = Term(name=name, candidates="batch")
    evaluate_term(term, Batch.of_scores(scores, label)).backward()
    assert (scores.grad[0][masked[0]] == 0).all() and scores.grad[0].abs().sum() > 0


def test_the_source_of_a_query_is_ignored_unless_it_is_a_candidate(collection):
    queries = {"a": "one", "b": "two"}
    first, second, third = (collection.documents.id_at(at) for at in range(3))
    candidates = {q: {first: 2.0, second: 1.0} for q in queries}
    made = build_pools(
        queries,
        candidates,
        collection,
        {},
        candidates,
        Drops(),
        sources={"a": third, "b": first},
    )
    assert made[0].ignored.tolist() == [collection.documents.position(third)]
    assert made[1].ignored.tolist() == []


@pytest.mark.parametrize("name", ["kl", "infonce"])
@pytest.mark.parametrize("candidates", ["slate", "batch"])
def test_unscored_candidates_do_not_teach(name, candidates):
    torch.manual_seed(0)
    scores = torch.randn(2, 5, requires_grad=True)
    nan, minus = float("nan"), float("-inf")
    label = {
        "columns": torch.tensor([[0, 1, 2], [3, 4, 0]]),
        "mask": torch.ones(2, 3, dtype=torch.bool),
        "teacher": torch.tensor([[2.0, nan, 1.0], [nan, nan, nan]]),
        "gains": torch.tensor([[1, 0, 0], [1, 0, 0]]),
        "batch_teacher": torch.tensor([[2.0, nan, 1.0, minus, minus], [minus] * 5]),
        "batch_gains": torch.tensor([[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]]),
        "batch_mask": torch.ones(2, 5, dtype=torch.bool),
    }
    loss = evaluate_term(Term(name=name, candidates=candidates), Batch.of_scores(scores, label))
    loss.backward()
    assert loss.isfinite() and scores.grad.isfinite().all()
    if name == "kl":
        assert (scores.grad[1] == 0).all() and scores.grad[0, 1] == 0
    else:  # these follow the judgments where the teacher said nothing
        positive, others = 3, [0, 4]
        assert scores.grad[1, positive] < 0 and (scores.grad[1, others] > 0).all()


def test_settings_of_an_objective_are_written_beside_its_name():
    told = "kl(teacher_temperature=0.05, student_temperature=0.1):2@batch+preference(margin=1)"
    kl, preference = parse_terms(told)
    assert (kl.weight, kl.candidates) == (2.0, "batch")
    assert kl.parameters == {"teacher_temperature": 0.05, "student_temperature": 0.1}
    assert preference.parameters == {"margin": 1} and preference.candidates == "slate"


@pytest.mark.parametrize(
    "text",
    ["nonsense", "kl:x", "kl@somewhere", "kl:-1", "", "kl+", "kl(", "kl(0.5)", "kl(warmth=1)"],
)
def test_objectives_that_cannot_be_read_are_explained(text):
    with pytest.raises(InputError, match="cannot read objective"):
        parse_terms(text)


def test_in_a_batch_the_own_positive_comes_first():
    """margin_mse compares with column 0, which must be each query's own positive."""
    torch.manual_seed(0)
    scores, teacher = torch.randn(2, 4), torch.randn(2, 4)
    label = {
        "columns": torch.tensor([[2, 1], [3, 0]]),
        "mask": torch.ones(2, 2, dtype=torch.bool),
        "batch_teacher": teacher,
        "batch_gains": torch.zeros(2, 4, dtype=torch.int64),
        "batch_mask": torch.ones(2, 4, dtype=torch.bool),
    }
    loss = evaluate_term(
        Term(name="margin_mse", candidates="batch"), Batch.of_scores(scores, label)
    )
    margins = [
        (scores[q, p] - scores[q, d]) - (teacher[q, p] - teacher[q, d])
        for q, p in ((0, 2), (1, 3))
        for d in range(4)
        if d != p
    ]
    torch.testing.assert_close(loss, torch.stack(margins).square().mean())


def test_an_objective_given_twice_is_refused():
    with pytest.raises(InputError, match="twice"):
        parse_terms("kl:1+kl:5")


@pytest.mark.parametrize("value", ["half", 0, -1, float("inf"), True])
def test_a_temperature_is_a_number_above_zero(value):
    with pytest.raises(ValueError, match="teacher_temperature"):
        Term(name="kl", teacher_temperature=value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "flops", "candidates": "batch"}, "leave `candidates` out"),
        ({"name": "embedding_mse", "teacher": "m", "student": "exit0"}, "leave `student` out"),
        ({"name": "infonce", "teacher": "positive"}, "no `teacher`"),
        ({"name": "teacher_dropping", "teacher": "stored:1"}, "no `teacher`"),
    ],
)
def test_a_setting_that_an_objective_would_not_look_at_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Term(**given)


@pytest.mark.parametrize(("name", "teacher"), [("teacher_dropping", "stored"), ("kl", "stored:1")])
def test_teachers_that_are_not_told_apart_cannot_be_learnt_from_one_by_one(name, teacher, pools):
    with pytest.raises(InputError, match="needs each teacher's own scores"):
        check_targets(pools, [Term(name=name, teacher=teacher)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "hidden_states", "teacher": "m", "layers": 3}, "no parameter 'layers'"),
        ({"name": "hidden_states", "teacher": "m", "distance": "mae"}, "mse, cosine"),
        ({"name": "teacher_dropping", "drop": "half"}, "must be a number"),
        ({"name": "sinkhorn", "iterations": 2.5}, "whole number"),
        ({"name": "pair_kl", "preferences": 1}, "no parameter 'preferences'"),
    ],
)
def test_a_value_that_an_objective_cannot_compute_with_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Term(**given)


def test_a_loss_that_is_no_number_stops_the_training(pools, collection, tiny_encoder):
    student = make_dense(str(tiny_encoder))
    label = _batch(pools, collection, student)["label"]
    scores = torch.full((6, label["batch_teacher"].shape[1]), float("nan"))
    with pytest.raises(InputError, match="became nan"):
        evaluate_terms(parse_terms("kl"), Batch.of_scores(scores, label))


def test_a_foreign_folder_is_not_replaced(pools, collection, tiny_encoder, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="would be replaced"):
        _train(collection, pools, tiny_encoder, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_torn_checkpoint_is_not_resumed_from(pools, collection, tiny_encoder, tmp_path):
    work = tmp_path / ".s.training"
    whole, torn, changed, other = (work / f"checkpoint-{step}" for step in (4, 8, 2, 6))
    for folder in (whole, torn, changed, other):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    seal(whole, "mine")
    seal(other, "another")
    seal(changed, "mine")
    (changed / "model.safetensors").write_bytes(b"weightz")
    assert checkpoints.last_whole_checkpoint(work, "mine") == str(whole)
    assert list(work.iterdir()) == [whole]


def test_a_damaged_student_is_trained_again(pools, collection, tiny_encoder, tmp_path):
    record = _train(collection, pools, tiny_encoder, tmp_path / "s", steps=1)
    weights = tmp_path / "s" / "model.safetensors"
    whole = weights.read_bytes()
    assert checkpoints.finished(tmp_path / "s", record["identity"])
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not checkpoints.finished(tmp_path / "s", record["identity"])
    _train(collection, pools, tiny_encoder, tmp_path / "s", steps=1)
    assert weights.read_bytes() == whole
    (tmp_path / "s" / "README.md").write_text("my card")  # people may write there
    (tmp_path / "s" / "seal.json").unlink()  # as an earlier version left it
    assert checkpoints.finished(tmp_path / "s", record["identity"])


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    out = tmp_path / "o"
    script = (
        "import sys; from pathlib import Path\n"
        "from retrieval_kd.training.trainer.checkpoints import at_work\n"
        "with at_work(Path(sys.argv[1])): print('at work', flush=True), sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", script, str(out)], **pipes)
    assert other.stdout.readline() == "at work\n"
    with pytest.raises(InputError, match="another training is at work here"):
        with checkpoints.at_work(out):
            pass
    other.communicate("")
    with checkpoints.at_work(out), checkpoints.at_work(out):  # a command, and its training
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_current_folder_and_those_around_it_are_not_replaced(tmp_path, monkeypatch):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    for out in (".", "..", "../..", "../b", str(tmp_path / "a"), "/"):
        with pytest.raises(InputError, match="the current folder is in this one"):
            checkpoints.check_replaceable(Path(out))
    with pytest.raises(InputError, match="a disk is mounted here"):
        checkpoints.check_replaceable(Path("/proc"))
    checkpoints.check_replaceable(Path("new"))


def test_another_length_is_another_training(pools, collection, tiny_encoder, tmp_path):
    settings = TrainSettings(steps=2, batch_queries=2, max_tokens=16)
    for length in (32, 24):
        student = make_dense(str(tiny_encoder), max_length=length)
        terms = [Term(name="kl")]
        train_student(
            TrainingJob(student, pools, collection.documents, terms, settings, tmp_path / "s")
        )
        saved = json.loads((tmp_path / "s" / "sentence_bert_config.json").read_text())
        assert length in saved.values() or student.max_seq_length == length


def test_prompts_are_those_of_encoding(tiny_encoder):
    student = make_dense(str(tiny_encoder))
    student.prompts = {"query": "ask: ", "passage": "read: "}
    assert prompts_by_column(student) == {"query": "ask: ", "document": "read: "}


def test_an_unknown_parameter_of_an_objective_is_refused():
    with pytest.raises(ValueError, match="has no parameter 'temperature'"):
        Term(name="kl", temperature=2)


def test_an_objective_without_targets_is_refused_before_training(pools, collection, tiny_encoder):
    unscored = [Pool(p.query, p.positions, p.teacher * np.nan, p.gains) for p in pools]
    with pytest.raises(InputError, match="needs teacher scores"):
        train_student(
            TrainingJob(
                make_dense(str(tiny_encoder)),
                unscored,
                collection.documents,
                [Term(name="kl")],
                TrainSettings(steps=1),
                Path("unused"),
            )
        )


def test_the_schedule_keeps_the_shares_and_draws_evenly():
    made = schedule(
        50,
        TrainSettings(steps=10, batch_queries=30, seed=3),
        {"judged": (0, 10, 0.25), "unlabelled": (10, 50, 0.75)},
    )
    pool = np.array(made["pool"])
    assert len(pool) == 300 and (pool < 10).sum() == 75
    counts = np.bincount(pool, minlength=50)
    assert counts[:10].max() - counts[:10].min() <= 1
    assert counts[10:].max() - counts[10:].min() <= 1


def _train(collection, pools, encoder, out, **changes):
    settings = TrainSettings(
        **{
            "steps": 12,
            "batch_queries": 6,
            "eval_steps": 4,
            "save_steps": 4,
            "max_tokens": 32,
            "learning_rate": 1e-3,
        }
        | changes
    )
    queries = collection.query_texts("dev")
    dev = build_dev_task(
        collection, queries, collection.qrels("dev"), bm25_run(collection, queries, 10)
    )
    student = make_dense(str(encoder), [0, 3])
    terms = parse_terms("kl+infonce:0.5@batch")
    return train_student(
        TrainingJob(student, pools, collection.documents, terms, settings, out, dev=dev)
    )


def test_same_seed_same_student_other_seed_other_student(pools, collection, tiny_encoder, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        _train(collection, pools, tiny_encoder, tmp_path / name, seed=seed)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_training_lowers_the_loss_and_draws_a_curve(pools, collection, tiny_encoder, tmp_path):
    record = _train(collection, pools, tiny_encoder, tmp_path / "s", steps=40, eval_steps=10)
    curve = record["curve"]
    assert [p["step"] for p in curve if "dev_ndcg@10" in p] == [0, 10, 20, 30, 40]
    losses = [point["loss"] for point in curve if "loss" in point]
    assert losses[-1] < losses[0]
    assert {"kl", "infonce_batch"} <= set(curve[-1])
    assert record["student"]["layers"] == 2


def test_a_finished_training_is_not_run_again(pools, collection, tiny_encoder, tmp_path):
    _train(collection, pools, tiny_encoder, tmp_path / "s")
    before = (tmp_path / "s" / "model.safetensors").stat().st_mtime_ns
    _train(collection, pools, tiny_encoder, tmp_path / "s")
    assert (tmp_path / "s" / "model.safetensors").stat().st_mtime_ns == before
    _train(collection, pools, tiny_encoder, tmp_path / "s", seed=9)
    assert (tmp_path / "s" / "model.safetensors").stat().st_mtime_ns != before


def test_dropout_and_length_are_put_back(pools, collection, tiny_encoder, tmp_path):
    from sentence_transformers import SentenceTransformer

    _train(collection, pools, tiny_encoder, tmp_path / "s", max_tokens=16)
    student = SentenceTransformer(str(tmp_path / "s"), device="cpu")
    assert student.max_seq_length == 32
    assert student[0].auto_model.config.hidden_dropout_prob == 0.1


def test_the_loss_reports_each_component(pools, collection, tiny_encoder):
    student = make_dense(str(tiny_encoder))
    loss = ScoreMatrixLoss(student, parse_terms("kl:2+margin_mse+infonce@batch"))
    assert [term.parameters["student_temperature"] for term in loss.terms] == [0.05] * 3
    batch = _batch(pools, collection, student)
    names = [k.removesuffix("_input_ids") for k in batch if k.endswith("_input_ids")]
    features = [
        {k.removeprefix(f"{n}_"): v for k, v in batch.items() if k.startswith(f"{n}_")}
        for n in names
    ]
    parts = loss(features, batch["label"])
    assert list(parts) == ["kl", "margin_mse", "infonce_batch"]
    single = ScoreMatrixLoss(student, parse_terms("kl"))(features, batch["label"])
    torch.testing.assert_close(parts["kl"], 2 * single["kl"])


def test_a_student_does_not_wear_its_bases_card(pools, collection, tiny_encoder, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_encoder, base)
    (base / "README.md").write_text("---\ntags: []\n---\n# I am the base")
    _train(collection, pools, base, tmp_path / "s", steps=1)
    assert "I am the base" not in (tmp_path / "s" / "README.md").read_text()


def test_a_students_card_says_how_it_was_trained(pools, collection, tiny_encoder, tmp_path):
    record = _train(collection, pools, tiny_encoder, tmp_path / "mine", steps=2, eval_steps=2)
    card = ModelCard.load(tmp_path / "mine" / "README.md")  # its head is kept
    assert "sentence-transformers" in card.data.tags
    assert card.text.count("# mine\n") == 1 and "# SentenceTransformer" not in card.text
    about, _, usual = card.text.partition("## Model Details")
    assert "`1 × kl + 0.5 × infonce(candidates=batch)`: 2 steps" in about
    start, end = (point["dev_ndcg@10"] for point in record["curve"] if "dev_ndcg@10" in point)
    assert f"ndcg@10 of re-ranking {start:.4f} before, {end:.4f} after" in about
    assert "Full Model Architecture" in usual
