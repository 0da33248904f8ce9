"""Reads a folder of TREC files: documents in SGML or TSV, topics or TSV queries, and qrels.

`markup.py` reads what is between the tags.

A file's name decides its role. Qrels have `qrel` in the name, queries `topic` or `quer`. Documents
have a name that begins with documents, docs, corpus or collection, or are in a folder of that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from retrieval_kd.data import sources
from retrieval_kd.data.markup import attribute, fields, literal, open_field, plain, without
from retrieval_kd.data.msmarco import parse_table, tsv_queries
from retrieval_kd.data.qrels import judgment_readers
from retrieval_kd.data.rows import Reader, Reading, Row
from retrieval_kd.data.sources import Source, parsed
from retrieval_kd.errors import InputError

DOCUMENTS = re.compile(r"documents?|docs?|corpus|collection")
OUTSIDE = re.compile(r"\s*(?:<[?!].*>|</?\w[^<>]*>)\s*")  # no text
TITLES = ("TITLE", "HEADLINE", "HEAD", "HL", "TTL")
ASIDE = ("DOCNO", "DOCID", "DOCHDR", *TITLES)
# fields of a topic that are its query, the best first, and the labels before their texts
QUERIES = {"title": "Topic", "query": "Query", "question": "Question", "desc": "Description",
           "description": "Description", "summary": "Summary"}  # fmt: skip
NUMBERS = ("number", "num", "id", "qid")


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
        documents=partial(_documents, source, documents),
        queries=partial(_queries, source, topics),
        judgments=judgment_readers(source, splits),
        ignored=[source.label(name) for name in files["ignored"]],
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
    base = re.sub(r"(\.(txt|tsv|jsonl|gz|trec))+$", "", name.rpartition("/")[2])
    return re.sub(r"[._-]?qrels?[._-]?", "", base, flags=re.IGNORECASE) or "test"


def _documents(source: Source, names: list[str], reading: Reading) -> Iterator[Row]:
    for name in names:
        if name.removesuffix(".gz").endswith(".tsv"):
            yield from parsed(parse_table, source, name, reading)
        else:
            yield from _sgml(source, name, reading)


def _queries(source: Source, names: list[str], reading: Reading) -> Iterator[Row]:
    tables = [name for name in names if name.removesuffix(".gz").endswith(".tsv")]
    yield from tsv_queries(source, tables, reading)
    for name in names:
        if name not in tables:
            yield from _topics(source, name, reading)


def elements(
    source: Source, name: str, tags: tuple[str, ...], reading: Reading
) -> Iterator[tuple[int, str, str]]:
    """Stream (line, opening tag, content) of every element of these names.

    Text outside of them is skipped and counted.
    """
    file, tag = source.label(name), tags[0]
    edge = re.compile(rf"(</?(?:{'|'.join(tags)})(?:\s[^<>]*)?>)", re.IGNORECASE)
    start, opening, inside, size, opened = 0, "", [""], 0, False
    for number, text in source.lines(name, reading, keep_blank=True):
        for piece in edge.split(text):
            if not edge.fullmatch(piece):
                if start:
                    inside.append(piece)
                    size += len(piece) + 1
                    if size > sources.LONGEST_LINE:
                        raise sources.too_long(f"a <{tag}>", file, start)
                elif piece.strip() and not OUTSIDE.fullmatch(piece):
                    reading.drops.add(f"text outside <{tag}> skipped", f"{file}:{number}")
            elif piece.startswith("</") != bool(start):
                problem = f"<{tag}> inside a <{tag}>" if start else f"</{tag}> without <{tag}>"
                raise InputError(problem, file=file, line=number, remedy=f"close every <{tag}>")
            elif start:
                yield start, opening, literal("\n".join(inside))
                start, inside, size = 0, [""], 0
            else:
                start, opening, opened = number, piece, True
    if start or not opened:
        problem = f"<{tag}> is never closed" if start else f"no <{tag}> in this file"
        remedy = f"write <{tag}> … </{tag}>, or end the file's name in .tsv and use tabs"
        raise InputError(problem, file=file, line=start or None, remedy=remedy)


def _sgml(source: Source, name: str, reading: Reading) -> Iterator[Row]:
    file = source.label(name)
    for line, _, inside in elements(source, name, ("DOC",), reading):
        where = f"{file}:{line}"
        ids = fields(inside, "DOCNO", reading, where)
        if len(ids) != 1:
            problem = f"a <DOC> with {len(ids)} <DOCNO>"
            remedy = "give every document one <DOCNO>ID</DOCNO>"
            raise InputError(problem, file=file, line=line, remedy=remedy)
        title = next((t for tag in TITLES for t in fields(inside, tag, reading, where) if t), "")
        bodies = fields(inside, "TEXT", reading, where)
        if bodies and len(bodies) < len(re.findall(r"<TEXT[\s>]", inside, re.IGNORECASE)):
            reading.drops.add("text after a <TEXT> that is not closed left out", where)
        bodies = bodies or [plain(without(inside, ASIDE), reading, where)]
        yield Row(ids[0], title, " ".join(bodies).strip(), file, line)


def _topics(source: Source, name: str, reading: Reading) -> Iterator[Row]:
    """Read `<top>` elements, whose fields TREC does not close, or `<topic number="1">` of XML."""
    file = source.label(name)
    for line, opening, inside in elements(source, name, ("top", "topic"), reading):
        where = f"{file}:{line}"
        number = next((n for n in (attribute(opening, a) for a in NUMBERS) if n), "")
        number = number or next((n for n in (_number(inside, tag) for tag in NUMBERS) if n), "")
        if not number:
            remedy = 'write <num> Number: ID, or <topic number="ID">'
            raise InputError("a <top> without <num>", file=file, line=line, remedy=remedy)
        found = ((f, open_field(inside, f, label, reading, where)) for f, label in QUERIES.items())
        tag, text = next(((field, text) for field, text in found if text), ("", ""))
        if not tag and not re.search(r"<[a-zA-Z]", inside):
            text = plain(inside, reading, where)  # <topic number="1">its text</topic>
        elif not tag and not re.search(r"<(?:title|query)\b", inside, re.IGNORECASE):
            problem, wanted = "a topic whose query is in no known field", ", ".join(QUERIES)
            remedy = f"write the query in one of the fields {wanted}"
            raise InputError(problem, file=file, line=line, id=number, remedy=remedy)
        if tag not in ("title", "query", ""):
            reading.drops.add(f"topic without title, its {QUERIES[tag].lower()} is used", number)
        if tag and len(re.findall(rf"<{tag}\b[^<>]*>", inside, re.IGNORECASE)) > 1:
            reading.drops.add(f"topic with several <{tag}>, the first is used", number)
        yield Row(number, "", text, file, line)


def _number(inside: str, tag: str) -> str:
    match = re.search(rf"<{tag}>\s*(?:Number\s*:)?\s*([^\s<]+)", inside, re.IGNORECASE)
    return match[1] if match else ""
