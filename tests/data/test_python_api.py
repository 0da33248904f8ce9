"""The embedded collection: deterministic, split by module, and no query inside its document."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.python_api import (
    MOST_CHARACTERS,
    pieces,
    python_api_reader,
    split_docstring,
    split_of,
)
from retrieval_kd.data.rows import Reading
from tests.data.files import write

CODE = '''
import os

def area(width: int, height: int) -> int:
    """Return the area of a rectangle.  Both sides
    count in metres.

    More about it.
    """
    # sides are checked elsewhere
    return width * height

class Box(dict):
    """A box that has six sides. It is closed."""

    lid = True

    @property
    def depth(self):
        """Say how deep the box is."""
        return 1

    @depth.setter
    def depth(self, value):
        """Say how deep the box is."""
        self.value = value

    def short(self): pass

    def plain(self):
        """Too short."""
        x = "Too short."
        return x

if os.name:
    async def one_line(x): """Do everything on one line."""; return "Do everything on  one line."

def outer():
    def inner():
        """This is never a document itself."""
    return inner
'''


@pytest.fixture(scope="module")
def standard() -> Collection:
    return open_collection("python-api")


def test_a_file_is_split_into_its_definitions(tmp_path: Path) -> None:
    found = {(p.name, p.line): p for p in pieces(write(tmp_path / "m.py", CODE), "m")}
    by_name = {name: piece for (name, _), piece in found.items()}
    assert by_name["m.area"].sentence == "Return the area of a rectangle."
    assert by_name["m.area"].text == (
        "def area(width: int, height: int) -> int:\n"
        "Both sides\ncount in metres.\n\nMore about it.\n"
        "    # sides are checked elsewhere\n    return width * height"
    )
    assert by_name["m.Box"].sentence == "A box that has six sides."
    assert by_name["m.Box"].text.startswith("class Box(dict):\nIt is closed.\n    lid = True\n")
    assert "def depth(self, value): ..." in by_name["m.Box"].text
    assert "how deep" not in by_name["m.Box"].text  # a method's sentence is not in its class
    assert [name for name, _ in found].count("m.Box.depth") == 2
    assert by_name["m.one_line"].sentence == "Do everything on one line."
    assert "everything on" not in by_name["m.one_line"].text  # taken out of the code, too
    assert by_name["m.Box.plain"].sentence == ""
    assert "Too short." in by_name["m.Box.plain"].text
    assert by_name["m.outer"].sentence == ""
    assert not {"m.Box.short", "m.outer.inner", "m.inner"} & set(by_name)


@pytest.mark.parametrize(
    "docstring, sentence",
    [
        ("Return x. Then y.", "Return x."),
        ("Return x, e.g. a node. Then y.", "Return x, e.g. a node."),
        ("Return a.b of version 3.11 only", "Return a.b of version 3.11 only"),
        ("Return\n    x\n\n    and y.", "Return x"),
        ('Say "stop." Then go.', 'Say "stop."'),
        ("", ""),
    ],
)
def test_the_first_sentence_is_found(docstring: str, sentence: str) -> None:
    assert split_docstring(docstring)[0] == sentence


def test_the_standard_library_gives_a_collection_worth_training_on(standard: Collection) -> None:
    splits = standard.stats()["splits"]
    assert len(standard.documents) > 8_000
    assert splits["test"]["queries"] >= 500
    assert splits["train"]["queries"] > splits["test"]["queries"] > splits["dev"]["queries"] > 100


def test_no_document_holds_its_query(standard: Collection) -> None:
    for split in standard.splits:
        for query_id, judged in standard.qrels(split).items():
            sentence = standard.queries[query_id].text
            assert len(sentence.split()) >= 4
            for document_id in judged:
                assert sentence not in " ".join(standard.documents[document_id].full.split())


def test_splits_share_no_module_and_no_query_text(standard: Collection) -> None:
    modules, texts = {}, {}
    for split in standard.splits:
        judged = {d for found in standard.qrels(split).values() for d in found}
        modules[split] = {document_id.split(".")[0] for document_id in judged}
        texts[split] = set(standard.query_texts(split).values())
        assert {split_of(name) for name in modules[split]} == {split}
        assert len(texts[split]) == len(standard.qrels(split))  # equal sentences are one query
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not modules[one] & modules[other]
        assert not texts[one] & texts[other]


def test_tests_packages_and_long_texts_are_kept_out(standard: Collection) -> None:
    for document in standard.documents.iterate():
        assert not {"test", "tests", "site-packages", "idlelib"} & set(document.id.split(".")[:-1])
        assert len(document.text) <= MOST_CHARACTERS
        assert document.text


def test_no_query_has_the_id_of_a_document(standard: Collection) -> None:
    assert not any(query_id in standard.documents for query_id in standard.queries.ids())


def test_the_same_code_gives_the_same_collection(tmp_path: Path) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    for copy in ("a/code", "b/code"):
        for name in ("json", "email", "logging", "textwrap.py", "heapq.py"):
            source, target = library / name, tmp_path / copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    a, b = (open_collection(f"python-api:{tmp_path / x / 'code'}") for x in "ab")
    assert a.digest() == b.digest()
    assert a.splits == b.splits == ["dev", "test", "train"]  # a few packages: split by file
    assert {s: a.qrels(s) for s in a.splits} == {s: b.qrels(s) for s in b.splits}
    assert a.name == "python-api-code"


def test_equal_sentences_are_one_query_and_files_that_do_not_parse_are_counted(
    tmp_path: Path,
) -> None:
    function = 'def {}():\n    """Return the number of things."""\n    return {}\n'
    write(tmp_path / "a.py", function.format("one", 1) + function.format("two", 2))
    write(tmp_path / "print2.py", "print 'hello'\n")
    write(tmp_path / "latin.py", b"x = '\xe9'\n")
    write(tmp_path / "tests" / "b.py", function.format("three", 3))
    reader, reading = python_api_reader(str(tmp_path)), Reading()
    assert [row.id for row in reader.documents(reading)] == ["a.one", "a.two"]
    assert [row.id for row in reader.queries(reading)] == ["query:a.one"]
    judgments = list(reader.judgments[split_of("a")](reading))
    assert [(j.query_id, j.document_id) for j in judgments] == [
        ("query:a.one", "a.one"),
        ("query:a.one", "a.two"),
    ]
    assert "2 × file that does not parse" in reading.drops.summary()[0]
