"""What teachers are asked for a training, counted from candidates and settings."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from retrieval_kd.config import Config
from retrieval_kd.ensemble import Queries
from retrieval_kd.files import write_json
from retrieval_kd.schema import validate
from retrieval_kd.stages import Stages
from retrieval_kd.teacher_calls import teacher_calls
from retrieval_kd.workspace import Workspace

TRAIN, UNLABELLED = 7, 8  # pairs: 2 queries × 3 documents and a judged one; 4 queries × 2
TRAIN_QUERIES, UNLABELLED_QUERIES = 2, 4
STEPS, BATCH, SLATE = 5, 4, 3
BATCHES = STEPS * BATCH  # queries in all steps
TWO_STAGES = [{"objective": "infonce"}, {"objective": "kl", "refresh": 10}]
REFRESHED = 10 * (TRAIN_QUERIES + UNLABELLED_QUERIES)
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
    """A run's folder with what its first stages leave."""
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
    values = {
        "name": "calls",
        "collection": "unopened",
        "encoder": "m",
        "student": {"base": "m"},
        "out": str(work.folder),
        "unlabelled": {"kind": "titles", "limit": 4},
        "teacher": {"fuse_with": ["bm25", "dense:m"]},
        "train": {"steps": STEPS, "batch_queries": BATCH, "slate_size": SLATE},
        "students": {"labels": {"objective": "infonce"}, "student": training},
        "compare": ["student", "labels"],
    }
    config = validate(Config, values)
    calls = teacher_calls(config, config.students["student"], Stages(config, work))
    assert calls["live"] == live
    assert calls["stored"] == stored
