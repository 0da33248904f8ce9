"""Compares the fast index of a sparse model with the exact one: quality, size and speed.

    python -m benchmarks.sparse_index --model SPLADE --cache FOLDER --split dev     # choose
    python -m benchmarks.sparse_index --model SPLADE --cache FOLDER                 # test questions
    python -m benchmarks.sparse_index --model SPLADE --cache FOLDER --documents 200000

MedQuAD's documents are encoded once into an exact index in FOLDER, and kept there. More documents
are made of real ones: each takes half of the words, drawn at random, of two documents, with their
weights; with them there is no nDCG. Recall is the share of the exact ten that are found. One
thread; queries per second with all in one call, the median of rounds in turns, and milliseconds of
a query alone, without encoding it. Needs pyseismic-lsr.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack

from benchmarks.measure import interleaved, save, seconds
from benchmarks.medquad import split_by_focus
from retrieval_kd import Index, Run, evaluate, open_collection
from retrieval_kd.indexing import sparse, sparse_seismic
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.spec import SEISMIC_SEARCH, load_spec, seismic_parameters
from retrieval_kd.indexing.topk import top_k

DEPTH, ROUNDS, ALONE = 10, 3, 200
BUILDS = {
    "sparse-fast": load_spec("indexes/sparse-fast.yaml").build,
    "all weights kept": "kept=1,max_fraction=20,centroid_fraction=0.1,summary_energy=0.4",
}
SEARCHES = [f"query_cut={cut},heap_factor={heap}" for cut in (5, 10, 20) for heap in (0.6, 0.8, 1)]
DEFAULT = load_spec("indexes/sparse-fast.yaml").search


def main(arguments: Sequence[str] | None = None) -> None:
    """Build and search with all, print the table, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a sparse model, such as a SPLADE folder")
    parser.add_argument("--cache", type=Path, required=True, help="keeps the exact index")
    parser.add_argument("--collection", default="medquad")
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--documents", type=int, default=0, help="in all; 0: the real ones alone")
    parser.add_argument("--max-length", type=int, default=64)
    options = parser.parse_args(arguments)
    if os.environ.get("RAYON_NUM_THREADS") != "1":
        parser.error("set RAYON_NUM_THREADS=1: Seismic builds with all threads")
    index, collection = exact_index(options)
    texts = dict(list(collection.query_texts(options.split).items())[: options.queries])
    queries = index.encode(list(texts.values()))
    weights = vstack([part.T.tocsr() for part in index.vectors.postings], format="csr")  # (n, V)
    real = weights.shape[0]
    if options.documents > real:
        weights = mixed(weights, options.documents)
    data = {"texts": texts, "queries": queries, "weights": weights, "index": index}
    data["qrels"] = collection.qrels(options.split) if weights.shape[0] == real else None
    rows = measured(data, options.split)
    print(table(rows))
    suffix = "" if options.split == "test" else f"-{options.split}"
    suffix += f"-{weights.shape[0]}" if weights.shape[0] > real else ""
    settings = {
        "collection": options.collection,
        "split": options.split,
        "model": Path(options.model).name,
        "documents": weights.shape[0],
        "of_real_documents": real,
        "words_per_document": round(weights.nnz / weights.shape[0], 1),
        "words_per_query": round(queries.nnz / queries.shape[0], 1),
        "queries": len(texts),
        "max_length": options.max_length,
        "rounds": ROUNDS,
    }
    print(save(f"sparse_index{suffix}", {"settings": settings, "systems": rows}))


def exact_index(options: argparse.Namespace) -> tuple[Index, Any]:
    """Build the exact index of the collection, or open the one in the cache."""
    medquad = options.collection == "medquad"
    place = split_by_focus(options.cache / "by-focus") if medquad else options.collection
    collection = open_collection(str(place))
    spec = load_spec("indexes/sparse.yaml")
    folder = options.cache / f"exact-{options.collection}"
    index = build_index(collection, options.model, spec, folder, max_length=options.max_length)
    return index, collection


def mixed(weights: csr_matrix, count: int, seed: int = 0) -> csr_matrix:
    """Make more documents of these, which come first."""
    draw = np.random.default_rng(seed)
    made = [weights]
    for start in range(weights.shape[0], count, 8_192):
        pair = [weights[draw.integers(weights.shape[0], size=min(8_192, count - start))]
                for _ in range(2)]  # fmt: skip
        for half in pair:
            half.data *= draw.random(half.nnz) < 0.5
            half.eliminate_zeros()
        made.append(pair[0].maximum(pair[1]).astype(np.float32))
    return vstack(made, format="csr")


def measured(data: dict[str, Any], split: str) -> dict[str, dict[str, Any]]:
    """Build all, search with each, and return their rows by name."""
    weights, queries = data["weights"], data["queries"]
    # the format of segments and manifests is not needed to search the files
    manifest = {"query_prompt": None, "dimensions": weights.shape[1], "count": weights.shape[0]}
    systems: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as home:
        names = ["sparse", *BUILDS]
        for name in names:
            (folder := Path(home) / name.replace(" ", "-")).mkdir()
            start = time.perf_counter()
            if name == "sparse":
                sparse.save(weights, folder)
            else:
                sparse_seismic.write_rows([weights], weights.shape[1], BUILDS[name], folder)
            took = time.perf_counter() - start
            size = sum(path.stat().st_size for path in folder.iterdir()) / weights.shape[0]
            cost = {"bytes_per_document": round(size), "build_seconds": round(took, 2)}
            if name == "sparse":
                systems[name], rows[name] = sparse.SparseVectors(folder, manifest), cost
                continue
            searches = SEARCHES if name == "sparse-fast" else [DEFAULT]
            for search in searches:
                spec = {"build": BUILDS[name], "search": search}
                opened = sparse_seismic.SeismicVectors(folder, {**manifest, "spec": spec}, None)
                shipped = seismic_parameters(search, SEISMIC_SEARCH) == seismic_parameters(
                    DEFAULT, SEISMIC_SEARCH
                )
                label = name if shipped else f"{name}, {search}"
                systems[label], rows[label] = opened, dict(cost)
    exact: list[set[int]] = []
    for name, system in systems.items():
        best = [best_ten(*found) for found in system.search(queries, DEPTH)]
        exact = exact or [set(row) for row in best]
        same = [len(of & set(row)) / max(1, len(of)) for of, row in zip(exact, best, strict=True)]
        rows[name]["recall@10"] = round(float(np.mean(same)), 4)
        if data["qrels"] is not None:
            rows[name]["ndcg@10"] = round(ndcg(data, best), 4)
    timed = interleaved({n: partial(s.search, queries, DEPTH) for n, s in systems.items()}, ROUNDS)
    for name, system in systems.items():
        rows[name]["queries_per_second"] = round(queries.shape[0] / timed[name].median, 1)
        alone = [seconds(partial(system.search, queries[row], DEPTH))
                 for row in range(min(ALONE, queries.shape[0]))]  # fmt: skip
        for part in (50, 95):
            rows[name][f"ms_p{part}"] = round(1000 * float(np.percentile(alone, part)), 3)
        print(name, rows[name], flush=True)
    return rows


def best_ten(positions: np.ndarray, scores: np.ndarray) -> list[int]:
    """Return the positions of the ten best."""
    return [int(id) for id in top_k(scores, DEPTH, str, positions=positions)]


def ndcg(data: dict[str, Any], best: list[list[int]]) -> float:
    """Return the mean nDCG@10 of the documents at these positions."""
    id_at = data["index"]._id_at
    results = {
        query: {id_at(at): float(DEPTH - rank) for rank, at in enumerate(row)}
        for query, row in zip(data["texts"], best, strict=True)
    }
    qrels = {query: data["qrels"][query] for query in data["texts"]}
    return evaluate(qrels, {"x": Run("x", results)}, ["ndcg@10"]).mean("x", "ndcg@10")


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Lay out all indexes."""
    names = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = [[name, *(str(row.get(key, "")) for key in names)] for name, row in rows.items()]
    head = ["index", *names]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


if __name__ == "__main__":
    main()
