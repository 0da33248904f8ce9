"""Splits MedQuAD's questions by focus, so that no disease of a test question is in training.

MedQuAD has one split. The focus of an answer is its title ("Fabry disease"), that of a question the
focus of its answers. SHA-256 of the focus, lower case, modulo 10: 0 is test, 1 is dev, the rest is
train. Questions whose answers have focuses of several splits are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

from retrieval_kd.data.collection import open_collection
from retrieval_kd.files import write_json, write_text

SPLITS = {0: "test", 1: "dev"}


def split_of(title: str) -> str:
    """Return the split of a focus.

    Example:
        >>> split_of("Fabry disease"), split_of(" FABRY DISEASE")
        ('train', 'train')
    """
    digest = hashlib.sha256(title.strip().lower().encode()).hexdigest()
    return SPLITS.get(int(digest, 16) % 10, "train")


def split_by_focus(folder: Path) -> Path:
    """Write MedQuAD with splits train, dev and test as a BEIR folder, once. Returns the folder."""
    record = folder / "split.json"
    if record.exists():
        return folder
    collection = open_collection("medquad")
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    splits, corpus = {}, []
    for document in collection.documents.iterate():
        splits[document.id] = split_of(document.title or document.id)
        row = {"_id": document.id, "title": document.title, "text": document.text}
        corpus.append(json.dumps(row, ensure_ascii=False))
    write_text(folder / "corpus.jsonl", "\n".join([*corpus, ""]))
    texts, qrels = collection.query_texts("train"), collection.qrels("train")
    lines: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    counts: Counter[str] = Counter()
    for query, judged in qrels.items():
        of = {splits[document] for document, gain in judged.items() if gain > 0}
        name = of.pop() if len(of) == 1 else "left out"
        counts[name] += 1
        if name in lines:
            lines[name] += [f"{query}\t{document}\t{gain}" for document, gain in judged.items()]
    queries = [json.dumps({"_id": id, "text": text}) for id, text in texts.items()]
    write_text(folder / "queries.jsonl", "\n".join([*queries, ""]))
    for name, rows in lines.items():
        head = "query-id\tcorpus-id\tscore"
        write_text(folder / "qrels" / f"{name}.tsv", "\n".join([head, *rows, ""]))
    write_json(record, {"rule": "sha256(focus) mod 10: 0 test, 1 dev", "queries": dict(counts)})
    print(f"MedQuAD by focus: {dict(counts)}", flush=True)
    return folder
