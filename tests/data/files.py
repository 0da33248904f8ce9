"""Writes the smallest collections there are, for the tests of the readers to read or to break."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

DOCUMENTS = [
    ("d1", "Tides", "The moon pulls the sea."),
    ("d2", "", "The sun warms the land."),
    ("d3", "Wind", "Air moves from high pressure to low."),
]
QUERIES = [("q1", "why are there tides"), ("q2", "what is wind")]
QRELS = {"test": {"q1": {"d1": 1, "d2": 0}}, "train": {"q2": {"d3": 2}}}


def write(path: Path, text: str | bytes) -> Path:
    """Write text (gzipped if the name ends in .gz) or bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode("utf-8") if isinstance(text, str) else text
    gzipped = path.suffix == ".gz" and isinstance(text, str)
    path.write_bytes(gzip.compress(data) if gzipped else data)
    return path


def write_beir(
    folder: Path,
    documents: Iterable[tuple[str, str, str]] = DOCUMENTS,
    queries: Iterable[tuple[str, str]] = QUERIES,
    qrels: Mapping[str, Mapping[str, Mapping[str, int]]] = QRELS,
    ending: str = "",
) -> Path:
    corpus = [{"_id": i, "title": title, "text": text} for i, title, text in documents]
    questions = [{"_id": i, "text": text} for i, text in queries]
    for name, records in (("corpus", corpus), ("queries", questions)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write(folder / f"{name}.jsonl{ending}", lines)
    for split, judged in qrels.items():
        pairs = [(q, d, gain) for q, found in judged.items() for d, gain in found.items()]
        lines = "".join(f"{q}\t{d}\t{gain}\n" for q, d, gain in pairs)
        write(folder / "qrels" / f"{split}.tsv{ending}", "query-id\tcorpus-id\tscore\n" + lines)
    return folder


def zip_folder(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{prefix}{file.relative_to(folder).as_posix()}")
    return target


def write_trec(folder: Path) -> Path:
    """The same collection in TREC's forms: SGML, topics without end tags, four-column qrels."""
    documents = "".join(
        f"<DOC>\n<DOCNO> {i} </DOCNO>\n<TITLE>{title}</TITLE>\n\n<TEXT>\n<P>{text}</P>\n</TEXT>\n"
        "</DOC>\n"
        for i, title, text in DOCUMENTS
    )
    write(folder / "documents" / "part1.sgml.gz", documents)
    topics = "".join(
        f"<top>\n<num> Number: {i}\n<title> {text}\n\n<desc> Description:\nMore.\n</top>\n"
        for i, text in QUERIES
    )
    write(folder / "topics.txt", topics)
    for split, judged in QRELS.items():
        pairs = [(q, d, gain) for q, found in judged.items() for d, gain in found.items()]
        write(folder / f"qrels.{split}.txt", "".join(f"{q} 0 {d} {g}\n" for q, d, g in pairs))
    return folder


def write_msmarco(folder: Path) -> Path:
    """The same collection as MS MARCO's tables, without titles; q1 stands in two query files."""
    write(folder / "collection.tsv", "".join(f"{i}\t{text}\n" for i, _, text in DOCUMENTS))
    (q1, q2) = (f"{i}\t{text}\n" for i, text in QUERIES)
    write(folder / "queries.test.tsv", q1)
    write(folder / "queries.train.tsv.gz", q1 + q2)
    for split, judged in QRELS.items():
        pairs = [(q, d, gain) for q, found in judged.items() for d, gain in found.items()]
        lines = "".join(f"{q}\t0\t{d}\t{g}\n" for q, d, g in pairs)
        write(folder / f"qrels.{split}.tsv", lines)
    return folder
