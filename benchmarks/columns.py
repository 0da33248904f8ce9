"""Measures the way of scores from the store to the slates of a training, in rate and in memory.

    python -m benchmarks.columns --pairs 10_000_000 --folder FOLDER

Makes a collection of short texts and queries with 100 candidates each, writes made-up scores of two
teachers with the store's writer, and then does what `rkd train` does before and between its steps:
finds the stored pairs, reads the scores, fuses them, builds the pools and draws slates. Writing and
reading are processes of their own, whose peak memory is taken. No model runs. FOLDER keeps the
collection and the store (0.8 GB for ten million pairs). Three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import RESULTS, save
from retrieval_kd import open_collection
from retrieval_kd.config.training import TrainingStage
from retrieval_kd.data.collection import Collection
from retrieval_kd.errors import Drops
from retrieval_kd.files import read_json, write_text
from retrieval_kd.pipeline.pools import stage_pools
from retrieval_kd.pipeline.stored_ensemble import StoredEnsemble, StoredTeachers
from retrieval_kd.store.digests import document_digest, query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.training.batches.slates import draw_slates
from retrieval_kd.training.trainer.settings import TrainSettings

DEPTH = 100  # candidates of a query
TEACHERS = ("one", "two")
BATCHES, BATCH = 1_000, 64


def main() -> None:
    """Print the figures and write results/columns.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000, help="of each teacher")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--label", default="after", help="what the figures are kept under")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.folder / str(args.pairs)
    os.environ["RETRIEVAL_KD_CACHE"] = str(folder / "cache")
    if args.phase is not None:
        print(json.dumps(measured(PHASES[args.phase], folder, args.pairs)))
        return
    if not (folder / "made").exists():
        make_collection(folder, args.pairs)
    command = [sys.executable, "-m", "benchmarks.columns", "--folder", str(args.folder)]
    record: dict[str, Any] = {}
    for phase in PHASES:
        if phase == "write" and (folder / "store").exists():
            continue
        options = ["--pairs", str(args.pairs), "--phase", phase]
        done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True)
        record[phase] = json.loads(done.stdout.splitlines()[-1])
        print(phase, json.dumps(record[phase], indent=2))
    path = RESULTS / "columns.json"
    kept = read_json(path) if path.exists() else {}
    of_size = kept.get(f"{args.pairs} pairs", {})
    of_size[args.label] = {**of_size.get(args.label, {}), **record}
    settings = {"depth": DEPTH, "teachers": len(TEACHERS), "batches": BATCHES, "batch": BATCH}
    print(save("columns", {**kept, "settings": settings, f"{args.pairs} pairs": of_size}))


def measured(phase: Callable[..., None], folder: Path, pairs: int) -> dict[str, Any]:
    """Run a phase in this process: its seconds, the pairs in a second, and its memory."""
    collection, clock = open_collection(str(folder / "collection")), Clock()
    before = peak_bytes()
    phase(collection, folder / "store", pairs, clock)
    peak = peak_bytes()
    whole = sum(wall for step, (wall, _) in clock.steps.items() if "slates" not in step)
    return {
        "seconds": {step: round(wall, 2) for step, (wall, _) in clock.steps.items()},
        "processor_seconds": {step: round(own, 2) for step, (_, own) in clock.steps.items()},
        "pairs_per_second": round(len(TEACHERS) * pairs / whole),
        "peak_mib": round(peak / 2**20),
        "mib_before": round(before / 2**20),
        "bytes_per_pair": round((peak - before) / (len(TEACHERS) * pairs), 1),
    }


class Clock:
    """Wall and processor seconds by step, of which each ends as the next begins."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[float, float]] = {}
        self.start()

    def start(self) -> None:
        self._wall, self._own = time.perf_counter(), time.process_time()

    def end(self, step: str) -> None:
        self.steps[step] = (time.perf_counter() - self._wall, time.process_time() - self._own)
        self.start()


def peak_bytes() -> int:
    """Peak memory of this process; getrusage would count that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def make_collection(folder: Path, pairs: int) -> None:
    """Write queries and documents of a few words; a document is a candidate of ten queries."""
    source, rng = folder / "collection", np.random.default_rng(0)
    queries, documents = pairs // DEPTH, pairs // 10
    for name, count in (("corpus", documents), ("queries", queries)):
        words = rng.integers(0, 30_000, (count, 8))
        rows = (
            json.dumps({"_id": f"{name[0]}{row}", "text": " ".join(f"w{word}" for word in line)})
            for row, line in enumerate(words)
        )
        write_text(source / f"{name}.jsonl", "".join(f"{row}\n" for row in rows))
    judged = (f"q{query}\tc{candidates(query, documents)[0]}\t1\n" for query in range(queries))
    write_text(source / "qrels" / "train.tsv", "query-id\tcorpus-id\tscore\n" + "".join(judged))
    open_collection(str(source))
    write_text(folder / "made", "")


def candidates(query: int, documents: int) -> np.ndarray:
    """The candidates (DEPTH,) of a query, spread over the collection."""
    return (query * 37 + np.arange(DEPTH) * 7_919) % documents


def write(collection: Collection, store: Path, pairs: int, clock: Clock) -> None:
    """Write the scores of each teacher, a hundred queries at a time."""
    queries, documents = pairs // DEPTH, pairs // 10
    digests = [document_digest(d.title, d.text) for d in collection.documents.iterate()]
    of_query = [query_digest(q.full) for q in collection.queries.iterate()]
    rng = np.random.default_rng(1)
    for name in TEACHERS:
        clock.start()
        with ScoreStore(store).writer(TeacherKey("pointwise", name, digest=name)) as writer:
            for first in range(0, queries, 100):
                rows = range(first, min(first + 100, queries))
                asked = np.concatenate([candidates(query, documents) for query in rows]).tolist()
                writer.add(
                    [f"q{query}" for query in rows for _ in range(DEPTH)],
                    [f"c{document}" for document in asked],
                    [of_query[query] for query in rows for _ in range(DEPTH)],
                    [digests[document] for document in asked],
                    rng.normal(size=len(asked)),
                )
        clock.end(f"write teacher {name}")


def read(collection: Collection, store: Path, pairs: int, clock: Clock) -> None:
    """Read what the store has, fuse it, build the pools and draw slates of them."""
    settings, drops = TrainSettings(batch_queries=BATCH), Drops()
    stage = TrainingStage(objective="kl")
    teachers = StoredTeachers(store=store, names=list(TEACHERS))
    clock.start()
    ensemble = StoredEnsemble(collection, "train", None, teachers, None, drops)
    clock.end("find and fuse the stored pairs")
    pools, _ = stage_pools(stage, ensemble, "", drops)
    clock.end("fuse for the stage and build its pools")
    rng = np.random.default_rng(2)
    for batch in range(BATCHES):
        rows = [(int(pool), batch) for pool in rng.integers(0, len(pools), BATCH)]
        draw_slates(pools, rows, settings)
    clock.end(f"draw {BATCHES * BATCH} slates")
    assert not drops.counts and sum(len(pool.positions) for pool in pools) == pairs


PHASES = {"write": write, "read": read}

if __name__ == "__main__":
    main()
