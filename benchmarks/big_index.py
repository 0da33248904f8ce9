"""Builds an index of more vectors than fit into a memory bound, kills the build once, searches it.

    python -m benchmarks.big_index                        # ten million, about half an hour
    python -m benchmarks.big_index --vectors 200000       # a try

Vectors are made of the packaged encoder's, of SQuAD's documents: each is a document's vector and
one of its ten nearest neighbours', mixed evenly at random, plus noise a third of its length, at
unit length; half precision, on disk. `rkd index vectors` builds `SPEC` in a process of its own,
which is killed with SIGKILL some time after its first part is written, and started again. The peak
of its resident memory is measured, with and without what is mapped from files. Queries are real dev
questions; exact search reads the file block by block. Results go to results/big_index.json.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.indexing import DEPTH, ENCODER, NEIGHBOURS, blended, flat
from benchmarks.measure import save, seconds
from retrieval_kd.indexing.dense import faiss_threads
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.parts import PART

NOISE, BLOCK = 1 / 3, 65_536
SPEC = """factory: {factory}
train_documents: {sample}
search: nprobe={nprobe}
"""


def main() -> None:
    """Make the vectors, build, kill, resume, search; print and write what was measured."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    real, queries = load(options.queries)
    file = options.out / f"vectors-{options.vectors}.npy"
    if not file.exists():
        make(real, file, options.vectors)
    spec = options.out / "spec.yaml"
    spec.write_text(
        SPEC.format(factory=options.factory, sample=options.sample, nprobe=options.nprobe)
    )
    command = [
        sys.executable, "-m", "retrieval_kd", "index", "vectors", "--vectors", str(file),
        "--model", ENCODER, "--spec", str(spec), "--out", str(options.out / "index"),
    ]  # fmt: skip
    kill = options.vectors > PART
    killed = built(command, options.out / "index", kill_at=random.Random(0).uniform(1, 4))
    whole = built(command, options.out / "index") if kill else killed
    record = {
        "settings": {key: value for key, value in vars(options).items() if key != "out"},
        "killed": killed if kill else None,
        "resumed": whole,
        **searched(options.out / "index", file, queries),
    }
    for key, value in record.items():
        print(key, value)
    print(save("big_index", record))


def load(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return real vectors, of documents (D, d) and of queries (Q, d)."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.models.encode import document_vectors, encode_queries
    from retrieval_kd.models.load import load_encoder

    collection = open_collection("squad")
    model = load_encoder(ENCODER, max_length=256)
    texts = list(collection.query_texts("dev").values())[:count]
    documents = document_vectors(ENCODER, collection.documents, max_length=256)
    return np.asarray(documents, np.float32), encode_queries(model, texts)


def make(real: np.ndarray, path: Path, count: int) -> None:
    """Write `count` vectors made of the real ones, which come first, to a .npy file."""
    draw = np.random.default_rng(0)
    near = flat(real).search(real, NEIGHBOURS + 1, 1)[:, 1:]  # (D, NEIGHBOURS)
    partial = path.with_suffix(".part")
    out = np.lib.format.open_memmap(
        partial, mode="w+", dtype=np.float16, shape=(count, real.shape[1])
    )
    out[: len(real)] = real[:count]
    for start in range(len(real), count, BLOCK):
        size = min(BLOCK, count - start)
        out[start : start + size] = blended(real, near, size, draw, NOISE)
    out.flush()
    del out
    partial.rename(path)


def built(command: list[str], folder: Path, kill_at: float | None = None) -> dict[str, Any]:
    """Run the build, and kill it so many parts' times after its first part; return what it took.

    Memory that is mapped from files counts as resident too, so `anonymous` has what cannot be
    given back.
    """
    start, peak, anonymous, first = time.monotonic(), 0, 0, None
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            memory = watched.memory_info()
        except psutil.NoSuchProcess:
            break
        peak = max(peak, memory.rss)
        anonymous = max(anonymous, memory.rss - memory.shared)
        parts = list(folder.glob(".parts-*/0*.faiss"))
        if kill_at is not None and parts:
            first = first or time.monotonic()
            if time.monotonic() - first > kill_at * 10 or len(parts) > 1 + kill_at:
                process.send_signal(signal.SIGKILL)
                process.wait()
        time.sleep(0.2)
    return {
        "exit": process.wait(),
        "seconds": round(time.monotonic() - start, 1),
        "peak_gib": round(peak / 2**30, 2),
        "peak_gib_without_mapped_files": round(anonymous / 2**30, 2),
        "parts_on_disk": len(list(folder.glob(".parts-*/0*.faiss"))),
    }


def searched(folder: Path, file: Path, queries: np.ndarray) -> dict[str, Any]:
    """Return recall against exact search, bytes, and times of searching."""
    rows = np.load(file, mmap_mode="r")
    start = time.monotonic()
    exact = best(rows, queries)
    took = time.monotonic() - start
    start = time.monotonic()
    index = Index.open(folder, verify=False)
    opened = time.monotonic() - start
    found = [[int(id) for id, _ in hits] for hits in index.search_vectors(queries, DEPTH)]
    same = [len(set(row) & set(right)) for row, right in zip(found, exact, strict=True)]
    rates = {}
    for threads in (1, 2):
        with faiss_threads(threads):
            times = [seconds(lambda: index.vectors.search(queries, DEPTH)) for _ in range(3)]
        rates[f"queries_per_second_{threads}"] = round(len(queries) / float(np.median(times)), 1)
    with faiss_threads(1):
        alone = [
            1000 * seconds(lambda q=q: index.vectors.search(q[None], DEPTH)) for q in queries[:200]
        ]
    return {
        "recall@10": round(float(np.mean(same)) / DEPTH, 4),
        "queries": len(queries),
        "exact_search_seconds": round(took, 1),
        "opened_in_seconds": round(opened, 1),
        **rates,
        "ms_p50": round(float(np.percentile(alone, 50)), 2),
        "ms_p95": round(float(np.percentile(alone, 95)), 2),
        "bytes_per_vector": round(index.manifest["bytes"] / len(index), 1),
        "build_seconds": index.manifest["seconds"],
    }


def best(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the positions (Q, DEPTH) of exact search, reading the rows block by block."""
    scores = np.full((len(queries), DEPTH), -np.inf, np.float32)
    at = np.zeros((len(queries), DEPTH), np.int64)
    for start in range(0, len(rows), BLOCK):
        block = np.asarray(rows[start : start + BLOCK], np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        own = queries @ block.T  # (Q, BLOCK)
        top = np.argpartition(own, -DEPTH, axis=1)[:, -DEPTH:]
        scores = np.concatenate([scores, np.take_along_axis(own, top, axis=1)], axis=1)
        at = np.concatenate([at, top + start], axis=1)
        keep = np.argpartition(scores, -DEPTH, axis=1)[:, -DEPTH:]
        scores = np.take_along_axis(scores, keep, axis=1)
        at = np.take_along_axis(at, keep, axis=1)
    return at


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=10_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--factory", default="IVF4096,SQ8")
    parser.add_argument("--sample", type=int, default=160_000, help="vectors to train on")
    parser.add_argument("--nprobe", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/big_index"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
