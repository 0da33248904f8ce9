"""The whole loop, as a reader would follow it, and that it survives being killed at any moment."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer

from retrieval_kd.config.run import load_config
from retrieval_kd.data.runs import read_run
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.indexing.index import Index
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.plan import plan, run
from retrieval_kd.pipeline.stages import choose_queries
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.workspace import Workspace


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, tiny_collection, tiny_encoder) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    encoder = str(tiny_encoder)
    config = {
        "name": "Tiny, distilled",
        "collection": str(tiny_collection),
        "out": str(folder / "run"),
        "encoder": encoder,
        "splits": {"dev": "dev", "dev_queries": 10},
        "unlabelled": {"kind": "sentences", "limit": 20},
        "first_stage": {"with": f"bm25+{encoder}", "depth": 12},
        "teacher": {
            "fit": {"base": encoder, "train": {"steps": 4, "batch_queries": 4, "slate_size": 4}},
            "max_length": 48,
            "fuse_with": ["bm25", f"dense:{encoder}"],
        },
        "student": {"base": encoder, "layers": [0, 3], "max_length": 32},
        "train": {
            "steps": 8,
            "batch_queries": 6,
            "eval_steps": 4,
            "save_steps": 2,
            "max_tokens": 32,
        },
        "students": {
            "labels": {"objective": "infonce@batch"},
            "distilled": {"objective": "kl+infonce:0.5@batch"},
        },
        "seeds": [0, 1],
        "index": str(Path(__file__).parents[2] / "indexes" / "flat.yaml"),
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_single_teachers_keep_their_numbers_whatever_weights_dev_gave(finished):
    """`stored:1` is the second teacher of the configuration, also where the first got no weight."""
    ensemble = RunContext(finished, Workspace(finished.out)).ensemble
    query, found = next(iter(ensemble.candidates("train").items()))
    only_bm25 = {"bm25": 1.0}
    scores = ensemble.one_by_one("train", {query: found}, only_bm25)
    assert [bool(member) for member in scores] == [m == "bm25" for m in ensemble.members]
    assert scores[1] == ensemble.fused("train", Drops(), {query: found}, only_bm25)
    named = ensemble.one_by_one("train", {query: found}, only_bm25, {2})
    assert named[2].keys() == {query} and not named[0]


def test_everything_is_there_and_can_be_looked_at(finished):
    out = Path(finished.out)
    results = json.loads((out / "results.json").read_text())
    assert set(results["systems"]) == {"bm25", "encoder", "teacher", "labels", "distilled"}
    assert len(results["systems"]["distilled"]["ndcg@10"]["per_seed"]) == 2
    assert results["costs"]["distilled"]["layers"] == 2
    tested = [(c["a"], c["b"]) for c in results["comparisons"] if c["measure"] == "ndcg@10"]
    assert ("distilled", "labels") in tested
    page = (out / "report.html").read_text()
    assert "Tiny, distilled" in page and "<script src" not in page
    assert len(ScoreStore(out / "scores").teachers()) == 3
    assert ScoreStore(out / "scores").verify() == []


def test_what_distillation_and_encoding_cost_stands_beside_quality(finished):
    """Teacher calls are the pairs that the stages asked; what is not known is not 0."""
    out, work = Path(finished.out), plan(finished)
    context = RunContext(finished, work)
    test = sum(map(len, context.candidates("test").values()))
    used = json.loads((out / "teacher.json").read_text())["weights"]
    pairs = [work.record(f"score:{m}")["facts"]["pairs"] - test for m, w in used.items() if w]
    costs = json.loads((out / "results.json").read_text())["costs"]
    assert costs["distilled"]["teacher_calls"] == sum(pairs) > 0
    assert costs["labels"]["teacher_calls"] == 0 and "teacher_calls" not in costs["encoder"]
    assert costs["distilled"]["documents_per_second"] > 0
    # the encoder's vectors were made for the first stage
    assert costs["encoder"]["documents_per_second"] is None
    for name in ("results.md", "results.tex", "report.html"):
        page = (out / name).read_text()
        for heading in ("Teacher calls", "Docs/s", "Bytes/doc", "p95, ms", "Training"):
            assert heading in page, (name, heading)
    head, _, *rows = (out / "results.md").read_text().splitlines()
    encoder = next(row.split("|") for row in rows if "| encoder |" in row)
    said = dict(zip(map(str.strip, head.split("|")), map(str.strip, encoder), strict=True))
    assert [said[heading] for heading in ("Docs/s", "Training", "Teacher calls")] == ["–"] * 3


def test_the_student_and_its_index_open_without_this_project(finished):
    out = Path(finished.out)
    student = SentenceTransformer(str(out / "students" / "distilled-seed0"), device="cpu")
    folder = out / "indexes" / "distilled-seed0"
    index = faiss.read_index(str(folder / "index.faiss"))
    queries = json.loads((out / "queries" / "test.json").read_text())["texts"]
    vectors = student.encode_query(list(queries.values()), normalize_embeddings=True)
    scores, rows = index.search(np.asarray(vectors, dtype=np.float32), 5)
    ours = Index.open(folder)
    for query, row, score in zip(queries.values(), rows, scores, strict=True):
        hits = dict(ours.search([query], 5)[0])
        assert set(hits) == {ours.ids[int(i)].as_py() for i in row}
        np.testing.assert_allclose(sorted(hits.values()), sorted(score), atol=1e-5)


@pytest.mark.parametrize("baseline", ["bm25", "encoder", "teacher"])
def test_every_system_of_a_run_may_be_the_baseline(finished, config_file, baseline):
    overrides = [f"compare=[distilled, {baseline}]", f"results={baseline}"]
    results = run(load_config(config_file, overrides))
    results.print()
    written = json.loads((Path(finished.out) / baseline / "results.json").read_text())
    assert {c["b"] for c in written["comparisons"]} == {baseline}
    assert written["audit"]["effect"]["comparisons"]["all"]["b"] == baseline
    assert (Path(finished.out) / baseline / "report.html").exists()


def test_a_finished_run_does_nothing_again(finished):
    ran = plan(finished).execute(lambda *_: None)
    assert ran == []


def test_a_changed_setting_runs_only_what_depends_on_it(finished, config_file):
    changed = load_config(config_file, ["students.distilled.objective=kl"])
    work = plan(changed)
    todo = [stage.name for stage in work.stages if not work.done(stage)]
    assert todo == [
        *(f"{verb}:distilled-seed{seed}" for seed in (0, 1) for verb in ("train", "search")),
        "measure",
        "evaluate",
        "report",
    ]


def test_test_queries_are_in_no_other_part(finished):
    parts = {
        part: json.loads((Path(finished.out) / "queries" / f"{part}.json").read_text())
        for part in ("train", "dev", "test", "unlabelled")
    }
    test = {text.lower() for text in parts["test"]["texts"].values()}
    for part in ("train", "dev", "unlabelled"):
        assert not test & {text.lower() for text in parts[part]["texts"].values()}
    candidates = json.loads((Path(finished.out) / "candidates" / "unlabelled.json").read_text())
    sources = parts["unlabelled"]["sources"]
    assert candidates and all(sources[query] not in found for query, found in candidates.items())


def test_lost_scores_are_asked_again(finished, config_file, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished.out, out)  # a moved run is the same run
    config = load_config(config_file, [f"out={out}"])
    assert plan(config).todo() == []
    for shard in out.glob("scores/*/shard-000000-*.parquet"):
        shard.unlink()
    changed = load_config(config_file, [f"out={out}", "seeds=[7]"])
    run(changed)
    mine, theirs = (
        read_run(Path(folder) / "runs" / "teacher.trec").results for folder in (out, finished.out)
    )
    assert mine == theirs


def test_a_dev_query_with_a_test_querys_text_is_left_out(tiny_collection, config_file, tmp_path):
    folder = tmp_path / "leaky"
    shutil.copytree(tiny_collection, folder)
    qrels = {s: (folder / "qrels" / f"{s}.tsv").read_text() for s in ("dev", "test", "train")}
    dev, test, train = (text.splitlines()[1].split("\t")[0] for text in qrels.values())
    lines = (folder / "queries.jsonl").read_text().splitlines()
    texts = {json.loads(line)["_id"]: json.loads(line)["text"] for line in lines}
    texts[dev] = texts[test].upper() + "?"
    texts[train] = texts[test]
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": q, "text": t}) + "\n" for q, t in texts.items())
    )
    overrides = [f"collection={folder}", f"out={tmp_path / 'run'}"]
    config = load_config(config_file, overrides)
    facts = choose_queries(RunContext(config, Workspace(config.out)))
    assert len(facts["drops"]) == 2
    for part, leaked in (("dev", dev), ("train", train)):
        kept = json.loads((tmp_path / "run" / "queries" / f"{part}.json").read_text())["texts"]
        assert kept and leaked not in kept


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("studnt.layers=[0]", "did you mean 'student'"),
        ("student.layer=[0]", "did you mean 'layers'"),
        ("train.steps=none", "steps"),
        ("students.distilled.objective=kll", "no objective 'kll'; did you mean 'kl'"),
        ("students.distilled.teachers={who: 1}", "students.distilled: no teacher 'who'"),
        ("students.labels=null", "compare names 'labels'"),
        ("students.lables=null", "no student 'lables' to leave out.*did you mean 'labels'"),
        ("seeds.7=4", "'7' is not an item of a list of"),
        ("compare=[distilled, other]", "other'; the baseline is one of bm25, encoder, teacher, "),
        ("compare=[distiled, labels]", "'distiled'; students: .*; did you mean 'distilled'"),
        ("compare=[distilled, encodr]", "did you mean 'encoder'"),
        ("teacher.weights=[1]", "1 weights for 3 teachers"),
        ("seeds=[]", "seeds"),
        ("seeds=[1, 1]", "one twice"),
        ("seeds=[-1]", "seed"),
        ("splits.dev=test", "different splits"),
        ("measures=[ndgc@10]", "ndgc"),
        ("teacher.weights=[0, 0, 0]", "above 0"),
        ("students.labels.train.stepz=3", "did you mean 'steps'"),
        ("students.distilled.stages=[{objective: kl}]", "an `objective`, or `stages`"),
        ("students.distilled.refresh=5", "no earlier student"),
        ("students.distilled.objective=embedding_mse", "the MODEL whose vectors"),
        ("nonsense", "key=value"),
        ("student.layers=[", "not YAML"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(config_file, override, message):
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        load_config(config_file, [override])


KILLED_STAGES = ("score:cross-encoder", "train:distilled-seed0", "search:distilled-seed0")


@pytest.mark.parametrize("stage", KILLED_STAGES)
def test_killed_at_a_random_moment_it_ends_in_the_same_result(
    stage, finished, config_file, tmp_path
):
    """SIGKILL during scoring, training and indexing; resumed runs end with the same bytes."""
    out, moment = tmp_path / "run", random.Random(stage)
    overrides = [f"out={out}", "seeds=[0]"]
    code = (
        "import sys; from retrieval_kd.config.run import load_config; "
        "from retrieval_kd.pipeline.plan import run; "
        "run(load_config(sys.argv[1], sys.argv[2:]), "
        "lambda stage, *_: print(stage.name, flush=True))"
    )
    command = [sys.executable, "-c", code, str(config_file), *overrides]
    cache = tmp_path / "cache"  # a cache of its own, so that encoding is interrupted too
    environment = os.environ | {"RETRIEVAL_KD_CACHE": str(cache)}
    seen: set[Path] = set()
    for _ in range(2):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == stage:
                break
        time.sleep(moment.uniform(0.02, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        shards = set(out.glob("scores/*/shard-*.parquet"))
        assert seen <= shards  # what was stored stays
        seen = shards
    subprocess.run(command, env=environment, check=True, capture_output=True)

    store = ScoreStore(out / "scores")
    assert store.verify() == []
    for key in store.teachers():
        pairs = store.read(key)
        rows = sum(_rows(path) for path in store.folder(key).glob("shard-*.parquet"))
        assert rows == pairs.num_rows == store.count(key)  # no pair was asked twice
    whole = Path(finished.out)
    for path in (
        "teacher/model.safetensors",
        "students/distilled-seed0/model.safetensors",
        "indexes/distilled-seed0/index.faiss",
    ):
        assert (out / path).read_bytes() == (whole / path).read_bytes(), path
    for name in ("teacher", "labels-seed0", "distilled-seed0"):
        mine, theirs = (read_run(f / "runs" / f"{name}.trec").results for f in (out, whole))
        assert mine == theirs


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows


def test_a_training_in_stages_goes_on_from_its_own_student(finished, config_file):
    """PROD in small: another teacher, its own candidates and queries, the last stage as anchor."""
    stages = [
        {"objective": "kl@batch", "teachers": {"bm25": 1.0}},
        {
            "objective": [
                {"name": "kl", "candidates": "batch"},
                {"name": "kl", "candidates": "batch", "teacher": "previous", "weight": 0.5},
                {"name": "teacher_dropping", "candidates": "batch"},
            ],
            "live": {"previous": {"model": "start"}},
            "refresh": 5,
            "select": {"by": "divergence", "share": 0.5},
        },
    ]
    config = load_config(config_file, [f"students.distilled.stages={json.dumps(stages)}",
                                       "students.distilled.objective=[]", "seeds=[0]"])  # fmt: skip
    work = plan(config)
    names = [stage.name for stage in work.stages if stage.name.startswith("train:distilled")]
    assert names == ["train:distilled-seed0-stage1", "train:distilled-seed0"]
    run(config)
    out = Path(config.out) / "students"
    first, last = (
        SentenceTransformer(str(out / name), device="cpu")
        for name in ("distilled-seed0-stage1", "distilled-seed0")
    )
    texts = ["sparrow wing", "anchor"]
    assert not np.allclose(first.encode(texts), last.encode(texts), atol=1e-6)
    record = work.record("train:distilled-seed0")["facts"]
    assert {"kl_batch", "kl_batch_from_previous", "teacher_dropping_batch"} <= set(
        record["curve"][-1]
    )
    assert any("not among the most" in drop for drop in record["drops"])
    card = (out / "distilled-seed0" / "README.md").read_text()
    told = [card.index(part) for part in ("In 2 stages", "### Stage 1", "### Stage 2", "## Model")]
    assert told == sorted(told)
    assert "kl(candidates=batch, teacher=previous)" in card[told[2] : told[3]]
