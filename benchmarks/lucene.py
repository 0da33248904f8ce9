"""Lucene's BM25 (through pyserini) against ours on SciFact, with the commands of `rkd`.

    python -m benchmarks.lucene [--collection scifact]

Needs the extra `pyserini` (`make lucene`). Prints nDCG@10 and recall@100 of each retriever, the
published figures, and the share of the top ten documents in common with Lucene.
Half a minute on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import save
from retrieval_kd import Run, read_run
from retrieval_kd.files import read_json

RETRIEVERS = ("lucene", "lucene-multifield", "bm25-lucene", "bm25")
# nDCG@10, recall@100 of Anserini's regressions, from its jar:
# reproduce/from-document-collection/configs/beir-v1.0.0-scifact.flat.yaml and .multifield.yaml
PUBLISHED = {"lucene": (0.6789, 0.9253), "lucene-multifield": (0.6647, 0.9076)}


def main() -> None:
    """Print the table and write results/lucene.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="scifact")
    arguments = parser.parse_args()
    source = ("--collection", arguments.collection, "--split", "test")
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.trec" for name in RETRIEVERS}
        for name, out in files.items():
            rkd("retrieve", *source, "--with", name, "--depth", "100", "--out", str(out))
        result = Path(folder) / "result.json"
        options = [part for out in files.values() for part in ("--run", str(out))]
        rkd(
            "evaluate", *source, *options, "--measures", "ndcg@10,recall@100", "--json", str(result)
        )
        record, runs = read_json(result), {name: read_run(out) for name, out in files.items()}
    rows: dict[str, dict] = {}
    for name in RETRIEVERS:
        row = rows[name] = {m: round(v, 4) for m, v in record["systems"][name]["mean"].items()}
        row["published"] = PUBLISHED.get(name) if arguments.collection == "scifact" else None
        row["top_10_shared_with_lucene"] = round(shared(runs[name], runs["lucene"]), 3)
        print(f"{name:18} {row}")
    print(save("lucene", {"settings": vars(arguments), "systems": rows}))


def rkd(*arguments: str) -> None:
    subprocess.run([Path(sys.executable).with_name("rkd"), *arguments], check=True)


def shared(a: Run, b: Run, depth: int = 10) -> float:
    """Mean over queries of the overlap of the two top tens, divided by the longer one's size."""
    shares = []
    for query, ranking in b.results.items():
        left, right = list(a.results.get(query, {}))[:depth], list(ranking)[:depth]
        if left or right:
            shares.append(len({*left} & {*right}) / max(len(left), len(right)))
    return sum(shares) / len(shares)


if __name__ == "__main__":
    main()
