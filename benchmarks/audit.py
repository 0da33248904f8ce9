"""How long the audit takes, how much memory it needs, and what its near-duplicate check finds.

    python -m benchmarks.audit [--collection medquad] [--rates 0.05 0.1 0.2 0.3]

Time and peak memory: a collection against a copy under other IDs, half of whose texts are edited,
in a process of its own. Precision and recall: for each rate of random word edits (a third each:
replaced by a word of the collection, deleted, followed by one), how many edited texts are tied to
their originals, and how many pairs tie texts that are not each other's copies. A collection holds
near-duplicates by itself, so precision is also given without the pairs found among the originals.
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

from benchmarks.measure import save
from retrieval_kd.audit.audit import audit
from retrieval_kd.audit.near import near_pairs
from retrieval_kd.audit.normalise import normalise, words
from retrieval_kd.audit.overlap import DOCUMENTS, QUERIES
from retrieval_kd.audit.texts import DistinctTexts, TextList
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.texts import Texts
from retrieval_kd.files import write_text

SAMPLE = 1_000  # texts of a kind whose copies are looked for


def edit(text: str, rate: float, vocabulary: list[str], rng: random.Random) -> str:
    """A copy in which each word is changed with probability `rate`."""
    made: list[str] = []
    for word in text.split():
        if rng.random() >= rate:
            made.append(word)
        elif (kind := rng.randrange(3)) == 0:
            made.append(rng.choice(vocabulary))
        elif kind == 1:
            made += [word, rng.choice(vocabulary)]
    return " ".join(made) or text


def edited_copy(collection: Collection, folder: Path, split: str, seed: int = 0) -> None:
    """A BEIR folder: the collection's texts under other IDs, every second one edited at 10 %."""
    rng = random.Random(seed)
    for name, texts in (("corpus", collection.documents), ("queries", collection.queries)):
        vocabulary = [word for i in range(200) for word in texts.at(i).full.split()]
        rows = []
        for i, document in enumerate(texts.iterate()):
            text = document.full
            text = edit(text, 0.1, vocabulary, rng) if i % 2 else text
            rows.append(json.dumps({"_id": f"copy-{document.id}", "title": "", "text": text}))
        write_text(folder / f"{name}.jsonl", "\n".join(rows) + "\n")
    qrels = collection.qrels(split)
    lines = [f"copy-{q}\tcopy-{d}\t{g}" for q, found in qrels.items() for d, g in found.items()]
    write_text(
        folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n"
    )


def cost(train: str, evaluate_on: str) -> dict[str, Any]:
    """One audit in a process of its own: seconds of wall and processor, peak memory."""
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.audit", "--one", train, evaluate_on],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(made.stdout.splitlines()[-1])


def one(train: str, evaluate_on: str) -> None:
    """What `cost` starts."""
    for spec in (train, evaluate_on):  # reading a source is not the audit
        open_collection(spec.rpartition(":")[0])
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.monotonic(), time.process_time()
    found = audit([train], evaluate_on)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record = found.to_json()
    kept = ("evaluated", "trained", "queries", "counts", "not_checked")
    print(json.dumps({
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mib": round(peak / 1024), "peak_above_start_mib": round((peak - idle) / 1024),
        "pairs": len(found.pairs), **{key: record[key] for key in kept},
    }))  # fmt: skip


def quality(texts: Texts, threshold: float, rates: list[float], seed: int = 0) -> dict[str, Any]:
    """Precision and recall of the near-duplicate check on edited copies of a sample of texts."""
    rng = random.Random(seed)
    rows = sorted(rng.sample(range(len(texts)), min(SAMPLE, len(texts))))
    originals = {texts.id_at(i): texts.at(i).full for i in rows}
    originals = {id: text for id, text in originals.items() if normalise(text)}
    vocabulary = [word for text in originals.values() for word in words(normalise(text))]
    known = DistinctTexts(TextList("originals", "", originals))
    natural = tied(known, known, threshold)
    record: dict[str, Any] = {"texts": len(originals), "threshold": threshold}
    for rate in rates:
        copies = {id: edit(text, rate, vocabulary, rng) for id, text in originals.items()}
        pairs = tied(DistinctTexts(TextList("copies", "", copies)), known, threshold)
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
    """Whether the second is the first's original, or a text equal to it."""
    return left == right or normalise(originals[left]) == normalise(originals[right])


def tied(copies: DistinctTexts, known: DistinctTexts, threshold: float) -> set[tuple[str, str]]:
    """Pairs of IDs that the check finds."""
    return {
        (copies.texts.id(a), known.texts.id(b))
        for i, j, _ in near_pairs(copies, known, threshold, most=50)
        for a in copies.members(i).tolist()
        for b in known.members(j).tolist()
    }


def main() -> None:
    """Print what was measured and write results/audit.json."""
    arguments = parse()
    if arguments.one:
        one(*arguments.one)
        return
    record: dict[str, Any] = {"settings": {"collection": arguments.collection,
                                           "split": arguments.split, "sample": SAMPLE}}  # fmt: skip
    collection = open_collection(arguments.collection)
    with tempfile.TemporaryDirectory() as name:
        edited_copy(collection, Path(name), arguments.split)
        spec = f"{arguments.collection}:{arguments.split}"
        record["cost"] = cost(spec, f"{name}:test")
    record["cost"]["evaluated"]["name"] = "edited copy:test"
    told = record["cost"]["not_checked"]
    record["cost"]["not_checked"] = [line.replace(name, "edited copy") for line in told]
    print(json.dumps(record["cost"], indent=1))
    record["near_duplicates"] = {}
    for name in arguments.quality:
        texts = open_collection(name)
        record["near_duplicates"][name] = {
            "queries": quality(texts.queries, QUERIES.near, arguments.rates),
            "documents": quality(texts.documents, DOCUMENTS.near, arguments.rates),
        }
        print(name, json.dumps(record["near_duplicates"][name], indent=1))
    record["real"] = {f"{train} → {test}": cost(train, test) for train, test in arguments.real}
    for pair, found in record["real"].items():
        print(pair, found["queries"], found["counts"])
    print(save("audit", record))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="medquad")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rates", type=float, nargs="*", default=[0.05, 0.1, 0.2, 0.3])
    parser.add_argument("--quality", nargs="*", default=["squad", "scifact", "medquad"])
    parser.add_argument("--one", nargs=2, metavar=("TRAIN", "EVAL"), help="a single audit")
    parser.set_defaults(
        real=[
            ("scifact:train", "scifact:test"),
            ("squad:train", "squad:test"),
            ("squad:train", "xquad-en:test"),
            ("squad:train", "xquad-en:heldout"),
            ("medquad:train", "cranfield:test"),
            ("squad:train", "cranfield:test"),
        ]
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
