"""Measures the audit's time and memory, and what its near-duplicate check finds.

    python -m benchmarks.audit [--collection medquad] [--rates 0.05 0.1 0.2 0.3]

Time and peak memory: a collection is audited against a copy with other IDs, half of whose texts are
edited, in a process of its own. Precision and recall: texts are edited at several rates (a word is
replaced by a word of the collection, deleted, or followed by one, a third each); then edited texts
that are paired with their originals and pairs of other texts are counted. A collection has
near-duplicates of its own, so precision is also given without the pairs found among the originals.
Ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import save, write_texts
from retrieval_kd import Collection, open_collection
from retrieval_kd.audit.audit import audit
from retrieval_kd.audit.near import near_pairs
from retrieval_kd.audit.normalise import normalise, words
from retrieval_kd.audit.overlap import DOCUMENTS, QUERIES
from retrieval_kd.audit.texts import DistinctTexts, TextList
from retrieval_kd.data.qrels import write_qrels
from retrieval_kd.data.texts import Document, Texts

SAMPLE = 1_000  # texts of a kind that are edited
REAL = (
    ("scifact:train", "scifact:test"),
    ("squad:train", "squad:test"),
    ("squad:train", "xquad-en:test"),
    ("squad:train", "xquad-en:heldout"),
    ("medquad:train", "cranfield:test"),
    ("squad:train", "cranfield:test"),
)


def edit(text: str, rate: float, vocabulary: list[str], rng: random.Random) -> str:
    """Change each word with probability `rate`."""
    edited: list[str] = []
    for word in text.split():
        if rng.random() >= rate:
            edited.append(word)
        elif (kind := rng.randrange(3)) == 0:
            edited.append(rng.choice(vocabulary))
        elif kind == 1:
            edited += [word, rng.choice(vocabulary)]
    return " ".join(edited) or text


def edited_copy(collection: Collection, folder: Path, split: str, seed: int = 0) -> None:
    """Write a BEIR folder of the collection with other IDs, every second text edited at 10 %."""
    rng = random.Random(seed)
    for name, texts in (("corpus", collection.documents), ("queries", collection.queries)):
        vocabulary = [word for i in range(200) for word in texts.at(i).full.split()]
        rows = []
        for i, document in enumerate(texts.iterate()):
            text = document.full
            text = edit(text, 0.1, vocabulary, rng) if i % 2 else text
            rows.append(Document(f"copy-{document.id}", "", text))
        write_texts(folder / f"{name}.jsonl", rows)
    qrels = {
        f"copy-{query}": {f"copy-{document}": gain for document, gain in judged.items()}
        for query, judged in collection.qrels(split).items()
    }
    write_qrels(qrels, folder / "qrels" / "test.tsv")


def cost(train: str, evaluate_on: str) -> dict[str, Any]:
    """Run one audit in a process of its own. Returns wall and processor seconds and peak memory."""
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.audit", "--one", train, evaluate_on],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


def measure_one(train: str, evaluate_on: str) -> None:
    """Run one audit and print its cost: the process that `cost` starts."""
    for spec in (train, evaluate_on):  # do not measure the reading of sources
        open_collection(spec.rpartition(":")[0])
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.monotonic(), time.process_time()
    result = audit([train], evaluate_on)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record = result.to_json()
    kept = ("evaluated", "trained", "queries", "counts", "not_checked")
    print(json.dumps({
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mib": round(peak / 1024), "peak_above_start_mib": round((peak - idle) / 1024),
        "pairs": len(result.pairs), **{key: record[key] for key in kept},
    }))  # fmt: skip


def quality(texts: Texts, threshold: float, rates: list[float], seed: int = 0) -> dict[str, Any]:
    """Measure precision and recall of the near-duplicate check on edited copies of some texts."""
    rng = random.Random(seed)
    rows = sorted(rng.sample(range(len(texts)), min(SAMPLE, len(texts))))
    originals = {texts.id_at(i): texts.at(i).full for i in rows}
    originals = {id: text for id, text in originals.items() if normalise(text)}
    vocabulary = [word for text in originals.values() for word in words(normalise(text))]
    sources = DistinctTexts(TextList("originals", "", originals))
    natural = near_ids(sources, sources, threshold)
    record: dict[str, Any] = {"texts": len(originals), "threshold": threshold}
    for rate in rates:
        copies = {id: edit(text, rate, vocabulary, rng) for id, text in originals.items()}
        pairs = near_ids(DistinctTexts(TextList("copies", "", copies)), sources, threshold)
        right = {left for left, right in pairs if same(originals, left, right)}
        wrong = {pair for pair in pairs if not same(originals, *pair)}
        record[f"{rate:.0%}"] = {
            "recall": round(len(right) / len(originals), 4),
            "precision": round(1 - len(wrong) / max(1, len(pairs)), 4),
            "precision_without_natural": round(
                1 - len(wrong - natural) / max(1, len(pairs - (wrong & natural))), 4
            ),
            "pairs": len(pairs),
        }
    return record


def same(originals: dict[str, str], left: str, right: str) -> bool:
    """Whether `right` is the original of `left`, or an equal text."""
    return left == right or normalise(originals[left]) == normalise(originals[right])


def near_ids(
    copies: DistinctTexts, sources: DistinctTexts, threshold: float
) -> set[tuple[str, str]]:
    """Return the pairs of IDs that the check finds."""
    return {
        (copies.texts.id(a), sources.texts.id(b))
        for i, j, _ in near_pairs(copies, sources, threshold, most=50)
        for a in copies.members(i).tolist()
        for b in sources.members(j).tolist()
    }


def main() -> None:
    """Print the measurements and write results/audit.json."""
    arguments = parse()
    if arguments.one:
        measure_one(*arguments.one)
        return
    record: dict[str, Any] = {"settings": {"collection": arguments.collection,
                                           "split": arguments.split, "sample": SAMPLE}}  # fmt: skip
    collection = open_collection(arguments.collection)
    with tempfile.TemporaryDirectory() as name:
        edited_copy(collection, Path(name), arguments.split)
        spec = f"{arguments.collection}:{arguments.split}"
        record["cost"] = cost(spec, f"{name}:test")
    record["cost"]["evaluated"]["name"] = "edited copy:test"
    lines = record["cost"]["not_checked"]
    record["cost"]["not_checked"] = [line.replace(name, "edited copy") for line in lines]
    print(json.dumps(record["cost"], indent=1))
    record["near_duplicates"] = {}
    for name in arguments.quality:
        texts = open_collection(name)
        record["near_duplicates"][name] = {
            "queries": quality(texts.queries, QUERIES.near, arguments.rates),
            "documents": quality(texts.documents, DOCUMENTS.near, arguments.rates),
        }
        print(name, json.dumps(record["near_duplicates"][name], indent=1))
    record["real"] = {f"{train} → {test}": cost(train, test) for train, test in REAL}
    for pair, facts in record["real"].items():
        print(pair, facts["queries"], facts["counts"])
    print(save("audit", record))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="medquad")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rates", type=float, nargs="*", default=[0.05, 0.1, 0.2, 0.3])
    parser.add_argument("--quality", nargs="*", default=["squad", "scifact", "medquad"])
    parser.add_argument("--one", nargs=2, metavar=("TRAIN", "EVAL"), help="a single audit")
    return parser.parse_args()


if __name__ == "__main__":
    main()
