"""Reads a folder of TREC files: documents in SGML or TSV, topics or TSV queries, and qrels.

A file's name decides its role. Qrels have `qrel` in the name, queries `topic` or `quer`. Documents
have a name that begins with documents, docs, corpus or collection, or are in a folder of that name.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import partial

from retrieval_kd.data.msmarco import tsv_queries, tsv_rows
from retrieval_kd.data.qrels import source_judgments
from retrieval_kd.data.rows import Reader, Reading, Row
from retrieval_kd.data.sources import Source
from retrieval_kd.errors import InputError

DOCUMENTS = re.compile(r"documents?|docs?|corpus|collection")
TAGS = re.compile(r"<!--.*?-->|</?[a-zA-Z][^<>]*>", re.DOTALL)
TITLES = ("TITLE", "HEADLINE", "HEAD", "HL", "TTL")
ASIDE = ("DOCNO", "DOCID", "DOCHDR", *TITLES)


def trec_reader(source: Source) -> Reader | None:
    """Return a reader if the file names include documents, or both topics and qrels."""
    files: dict[str, list[str]] = {"documents": [], "topics": [], "qrels": [], "ignored": []}
    for name in source.names:
        files[_role(name)].append(name)
    documents, topics, qrels = files["documents"], files["topics"], files["qrels"]
    if not documents and not (topics and qrels):
        return None
    for kind, names in (("documents", documents), ("topics or queries", topics)):
        if not names:
            remedy = f"add a file whose name begins with {kind.split()[0]}"
            raise InputError(f"a TREC folder without {kind}", file=source.path, remedy=remedy)
    splits: dict[str, str] = {}
    for name in qrels:
        split = _split(name)
        if split in splits:
            problem = f"two files for split {split!r}: {splits[split]} and {name}"
            raise InputError(problem, file=source.path, remedy="rename one of them")
        splits[split] = name
    return Reader(
        name=source.name,
        key=["trec", *source.key([*documents, *topics, *qrels])],
        total=source.total(documents),
        documents=partial(_documents, source, documents, files["ignored"]),
        queries=partial(_queries, source, topics),
        judgments={
            split: partial(source_judgments, source, name) for split, name in splits.items()
        },
    )


def _role(name: str) -> str:
    *folders, base = name.lower().split("/")
    if "qrel" in base or any(folder.startswith("qrel") for folder in folders):
        return "qrels"
    if re.search("topic|quer", base) or {"topics", "queries"} & set(folders):
        return "topics"
    in_folder = any(DOCUMENTS.fullmatch(folder) for folder in folders)
    return "documents" if in_folder or DOCUMENTS.match(base) else "ignored"


def _split(name: str) -> str:
    """The split of a qrels file: `test` for `qrels.test.txt`, `qrels/test.tsv` and `qrels.txt`."""
    base = re.sub(r"(\.(txt|tsv|gz|trec))+$", "", name.rpartition("/")[2])
    return re.sub(r"[._-]?qrels?[._-]?", "", base, flags=re.IGNORECASE) or "test"


def _documents(
    source: Source, names: list[str], ignored: list[str], reading: Reading
) -> Iterator[Row]:
    for name in ignored:
        reading.drops.add("file ignored, its name says nothing", source.label(name))
    for name in names:
        is_table = name.removesuffix(".gz").endswith(".tsv")
        yield from (tsv_rows if is_table else _sgml)(source, name, reading)


def _queries(source: Source, names: list[str], reading: Reading) -> Iterator[Row]:
    tables = [name for name in names if name.removesuffix(".gz").endswith(".tsv")]
    yield from tsv_queries(source, tables, reading)
    for name in names:
        if name not in tables:
            yield from _topics(source, name, reading)


def elements(source: Source, name: str, tag: str, reading: Reading) -> Iterator[tuple[int, str]]:
    """Stream (line, content) of every `<TAG>…</TAG>`; text outside is skipped and counted."""
    file, edge = source.label(name), re.compile(rf"(</?{tag}(?:\s[^<>]*)?>)", re.IGNORECASE)
    start, inside, opened = 0, [""], False
    for number, text in source.lines(name, reading, keep_blank=True):
        for piece in edge.split(text):
            if not edge.fullmatch(piece):
                if start:
                    inside.append(piece)
                elif piece.strip() and not re.fullmatch(r"\s*<[?!].*>\s*", piece):
                    reading.drops.add(f"text outside <{tag}> skipped", f"{file}:{number}")
            elif piece.startswith("</") != bool(start):
                problem = f"<{tag}> inside a <{tag}>" if start else f"</{tag}> without <{tag}>"
                raise InputError(problem, file=file, line=number, remedy=f"close every <{tag}>")
            elif start:
                yield start, "\n".join(inside)
                start, inside = 0, [""]
            else:
                start, opened = number, True
    if start or not opened:
        problem = f"<{tag}> is never closed" if start else f"no <{tag}> in this file"
        remedy = f"write <{tag}> … </{tag}>, or end the file's name in .tsv and use tabs"
        raise InputError(problem, file=file, line=start or None, remedy=remedy)


def _sgml(source: Source, name: str, reading: Reading) -> Iterator[Row]:
    file = source.label(name)
    for line, inside in elements(source, name, "DOC", reading):
        ids = _fields(inside, "DOCNO")
        if len(ids) != 1:
            problem = f"a <DOC> with {len(ids)} <DOCNO>"
            remedy = "give every document one <DOCNO>ID</DOCNO>"
            raise InputError(problem, file=file, line=line, remedy=remedy)
        title = next((t for tag in TITLES for t in _fields(inside, tag) if t), "")
        bodies = _fields(inside, "TEXT") or [_plain(_without(inside, ASIDE))]
        yield Row(ids[0], title, " ".join(bodies).strip(), file, line)


def _topics(source: Source, name: str, reading: Reading) -> Iterator[Row]:
    """Read `<top>` elements with `<num>` and `<title>`, whose end tags TREC leaves out."""
    file = source.label(name)
    for line, inside in elements(source, name, "top", reading):
        number = re.search(r"<num>\s*(?:Number\s*:)?\s*([^\s<]+)", inside, re.IGNORECASE)
        if number is None:
            remedy = "write <num> Number: ID"
            raise InputError("a <top> without <num>", file=file, line=line, remedy=remedy)
        text = _open_field(inside, "title", "Topic")
        if not text and (text := _open_field(inside, "desc", "Description")):
            reading.drops.add("topic without title, its description is used", number[1])
        yield Row(number[1], "", text, file, line)


def _open_field(inside: str, tag: str, label: str) -> str:
    match = re.search(rf"<{tag}>\s*(?:{label}\s*:)?([^<]*)", inside, re.IGNORECASE)
    return _plain(match[1]) if match else ""


def _fields(inside: str, tag: str) -> list[str]:
    pattern = rf"<{tag}(?:\s[^<>]*)?>(.*?)</{tag}\s*>"
    return [_plain(text) for text in re.findall(pattern, inside, re.DOTALL | re.IGNORECASE)]


def _without(inside: str, tags: tuple[str, ...]) -> str:
    names = "|".join(tags)
    pattern = rf"<({names})(?:\s[^<>]*)?>.*?</\1\s*>"
    return re.sub(pattern, " ", inside, flags=re.DOTALL | re.IGNORECASE)


def _plain(text: str) -> str:
    return " ".join(html.unescape(TAGS.sub(" ", text)).split())
