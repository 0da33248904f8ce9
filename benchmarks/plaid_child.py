"""Builds and searches fast-plaid's indexes of saved token vectors; benchmarks/plaid.py starts it.

It runs in an environment of its own, without this package: fast-plaid wants another torch than
ours. FOLDER holds `queries.npz` and, per pool, `tokens-POOL.npz`, each with `tokens` (float16, one
row per token) and `lengths`; `settings.json` says what to build and search. Writes
`found-POOL-BITS.json` for each index, and leaves those that are there.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fast_plaid.search import FastPlaid


def main() -> None:
    """Build each index, search it with each setting, and write what was found and timed."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    settings = json.loads((folder / "settings.json").read_text())
    queries = matrices(folder / "queries.npz")
    for pool, bits in settings["variants"]:
        out = folder / f"found-{pool:g}-{bits}.json"
        if out.exists():
            continue
        path = folder / f"plaid-{pool:g}-{bits}"
        shutil.rmtree(path, ignore_errors=True)
        documents = matrices(folder / f"tokens-{pool:g}.npz")
        start = time.perf_counter()
        index = FastPlaid(index=str(path), device="cpu")
        index.create(documents_embeddings=documents, nbits=bits, seed=settings["seed"])
        seconds = time.perf_counter() - start
        searches = []
        for parameters in settings["searches"]:
            print(f"fast-plaid: pool {pool:g}, {bits} bits, {parameters}", flush=True)
            searches.append({**parameters, **search(index, queries, settings["depth"], parameters)})
        files = {file.name: file.stat().st_size for file in path.rglob("*") if file.is_file()}
        found = {"torch": torch.__version__, "pool": pool, "bits": bits, "files": files}
        found |= {"build_seconds": round(seconds, 1), "searches": searches}
        partial = out.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.replace(out)


def matrices(path: Path) -> list[torch.Tensor]:
    """Read one matrix of token vectors per text."""
    with np.load(path) as saved:
        return list(torch.from_numpy(saved["tokens"]).split(saved["lengths"].tolist()))


def search(
    index: FastPlaid, queries: list[torch.Tensor], depth: int, parameters: dict[str, int]
) -> dict[str, Any]:
    """Search for one query at a time, the first one twice. Times are milliseconds."""
    rankings, wall, processor = [], [], []
    for query in [queries[0], *queries]:
        start, cpu = time.perf_counter(), time.process_time()
        [ranking] = index.search([query], top_k=depth, show_progress=False, **parameters)
        processor.append(1000 * (time.process_time() - cpu))
        wall.append(1000 * (time.perf_counter() - start))
        rankings.append(ranking)
    return {"rankings": rankings[1:], "wall": wall[1:], "cpu": processor[1:]}


if __name__ == "__main__":
    main()
