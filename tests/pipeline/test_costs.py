"""Teacher calls of a training, counted from candidates and settings."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from retrieval_kd.config.run import Config
from retrieval_kd.data.collection import open_collection
from retrieval_kd.files import write_json
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.costs import teacher_calls
from retrieval_kd.pipeline.descriptions import cost_notes
from retrieval_kd.pipeline.queries import Queries
from retrieval_kd.schema import validate
from retrieval_kd.workspace import Stage, Workspace

TRAIN, UNLABELLED = 7, 8  # pairs: 2 queries × 3 documents and a judged one; 4 queries × 2
TRAIN_QUERIES, UNLABELLED_QUERIES = 2, 4
STEPS, BATCH, SLATE = 5, 4, 3
BATCHES = STEPS * BATCH  # queries in all steps
TWO_STAGES = [{"objective": "infonce"}, {"objective": "kl", "refresh": 10}]
REFRESHED = 10 * (TRAIN_QUERIES + UNLABELLED_QUERIES)
DEPTHS = (4, 3, 2, 2, 2, 2)  # of each query, judged and unlabelled ones
PAIRS = sum(n * (n - 1) for n in DEPTHS)  # of two documents, in both orders
PAIRS_REFRESHED = sum((n + 10) * (n + 9) for n in DEPTHS)
ADJACENT = sum(2 * (n - 1) for n in DEPTHS)
WINDOWS = sum({2: 1, 3: 2, 4: 3}[n] for n in DEPTHS)  # of two documents, one further at a time
LIVE = {"model": "start", "trains": True}

CASES = {
    "labels alone": ({"objective": "infonce"}, 0, 0),
    "both teachers": ({"objective": "kl"}, 2 * (TRAIN + UNLABELLED), 0),
    "judged queries": ({"objective": "kl", "uses_unlabelled": False}, 2 * TRAIN, 0),
    "one of them": ({"objective": "kl", "teachers": {"bm25": 1}}, TRAIN + UNLABELLED, 0),
    # its pairs are asked once, in whichever stage; what the student finds is new
    "later, refreshed": ({"stages": TWO_STAGES}, 2 * (TRAIN + UNLABELLED + REFRESHED), 0),
    "twice the same": ({"stages": [{"objective": "kl"}] * 2}, 2 * (TRAIN + UNLABELLED), 0),
    "stored to choose by": ({"objective": "infonce", "false_negatives": 0.1}, 2 * TRAIN, 0),
    "a live encoder": (
        {"objective": [{"name": "kl", "teacher": "big"}], "live": {"big": LIVE | {"kind": "encoder",
         "trains": False}}}, 0, BATCHES * (SLATE + 1)),
    "a live cross-encoder": (
        {"objective": [{"name": "kl", "teacher": "big"}], "live": {"big": LIVE | {
         "kind": "cross_encoder", "trains": False}}}, 0, BATCHES * SLATE),
}  # fmt: skip


@pytest.fixture
def work(tmp_path):
    """A run's folder with the files of its first stages."""
    folder = Workspace(tmp_path)
    queries = {
        "train": Queries({"q0": "a", "q1": "b"}, {"q0": {"judged": 1, "d0": 1, "no": 0}}, {}),
        "unlabelled": Queries({f"u{i}": "c" for i in range(4)}, {}, {}),
    }
    for part, depth in (("train", 3), ("unlabelled", 2)):
        found = {q: {f"d{i}": 1.0 for i in range(depth)} for q in queries[part].texts}
        write_json(folder.path("candidates", f"{part}.json"), found)
        write_json(folder.path("queries", f"{part}.json"), asdict(queries[part]))
    write_json(folder.path("teacher.json"), {"weights": {"bm25": 0.5, "dense:m": 0.5}})
    return folder


@pytest.mark.parametrize(("training", "stored", "live"), CASES.values(), ids=CASES)
def test_stored_pairs_count_once_and_live_teachers_every_step(training, stored, live, work):
    config = config_of(work, training)
    calls = teacher_calls(RunContext(config, work), config.students["student"])
    assert calls["live"] == live
    assert calls["stored"] == stored


@pytest.mark.parametrize(
    ("member", "training", "stored"),
    [
        ("pairwise:m", {"objective": "kl"}, PAIRS),
        ("pairwise:m?pairs=adjacent", {"objective": "kl"}, ADJACENT),
        ("listwise:m?window=2&stride=1", {"objective": "kl"}, WINDOWS),
        ("yesno:m", {"objective": "kl"}, TRAIN + UNLABELLED),
        ("pairwise:m", {"stages": TWO_STAGES}, PAIRS + PAIRS_REFRESHED),
    ],
)
def test_questions_about_several_documents_are_what_the_strategy_asks(
    member, training, stored, work
):
    """And no more than `ask` says before the first of them."""
    write_json(work.path("teacher.json"), {"weights": {member: 1.0}})
    config = config_of(work, training, members=[member])
    calls = teacher_calls(RunContext(config, work), config.students["student"])
    assert calls == {"stored": stored, "live": 0}


def test_who_chooses_what_is_asked_is_counted_without_a_weight(work):
    chosen = "pairwise:m?pairs=uncertain&most=1&by=bm25"  # a pair in both orders
    write_json(work.path("teacher.json"), {"weights": {"bm25": 0.0, chosen: 1.0}})
    config = config_of(work, {"objective": "kl"}, members=["bm25", chosen])
    calls = teacher_calls(RunContext(config, work), config.students["student"])
    assert calls["stored"] == TRAIN + UNLABELLED + 2 * len(DEPTHS)


def test_models_whose_vectors_or_states_are_learnt_are_asked_too(work, tiny_collection):
    """Vectors of all documents and queries once; states of each slate's pairs or texts."""
    documents = len(open_collection(str(tiny_collection)).documents)
    vectors = {"objective": [{"name": "embedding_mse", "teacher": "big"}]}
    config = config_of(work, {"stages": [vectors] * 2}, collection=str(tiny_collection))
    calls = teacher_calls(RunContext(config, work), config.students["student"])
    assert calls == {"stored": documents + TRAIN_QUERIES + UNLABELLED_QUERIES, "live": 0}
    states = {
        "objective": [{"name": "hidden_states", "teacher": "big"}],
        "student": {"kind": "cross_encoder"},
    }
    config = config_of(work, states)
    calls = teacher_calls(RunContext(config, work), config.students["student"])
    assert calls == {"stored": 0, "live": BATCHES * SLATE}
    config = config_of(work, {**states, "student": {"kind": "dense"}})
    calls = teacher_calls(RunContext(config, work), config.students["student"])
    assert calls == {"stored": 0, "live": BATCHES * (SLATE + 1)}
    pairs = {"objective": [{"name": "feature_imitation", "teacher": "big"}]}
    config = config_of(work, {**pairs, "student": {"kind": "interaction"}})
    calls = teacher_calls(RunContext(config, work), config.students["student"])
    assert calls == {"stored": 0, "live": BATCHES * SLATE}


def test_the_report_does_not_call_questions_pairs(work):
    members = {"bm25": {"scored": 1200}, "pairwise:m?pairs=sorting": {"scored": 30}}
    for member, facts in members.items():
        work.add(Stage(f"score:{member}", lambda facts=facts: facts, (), None))
    work.execute(lambda *_: None)
    [told] = cost_notes(work)
    assert "scored 1,200 pairs" in told and "answered 30 questions about several" in told


def config_of(work, training, members=("bm25", "dense:m"), collection="unopened"):
    values = {
        "name": "calls",
        "collection": collection,
        "encoder": "m",
        "student": {"base": "m"},
        "out": str(work.folder),
        "unlabelled": {"kind": "titles", "limit": 4},
        "teacher": {"fuse_with": list(members)},
        "train": {"steps": STEPS, "batch_queries": BATCH, "slate_size": SLATE},
        "students": {"labels": {"objective": "infonce"}, "student": training},
        "compare": ["student", "labels"],
    }
    return validate(Config, values)
