"""Every kind of wrong input gets its clear error or its counted warning, as `docs/data.md` says."""

from __future__ import annotations

import bz2
import gzip
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval_kd.data import sources
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.qrels import read_qrels
from retrieval_kd.data.runs import read_run
from retrieval_kd.errors import InputError
from tests.data.files import write, write_beir, write_msmarco, write_trec, zip_folder

Break = Callable[[Path], object]
D1, D2 = '{"_id": "d1", "text": "The moon."}\n', '{"_id": "d2", "text": "The sun."}\n'
D3 = '{"_id": "d3", "text": "The wind."}\n'
Q1, Q2 = '{"_id": "q1", "text": "why tides"}\n', '{"_id": "q2", "text": "what is wind"}\n'
HEADER = "query-id\tcorpus-id\tscore\n"


def corpus(text: str | bytes) -> Break:
    return lambda folder: write(folder / "corpus.jsonl", text)


def queries(text: str | bytes) -> Break:
    return lambda folder: write(folder / "queries.jsonl", text)


def qrels(text: str | bytes) -> Break:
    return lambda folder: write(folder / "qrels" / "test.tsv", text)


def missing(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def cut_gzip(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    whole = gzip.compress((D1 + D2 + D3).encode() * 50)
    write(folder / "corpus.jsonl.gz", whole[: len(whole) // 2])


def unnamed_qrels(folder: Path) -> None:
    for file in (folder / "qrels").iterdir():
        file.rename(file.with_suffix(".csv"))


def no_gzip(folder: Path) -> None:
    (folder / "corpus.jsonl").rename(folder / "corpus.jsonl.gz")


def in_folder(folder: Path) -> None:
    (folder / "corpus.jsonl").rename(folder / "part.jsonl")
    (folder / "corpus.jsonl").mkdir()
    (folder / "part.jsonl").rename(folder / "corpus.jsonl" / "part.jsonl")


def bytes_in_gzip(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    write(folder / "corpus.jsonl.gz", gzip.compress(b'{"_id": "d1", "text": "caf\xe9"}\n'))


ERRORS: dict[str, tuple[Break, list[str]]] = {
    "broken JSON": (corpus(D1 + '{"_id": "d2", "text": \n'), ["corpus.jsonl:2", "broken JSON"]),
    "JSON of another kind": (corpus(D1 + '["d2", "x"]\n'), ["corpus.jsonl:2", "a list where"]),
    "deeply nested JSON": (corpus(D1 + "[" * 100_000 + "\n"), ["corpus.jsonl:2", "broken JSON"]),
    "no ID": (corpus(D1 + '{"id": "d2", "text": "x"}\n'), ["corpus.jsonl:2", 'no "_id"']),
    "no text": (corpus('{"_id": "d1"}\n'), ["corpus.jsonl:1", 'no "text"', "id d1"]),
    "null text": (corpus('{"_id": "d1", "text": null}\n'), [":1", '"text" is null', "id d1"]),
    "text is a list": (corpus('{"_id": "d1", "text": ["x"]}\n'), [":1", "a list, not text"]),
    "title is a number": (
        corpus('{"_id": "d1", "title": 7, "text": "x"}\n'),
        [":1", '"title" is a number', "id d1"],
    ),
    "ID is a fraction": (corpus('{"_id": 1.5, "text": "x"}\n'), [":1", '"_id" is a number']),
    "ID is true": (corpus('{"_id": true, "text": "x"}\n'), [":1", '"_id" is true or false']),
    "empty ID": (corpus('{"_id": "", "text": "x"}\n'), [":1", "empty document ID"]),
    "ID with a space": (corpus('{"_id": "d 1", "text": "x"}\n'), [":1", "whitespace", "'d 1'"]),
    "ID with a no-break space": (corpus('{"_id": "d\\u00a01", "text": "x"}\n'), ["whitespace"]),
    "duplicate document": (
        corpus(D1 + D2 + D1),
        ["corpus.jsonl:3", "duplicate document ID", "corpus.jsonl:1", "id d1", "To fix"],
    ),
    "duplicate query": (queries(Q1 + Q1), ["queries.jsonl:2", "queries.jsonl:1", "id q1"]),
    "latin-1 bytes": (
        corpus(D1.encode() + '{"_id": "d2", "text": "café"}\n'.encode("latin1")),
        ["corpus.jsonl:2", "not UTF-8 (byte 0xe9", "its encoding, as `file`", "iconv -f ENCODING"],
    ),
    "Shift-JIS bytes": (
        corpus('{"_id": "d1", "text": "潮の満ち引き"}\n'.encode("shift_jis")),
        ["corpus.jsonl:1", "not UTF-8", "iconv -f ENCODING"],
    ),
    "UTF-16": (corpus(D1.encode("utf-16")), ["corpus.jsonl:1", "not UTF-8", "utf-16"]),
    "bytes in gzip": (bytes_in_gzip, ["corpus.jsonl.gz:1", "not UTF-8", "unpack it, and"]),
    "UTF-16 without a mark": (corpus(D1.encode("utf-16-le")), ["corpus.jsonl:1", "a zero byte"]),
    "UTF-32": (corpus(D1.encode("utf-32")), ["corpus.jsonl:1", "iconv -f utf-32"]),
    "gzipped twice": (
        corpus(gzip.compress(gzip.compress(D1.encode()))),
        ["corpus.jsonl: gzipped twice"],
    ),
    "another compression": (corpus(b"\xfd7zXZ\0rest"), ["corpus.jsonl: an xz file", "unpack it"]),
    "bzip2": (corpus(bz2.compress(D1.encode())), ["corpus.jsonl: a bzip2 file", "unpack it"]),
    "named as bzip2": (
        lambda folder: (folder / "corpus.jsonl").rename(folder / "corpus.jsonl.bz2"),
        ["corpus.jsonl is missing, but corpus.jsonl.bz2 is here", "unpack it"],
    ),
    "a folder in the place of a file": (
        in_folder,
        ["corpus.jsonl is a folder", "in its place: corpus.jsonl/part.jsonl"],
    ),
    "a number of 5,000 digits": (
        corpus(D1 + '{"_id": ' + "9" * 5_000 + ', "text": "x"}\n'),
        ["corpus.jsonl:2: a number of thousands of digits. To fix: write"],
    ),
    "a field twice": (
        corpus('{"_id": "d1", "text": "x", "text": "y"}\n'),
        [":1", "'text' is there"],
    ),
    "half a character": (
        corpus('{"_id": "d1", "text": "\\ud83d"}\n'),
        ["corpus.jsonl:1", "lone surrogate U+D83D", "'d1'"],
    ),
    "empty corpus file": (corpus(""), ["has no document"]),
    "empty queries file": (queries("\n"), ["has no query"]),
    "no corpus": (missing("corpus.jsonl"), ["corpus.jsonl is missing", "To fix"]),
    "no queries": (missing("queries.jsonl"), ["queries.jsonl is missing", "To fix"]),
    "plain and gzipped": (
        lambda folder: write(folder / "corpus.jsonl.gz", D1),
        ["corpus.jsonl is here both plain and gzipped"],
    ),
    "gzip cut off": (cut_gzip, ["corpus.jsonl.gz:", "damaged or cut off"]),
    "not gzip": (no_gzip, ["corpus.jsonl.gz: not gzipped, though", ".gz out of"]),
    "gain is a word": (qrels(HEADER + "q1\td1\tyes\n"), ["test.tsv:2", "gain 'yes'"]),
    "gain is a fraction": (qrels(HEADER + "q1\td1\t0.5\n"), ["test.tsv:2", "gain '0.5'"]),
    "gain on the first line": (qrels("q1\td1\tyes\n"), ["test.tsv:1", "gain 'yes'"]),
    "gain with an underscore": (qrels(HEADER + "q1\td1\t1_0\n"), ["test.tsv:2", "gain '1_0'"]),
    "gain in other digits": (qrels(HEADER + "q1\td1\t١\n"), ["test.tsv:2", "gain '١'"]),
    "gain of 400 digits": (qrels(HEADER + f"q1\td1\t{'9' * 400}\n"), ["test.tsv:2", "gain '999"]),
    "gain of 64 bits": (
        qrels(HEADER + f"q1\td1\t{2**63 - 1}\n"),
        ["test.tsv:2", "gain '9223372036854775807' is too large"],
    ),
    "gain of 64 bits in JSON": (
        qrels(f'{{"query-id": "q1", "corpus-id": "d1", "score": {2**63 - 1}}}\n'),
        ["test.tsv:1", "gain 9223372036854775807 is too large"],
    ),
    "gain in JSON": (
        qrels('{"query-id": "q1", "corpus-id": "d1", "score": 0.5}\n'),
        ["test.tsv:1", "gain 0.5"],
    ),
    "no document in JSON": (qrels('{"query-id": "q1", "score": 1}\n'), [":1", "no corpus-id"]),
    "columns of qrels swapped": (
        qrels("query-id\tscore\tcorpus-id\nq1\t1\t7\n"),
        ["test.tsv:1", "last column is corpus-id"],
    ),
    "judgments in no known form": (unnamed_qrels, ["qrels/test.csv", "no known form"]),
    "two columns in qrels": (qrels(HEADER + "q1\td1\n"), ["test.tsv:2", "2 columns"]),
    "document ID with a space in qrels": (qrels(HEADER + "q1\td 1\t1\n"), [":2", "whitespace"]),
    "empty qrels": (qrels(HEADER), ["split 'test'", "no judgment"]),
    "only unknown documents in qrels": (qrels(HEADER + "q1\td9\t1\n"), ["split 'test'"]),
    "judged twice, differently": (
        qrels(HEADER + "q1\td1\t1\nq1\td1\t2\n"),
        ["test.tsv:3", "judged twice, 1 and 2", "id d1"],
    ),
}

WARNINGS: dict[str, tuple[Break, str]] = {
    "unknown document": (
        qrels(HEADER + "q1\td1\t1\nq1\td9\t1\n"),
        "1 × judgment of an unknown doc",
    ),
    "unknown query": (qrels(HEADER + "q1\td1\t1\nq9\td1\t1\n"), "1 × judgment of an unknown query"),
    "header missing": (qrels("q1\td1\t1\nq1\td2\t1\n"), "1 × qrels without a header"),
    "negative gain": (qrels(HEADER + "q1\td1\t1\nq1\td2\t-2\n"), "1 × negative gain read as 0"),
    "judged twice alike": (qrels(HEADER + "q1\td1\t1\n" * 2), "1 × repeated judgment"),
    "nothing relevant": (qrels(HEADER + "q1\td1\t0\n"), "1 × judged query without a relevant"),
    "byte order mark": (corpus(b"\xef\xbb\xbf" + (D1 + D2 + D3).encode()), "1 × byte order mark"),
    "marks within": (corpus((D1 + "\ufeff" + D2 + "\ufeff" + D3).encode()), "2 × byte order mark"),
    "two forms of a split": (
        lambda folder: write(folder / "qrels" / "test.jsonl", "{}"),
        "1 × file ignored",
    ),
    "blank lines": (corpus(D1 + "\n" + D2 + "  \n" + D3), "2 × blank line skipped"),
    "empty document": (corpus(D1 + D2.replace("The sun.", " ") + D3), "1 × empty document kept"),
    "empty query": (queries(Q1 + Q2 + '{"_id": "q3", "text": ""}\n'), "1 × empty query dropped"),
    "number as ID": (corpus(D1 + D2 + D3 + '{"_id": 7, "text": "x"}\n'), "1 × number as ID"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_wrong_input_is_refused_with_file_line_and_remedy(kind: str, tmp_path: Path) -> None:
    break_it, fragments = ERRORS[kind]
    folder = write_beir(tmp_path / "broken")
    break_it(folder)
    with pytest.raises(InputError) as caught:
        open_collection(folder)
    for fragment in [*fragments, "To fix: "]:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("kind", WARNINGS)
def test_dropped_input_is_counted_and_reported_every_time(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    break_it, warning = WARNINGS[kind]
    folder = write_beir(tmp_path / "odd")
    break_it(folder)
    for _ in range(2):  # read, then opened from the cache
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            collection = open_collection(folder)
        assert any(warning in entry for entry in collection.drops.summary())
        assert warning in caplog.text
    assert collection.qrels("test")["q1"].keys() >= {"d1"}


def test_missing_qrels_leave_no_splits_and_a_warning(tmp_path: Path) -> None:
    collection = open_collection(write_beir(tmp_path / "bare", qrels={}))
    assert collection.splits == []
    assert "1 × no judgments, so no splits" in collection.drops.summary()[0]
    with pytest.raises(InputError, match=r"no split 'test'.*it has no judgments"):
        collection.qrels("test")


def test_unknown_split_lists_the_splits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no split 'tset'.*\(test, train\)"):
        open_collection(write_beir(tmp_path / "fine")).qrels("tset")


def no_zip(path: Path) -> None:
    write(path, b"this is no zip")


def cut_zip(path: Path) -> None:
    whole = zip_folder(write_beir(path.parent / "whole"), path).read_bytes()
    path.write_bytes(whole[:-80])


def flipped_zip(path: Path) -> None:
    zip_folder(write_beir(path.parent / "whole"), path)
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("corpus.jsonl").header_offset
    data = bytearray(path.read_bytes())
    data[offset + 60] ^= 0xFF
    path.write_bytes(bytes(data))


def two_in_one(path: Path) -> None:
    write_beir(path.parent / "whole" / "a")
    write_beir(path.parent / "whole" / "b")
    zip_folder(path.parent / "whole", path)


def none_in_it(path: Path) -> None:
    write(path.parent / "whole" / "notes.txt", "x")
    zip_folder(path.parent / "whole", path)


ZIPS: dict[str, tuple[Break, str]] = {
    "no zip": (no_zip, "damaged or cut off"),
    "zip cut off": (cut_zip, "damaged or cut off"),
    "one byte flipped": (flipped_zip, "damaged or cut off"),
    "two collections": (two_in_one, "several collections"),
    "no collection": (none_in_it, "no collection in here"),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_wrong_zips_are_refused(kind: str, tmp_path: Path) -> None:
    break_it, fragment = ZIPS[kind]
    break_it(tmp_path / "bad.zip")
    with pytest.raises(InputError) as caught:
        open_collection(tmp_path / "bad.zip")
    assert fragment in str(caught.value)
    assert "bad.zip" in str(caught.value)
    assert "To fix: " in str(caught.value)


TREC: dict[str, tuple[str, str, str]] = {
    "no DOCNO": ("documents/a.sgml", "<DOC>\n<TEXT>x</TEXT>\n</DOC>\n", "a <DOC> with 0 <DOCNO>"),
    "two DOCNO": (
        "documents/a.sgml",
        "<DOC><DOCNO>a</DOCNO><DOCNO>b</DOCNO></DOC>\n",
        "a <DOC> with 2 <DOCNO>",
    ),
    "unclosed DOC": ("documents/a.sgml", "<DOC>\n<DOCNO>x</DOCNO>\n", "a.sgml:1: <DOC> is never"),
    "DOC in DOC": ("documents/a.sgml", "<DOC>\n<DOC>\n", "a.sgml:2: <DOC> inside a <DOC>"),
    "no DOC": ("documents/a.sgml", "just text\n", "no <DOC> in this file"),
    "end without DOC": ("documents/a.sgml", "</DOC>\n", "</DOC> without <DOC>"),
    "top without num": ("topics.txt", "<top>\n<title> x\n</top>\n", "a <top> without <num>"),
    "unclosed top": ("topics.txt", "<top>\n<num> 1\n<title> x\n", "<top> is never closed"),
    "topics as plain lines": ("topics.txt", "q1 why tides\n", "no <top> in this file"),
    "one column": ("documents/b.tsv", "d8\n", "1 columns where 2, 3 or 4"),
    "columns change": ("documents/b.tsv", "d8\tx\nd9\tx\ty\n", "b.tsv:2: 3 columns where 2, as on"),
    "header in another order": ("documents/b.tsv", "text\tid\nx\td8\n", "columns in another order"),
    "topic of other fields": (
        "topics.txt",
        '<topic number="1"><disease>x</disease></topic>\n',
        "query is in no known field",
    ),
    "two files for a split": ("qrels/test.txt", "q1 0 d1 1\n", "two files for split 'test'"),
    "five columns in qrels": ("qrels.new.txt", "q1 0 d1 1 x\n", "qrels.new.txt:1: 5 columns"),
}


@pytest.mark.parametrize("kind", TREC)
def test_wrong_trec_files_are_refused(kind: str, tmp_path: Path) -> None:
    name, text, fragment = TREC[kind]
    folder = write_trec(tmp_path / "trec")
    write(folder / name, text)
    with pytest.raises(InputError) as caught:
        open_collection(folder)
    assert fragment in str(caught.value)
    assert "To fix: " in str(caught.value)


def test_a_topic_without_title_uses_its_description_and_is_counted(tmp_path: Path) -> None:
    folder = write_trec(tmp_path / "trec")
    extra = "<top>\n<num> Number: q3\n<title>\n<desc> Description:\nwhat is rain\n</top>\n"
    write(folder / "topics.more.txt", extra)
    write(folder / "README", "x")
    collection = open_collection(folder)
    assert collection.queries["q3"].text == "what is rain"
    summary = " ".join(collection.drops.summary())
    assert "1 × topic without title" in summary
    assert "1 × file ignored" in summary


TOPICS = {
    "<": ("<num> Number: 1 </num>\n<title> dose < 5 mg </title>\n<desc> y", "dose < 5 mg"),
    "tags": (
        "<num> 1\n<title> growth of <i>E. coli</i> in milk\n<desc> y",
        "growth of E. coli in milk",
    ),
    "a tag of the text": (
        "<num> 1\n<title> what is List<String> for\n<desc> y",
        "what is List<String> for",
    ),
    "an inequality": ("<num> 1\n<title> if a<b and c>d\n<narr> y", "if a<b and c>d"),
    "names of fields": (
        "<num>1</num><title>use of &lt;head> and &lt;title></title>",
        "use of <head> and <title>",
    ),
    "CDATA": ("<num>1</num><title><![CDATA[a & b <title> &amp;]]></title>", "a & b <title> &amp;"),
    "entities": ("<num>1</num><title>R&D &amp; AT&T ?a=1&copy=2</title>", "R&D & AT&T ?a=1&copy=2"),
    "two lines": ("<num> 1\n<title> one\n<i>two</i> three\n\n<desc> y", "one two three"),
}


def test_a_second_title_of_a_topic_is_counted(tmp_path: Path) -> None:
    folder = write_trec(tmp_path / "trec")
    write(folder / "topics.more.txt", "<top>\n<num> 1\n<title> one\n<title> two\n</top>\n")
    collection = open_collection(folder)
    assert collection.queries["1"].text == "one"
    assert "1 × topic with several <title>" in "".join(collection.drops.summary())


@pytest.mark.parametrize("kind", TOPICS)
def test_nothing_of_a_topics_title_is_cut(kind: str, tmp_path: Path) -> None:
    inside, query = TOPICS[kind]
    folder = write_trec(tmp_path / "trec")
    write(folder / "topics.more.txt", f"<top>\n{inside}\n</top>\n")
    assert open_collection(folder).queries["1"].text == query


def test_topics_of_xml_may_be_their_text_alone(tmp_path: Path) -> None:
    folder = write_trec(tmp_path / "trec")
    write(
        folder / "topics.xml",
        "<topics>\n<topic number='7'>a man of 58 & his heart</topic></topics>",
    )
    assert open_collection(folder).queries["7"].text == "a man of 58 & his heart"


def test_a_document_keeps_what_only_looks_like_markup(tmp_path: Path) -> None:
    folder = write_trec(tmp_path / "trec")
    body = "p < 0.05, a<b and c>d,<br>List<String> <b>bold</b> R&D <TXT5> end"
    write(folder / "documents/b.sgml", f"<DOC>\n<DOCNO>b</DOCNO>\n<TEXT>{body}</TEXT>\n</DOC>\n")
    collection = open_collection(folder)
    kept = "p < 0.05, a<b and c>d, List<String> bold R&D end"
    assert collection.documents["b"].text == kept
    assert "1 × tag that is never closed removed from a text" in collection.drops.summary()[0]


def test_a_header_of_a_table_is_no_row(tmp_path: Path) -> None:
    folder = write_msmarco(tmp_path / "marco")
    table = (folder / "collection.tsv").read_text()
    write(folder / "collection.tsv", f"docid\tpassage text\n{table}")
    collection = open_collection(folder)
    assert "docid" not in collection.documents and len(collection.documents) == 3
    assert "1 × header of a table skipped" in collection.drops.summary()[0]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_line_that_no_memory_holds_is_refused(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LONGEST_LINE", 1 << 20)
    folder = write_beir(tmp_path / "c", ending=ending)
    write(
        folder / f"corpus.jsonl{ending}", D1 + '{"_id": "d2", "text": "' + "x" * (1 << 20) + '"}\n'
    )
    for path in (folder, zip_folder(folder, tmp_path / "c.zip")):
        with pytest.raises(InputError, match=r"corpus\.jsonl(\.gz)?:2: a line of more than 1 MiB"):
            open_collection(path)


def test_an_element_that_no_memory_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LONGEST_LINE", 1 << 20)
    folder = write_trec(tmp_path / "trec")
    write(folder / "documents" / "b.sgml", "<DOC>\n" + ("x" * 1000 + "\n") * 1100)
    with pytest.raises(InputError, match=r"b\.sgml:1: a <DOC> of more than 1 MiB"):
        open_collection(folder)


@pytest.mark.parametrize("read", [read_run, read_qrels])
def test_gzip_is_recognised_without_its_suffix(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    text = b"q1 Q0 d1 1 2.5 a\n" if read is read_run else b"q1 0 d1 1\n"
    plain = read(write(tmp_path / "plain", text))
    assert read(write(tmp_path / "zipped", gzip.compress(text))) == plain


def test_a_trec_folder_without_topics_is_refused(tmp_path: Path) -> None:
    folder = write_trec(tmp_path / "trec")
    (folder / "topics.txt").unlink()
    with pytest.raises(InputError, match="without topics or queries"):
        open_collection(folder)


def test_msmarco_queries_that_disagree_are_refused(tmp_path: Path) -> None:
    folder = write_msmarco(tmp_path / "marco")
    write(folder / "queries.dev.tsv", "q1\tanother text\n")
    with pytest.raises(
        InputError, match=r"queries\.test\.tsv:1: a different text for a query.*id q1"
    ):
        open_collection(folder)


@pytest.mark.parametrize(
    "spec", ["", "no/such/folder", "no-such-name", "irds:no/such", "python-api:no/such", "a b"]
)
def test_an_unknown_spec_lists_the_valid_forms(spec: str) -> None:
    with pytest.raises(InputError, match="To fix: "):
        open_collection(spec)


def test_an_unknown_spec_lists_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_KD_DATA", "/data/here")
    with pytest.raises(InputError) as caught:
        open_collection("scifac")
    for tried in ("/data/here/scifac.zip", "ir_datasets ID scifac", "python-api:FOLDER"):
        assert tried in str(caught.value)


def test_folders_and_files_that_hold_no_collection_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, write(tmp_path / "notes.txt", "x")):
        with pytest.raises(InputError, match=r"no collection in here|not a zip"):
            open_collection(path)
    with pytest.raises(InputError, match="no Python file"):
        open_collection(f"python-api:{tmp_path}")


def test_several_collections_below_a_folder_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_beir(tmp_path / "all" / name)
    with pytest.raises(InputError, match=r"several collections in here: a, b\. To fix: name one"):
        open_collection(tmp_path / "all")


def test_judgments_beside_those_in_their_folder_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_beir(tmp_path / "beir")
    write(folder / "qrels.tsv", HEADER + "q1\td1\t1\n")
    open_collection(folder)
    assert "file ignored, its name says nothing" in caplog.text and "beir/qrels.tsv" in caplog.text


RUNS: dict[str, tuple[str, str]] = {
    "five columns": ("q1 Q0 d1 1 2.5\n", ":1: 5 columns where a run has 6"),
    "seven columns": ("q1 Q0 d1 1 2.5 a b\n", ":1: 7 columns"),
    "zero byte": (
        "q1 Q0 d1 1 2 a\nq\x001 Q0 d1 1 2 a\n",
        ":2: query ID with half a character or a",
    ),
    "score is a word": ("q1 Q0 d1 1 best a\n", ":1: score 'best'"),
    "score is NaN": ("q1 Q0 d1 1 nan a\n", ":1: score 'nan'"),
    "score is infinite": ("q1 Q0 d1 1 -inf a\n", ":1: score '-inf'"),
    "score with an underscore": ("q1 Q0 d1 1 1_0 a\n", ":1: score '1_0'"),
    "score in other digits": ("q1 Q0 d1 1 ٣ a\n", ":1: score '٣'"),
    "score is too big": ("q1 Q0 d1 1 1e999 a\n", ":1: score '1e999'"),
    "rank in other digits": ("q1 Q0 d1 ٣ 1 a\n", ":1: rank '٣'"),
    "rank is a fraction": ("q1 Q0 d1 0.5 1 a\n", ":1: rank '0.5'"),
    "document twice": ("q1 Q0 d1 1 2 a\nq2 Q0 d1 1 2 a\nq1 Q0 d1 2 1 a\n", ":3: document twice"),
    "no line": ("\n\n", "without a single line"),
}


@pytest.mark.parametrize("kind", RUNS)
def test_wrong_runs_are_refused(kind: str, tmp_path: Path) -> None:
    text, fragment = RUNS[kind]
    with pytest.raises(InputError) as caught:
        read_run(write(tmp_path / "a.trec", text))
    assert fragment in str(caught.value)
    assert "a.trec" in str(caught.value)


def test_a_missing_run_or_qrels_file_is_named(tmp_path: Path) -> None:
    for read in (read_run, read_qrels):
        with pytest.raises(InputError, match=r"gone\.txt: no such file"):
            read(tmp_path / "gone.txt")


def test_a_file_of_two_runs_is_read_as_one_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "q1 Q0 d1 1 2 a\nq1 Q0 d2 2 1 b\n"
    assert read_run(write(tmp_path / "a.trec", text)).name == "a"
    assert "1 × line of a different run" in caplog.text
