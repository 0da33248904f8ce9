"""What students learn from generated queries, from titles and from sentences, as many of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.generator import ENCODER, KINDS, TASK
from benchmarks.medquad import split_by_focus
from retrieval_kd import open_collection
from retrieval_kd.config.run import load_config
from retrieval_kd.data.runs import read_run
from retrieval_kd.files import read_json
from retrieval_kd.generation.collection import Filters, generate_collection
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.significance import compare
from retrieval_kd.pipeline.plan import run
from retrieval_kd.teachers.llm.encoder_decoder import Seq2SeqModel
from retrieval_kd.workspace import Workspace

CONFIG = Path(__file__).with_name("generator_teach.yaml")
MOST = 3_000  # queries of each kind
MEASURE = "ndcg@10"


def teach(name: str, writer: Path, runs: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Write queries about a collection's documents, train on each kind, and compare on its test.

    Returns:
        what was written and kept, each student's means, and tests of generated queries and of
        titles against sentences.
    """
    place = str(split_by_focus(runs / "medquad-by-focus")) if name == "medquad" else name
    collection = open_collection(place)
    filters = Filters(
        tuple(split for split in collection.splits if split != "train"), ("bm25", ENCODER), 10
    )
    out, started = runs / name / "collection", time.monotonic()
    about = generate_collection(
        collection, Seq2SeqModel(str(writer)), TASK, filters, runs / "answers", out,
        documents=2 * MOST,
    )  # fmt: skip
    written = {key: about[key] for key in ("answers", "queries", "round_trip")}
    written["seconds"] = round(time.monotonic() - started, 1)
    print(name, written, flush=True)
    made = open_collection(out)
    limit = min(MOST, about["queries"]["kept"])
    every: dict[str, Any] = {}
    groups: dict[str, list[str]] = {}
    trained_on: dict[str, int] = {}
    for kind in KINDS:
        config = load_config(
            CONFIG,
            [
                f"collection={out}",
                f"out={runs / name / kind}",
                f"seeds={list(seeds)}",
                f"teacher.store={runs / name / 'scores'}",
                f"unlabelled.limit={limit}",
                f"unlabelled.kind={'queries' if kind == 'generated' else kind}",
                *(["unlabelled.log=generated"] if kind == "generated" else []),
            ],
        )
        run(config, lambda stage, done, place: None)
        work = Workspace(config.out)
        trained_on[kind] = len(read_json(work.path("queries", "unlabelled.json"))["texts"])
        for student in config.students:
            group = f"{student}, {kind}"
            groups[group] = [f"{group}, seed {seed}" for seed in seeds]
            for seed, member in zip(seeds, groups[group], strict=True):
                every[member] = read_run(work.path("runs", f"{student}-seed{seed}.trec"))
        for system in ("bm25", "encoder", "teacher"):
            key = f"teacher, {kind}" if system == "teacher" else system
            every[key] = read_run(work.path("runs", f"{system}.trec"))
    evaluation = evaluate(made.qrels("test"), every, [MEASURE]).group(groups)
    tests = {}
    for student in config.students:
        own = {f"{student}, {kind}": groups[f"{student}, {kind}"] for kind in KINDS}
        members = {member: every[member] for group in own.values() for member in group}
        chosen = evaluate(made.qrels("test"), members, [MEASURE]).group(own)
        pairs = compare(chosen, baseline=f"{student}, sentences", measures=[MEASURE])
        tests[student] = [vars(test) for test in pairs]
    return {
        "queries": len(evaluation.queries),
        "trained_on": trained_on,
        "written": written,
        "means": {system: evaluation.per_seed(system, MEASURE) for system in evaluation.systems},
        "tests": tests,
        "examples": _examples(out),
    }


def _examples(folder: Path, count: int = 5) -> list[str]:
    made = open_collection(folder)
    texts = list(made.query_texts("generated").values())
    return texts[:: max(1, len(texts) // count)][:count]
