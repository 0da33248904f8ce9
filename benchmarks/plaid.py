"""Compares small multi-vector indexes with PLAID's on the same token vectors.

    python -m benchmarks.plaid --plaid PYTHON --cache FOLDER --unpooled

PYTHON is that of an environment with `pip install fast-plaid==1.7.0.2110`, PLAID
(https://arxiv.org/abs/2205.09707) by the authors of PyLate. Its pins do not go with ours, so it
runs in a process of its own. Model, vectors and questions are those of
benchmarks/multi_vector_index.py, whose cache can be named. Both get the same vectors, pooled (and
with --unpooled as they are), at the same bits, with one thread and one query at a time. fast-plaid
searches with its defaults, and with as many documents scored in full as ours. Nothing is chosen
here. Started again, it keeps fast-plaid's indexes that were searched.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import save
from benchmarks.multi_vector_index import (
    BASE,
    DEPTH,
    exact_index,
    kernel_rankings,
    pooled,
    report,
    search,
    size,
    tokens_of,
)
from retrieval_kd import Index, open_collection
from retrieval_kd.indexing import multi_vector_coded
from retrieval_kd.indexing.topk import Ranking
from retrieval_kd.models.vectors import Tokens

VARIANTS = ((2.0, 1), (2.0, 2), (2.0, 4))  # pool and bits
UNPOOLED = (1.0, 4)  # fast-plaid's default
OURS = "candidates=256,nprobe=16"
SEARCHES = (  # fast-plaid's default, and as many documents scored in full as ours
    {"n_full_scores": 4096, "n_ivf_probe": 8},
    {"n_full_scores": 256, "n_ivf_probe": 8},
)
SEED = 42  # fast-plaid's default


def main() -> None:
    """Print the table and write results/plaid.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plaid", required=True, help="the Python that has fast-plaid")
    parser.add_argument("--collection", default="squad.zip")
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=300, help="at most so many of the split")
    parser.add_argument("--unpooled", action="store_true", help="at 4 bits too: 10 minutes more")
    parser.add_argument("--cache", type=Path, required=True, help="folder for model and indexes")
    options = parser.parse_args()
    variants = [*VARIANTS, *([UNPOOLED] if options.unpooled else [])]
    torch.set_num_threads(1)
    collection = open_collection(options.collection)
    exact = exact_index(collection, options.cache)
    texts = dict(list(collection.query_texts(options.split).items())[: options.queries])
    queries = exact.encode(list(texts.values()))
    rankings = kernel_rankings(exact, queries)
    rows: list[dict[str, Any]] = []

    def note(row: dict[str, Any], found: list[Ranking]) -> None:
        report(row, collection, options.split, list(texts), found, rankings)
        rows.append(row)

    folder = options.cache / "plaid"
    folder.mkdir(exist_ok=True)
    save_tokens(folder / "queries.npz", queries)
    for pool in dict.fromkeys(pool for pool, _ in variants):
        shards = pooled(exact.vectors, options.cache / f"pool-{pool:g}", pool)
        save_tokens(
            folder / f"tokens-{pool:g}.npz", [row for path in shards for row in tokens_of(path)]
        )
        for bits in (bits for other, bits in variants if other == pool):
            note(*ours(exact, queries, shards, options.cache, pool, bits))
    found = run_plaid(options.plaid, folder, variants)
    for index in found:
        for searched in index["searches"]:
            note(*plaid(exact, index, searched))
    record = {"collection": collection.name, "split": options.split, "documents": len(exact)}
    record |= {"queries": len(texts), "model": BASE, "fast_plaid_torch": found[0]["torch"]}
    print(save("plaid", {**record, "threads": 1, "rows": rows}))


def save_tokens(path: Path, rows: Tokens) -> None:
    """Write token vectors as the other process reads them."""
    lengths = np.array([len(row) for row in rows])
    np.savez(path, tokens=np.concatenate(rows).astype(np.float16), lengths=lengths)


def ours(
    exact: Index, queries: Tokens, shards: list[Path], cache: Path, pool: float, bits: int
) -> tuple[dict[str, Any], list[Ranking]]:
    """Build and search our index of these tokens."""
    out = cache / f"pool-{pool:g}-bits-{bits}"
    out.mkdir(exist_ok=True)
    multi_vector_coded.write_codes(shards, bits, 0, out)
    manifest = {"query_prompt": None, "spec": {"search": OURS}}
    found, timed = search(exact, multi_vector_coded.CodedTokens(out, manifest, None), queries)
    name = f"ours, pool {pool:g}, {bits} bits, {OURS}"
    return {"index": name, "pool": pool, "bits": bits, "bytes": size(out), **timed}, found


def run_plaid(python: str, folder: Path, variants: list[tuple[float, int]]) -> list[dict[str, Any]]:
    """Let fast-plaid build and search with one thread in its own environment."""
    settings = {"variants": variants, "searches": SEARCHES, "depth": DEPTH, "seed": SEED}
    (folder / "settings.json").write_text(json.dumps(settings))
    script = Path(__file__).with_name("plaid_child.py")
    threads = ("OMP", "MKL", "OPENBLAS", "RAYON")
    environment = os.environ | {f"{library}_NUM_THREADS": "1" for library in threads}
    subprocess.run([python, str(script), str(folder)], env=environment, check=True)
    paths = [folder / f"found-{pool:g}-{bits}.json" for pool, bits in variants]
    return [json.loads(path.read_text()) for path in paths]


def plaid(
    exact: Index, index: dict[str, Any], searched: dict[str, Any]
) -> tuple[dict[str, Any], list[Ranking]]:
    """Turn what the other process found into a row and rankings of document IDs."""
    parameters = {name: searched[name] for name in SEARCHES[0]}
    name = ",".join(f"{key}={value}" for key, value in parameters.items())
    row = {key: index[key] for key in ("pool", "bits", "build_seconds")}
    row = {"index": f"fast-plaid, pool {row['pool']:g}, {row['bits']} bits, {name}", **row}
    row["bytes"] = sum(index["files"].values())
    for clock in ("wall", "cpu"):
        for quantile in (50, 95):
            value = float(np.quantile(searched[clock], quantile / 100))
            row[f"{clock}_ms_p{quantile}"] = round(value, 2)
    rankings = [
        {exact._id_at(position): score for position, score in ranking}
        for ranking in searched["rankings"]
    ]
    return row, rankings


if __name__ == "__main__":
    main()
