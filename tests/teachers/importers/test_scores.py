"""Published score files become stored scores; anything else is refused with the reason."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.store.digests import document_digest, id_digest, query_digest
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.importers import FORMATS, detect, import_scores
from retrieval_kd.teachers.importers import scores as scores_module

EXPECTED = {("7", "11"): 2.5, ("7", "12"): -1.25, ("8", "11"): 0.5, ("8", "13"): -3.0}


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """Queries 7 and 8; documents 11, 12 and 13; not 99."""
    monkeypatch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    documents = [("11", "One", "first"), ("12", "", "second"), ("13", "Three", "third")]
    rows = [{"_id": id, "title": title, "text": text} for id, title, text in documents]
    write(folder / "corpus.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": "7", "text": "who?"}, {"_id": "8", "text": " why? "}]
    write(folder / "queries.jsonl", "".join(json.dumps(row) + "\n" for row in queries))
    write(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n7\t11\t1\n")
    return open_collection(folder)


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def parquet(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def stored(store: ScoreStore) -> dict[tuple[str, str], float]:
    (key,) = store.teachers()
    rows = store.read(key).to_pylist()
    return {(row["query_id"], row["document_id"]): row["score"] for row in rows}


HARD = (
    '{"qid": 7, "pos": [{"pid": 11, "ce-score": 2.5}], '
    '"neg": {"bm25": [{"pid": 12, "ce-score": -1.25}], "tas-b": [{"pid": 12, "ce-score": -1.25}]}}'
    '\n{"qid": 8, "pos": [{"pid": 11, "ce-score": 0.5}], '
    '"neg": {"bm25": [{"pid": 13, "ce-score": -3.0, "bm25-score": 9.5}], "tas-b": []}}\n'
)
SHAPES = {
    "hofstaetter": ("bert_cat.tsv", "2.5\t-1.25\t7\t11\t12\n0.5\t-3.0\t8\t11\t13\n"),
    "hard-negatives": ("msmarco-hard-negatives.jsonl.gz", HARD),
    "tdist": ("t53b.jsonl.gz", '[7, [11, 2.5], [12, -1.25]]\n["8", ["11", 0.5], ["13", -3]]\n'),
    "trec": ("run", "7 Q0 11 1 2.5 x\n7 Q0 12 2 -1.25 x\n8 Q0 11 1 .5 x\n8 Q0 13 2 -3 x\n"),
    "tsv": ("s.tsv", "7\t11\t2.5\n7\t12\t-1.25\n\n8\t11\t.5\n8\t13\t-3e0\n"),
}
JSONL = [
    '{"query_id": 7, "document_id": 11, "score": 2.5}\n{"qid": "7", "pid": 12, "score": "-1.25"}\n'
    '{"qid": 8, "docno": "11", "ce-score": 0.5}\n{"qid": 8, "doc_id": "13", "logit": -3}\n',
    '{"query_id": 7, "document_ids": "[11, 12]", "scores": "[2.5, -1.25]"}\n'
    '{"query_id": 8, "document_ids": "[\'11\', \'13\']", "scores": [0.5, -3]}\n',
    '{"qid": "7", "doc_ids": [["11", 2.5], ["12", -1.25]]}\n'
    '{"qid": "8", "docs": [{"id": 11, "score": 0.5}, {"docid": "13", "score": -3.0}]}\n',
    '{"qid": "7", "scores": {"11": 2.5, "12": -1.25}}\n{"qid": 8, "scores": {"11": 0.5, "13": -3}}',
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("named", [False, True], ids=["detected", "named"])
def test_every_published_shape_gives_the_same_scores(tmp_path, shape, named):
    path = write(tmp_path / SHAPES[shape][0], SHAPES[shape][1])
    store = ScoreStore(tmp_path / "store")
    imported = import_scores(path, store, "teacher", format=shape if named else None)
    assert (imported.format, imported.stored) == (shape, 4)
    assert stored(store) == EXPECTED and store.verify() == []


@pytest.mark.parametrize("text", JSONL, ids=["pairs", "string-lists", "scored-lists", "dicts"])
def test_records_may_be_pairs_or_lists(tmp_path, text):
    store = ScoreStore(tmp_path / "store")
    assert import_scores(write(tmp_path / "s.jsonl", text), store, "teacher").format == "jsonl"
    assert stored(store) == EXPECTED


LONG = [{"qid": q, "docno": d, "score": s, "rank": 1} for (q, d), s in EXPECTED.items()]
WIDE = [
    {"query_id": 7, "doc_ids": ["11", "12"], "scores": [2.5, -1.25], "query": "a long text"},
    {"query_id": 8, "doc_ids": ["11", "13"], "scores": [0.5, -3.0], "query": "another"},
]
TEXTS = [{**row, "doc_ids": str(row["doc_ids"]), "scores": str(row["scores"])} for row in WIDE]


@pytest.mark.parametrize("rows", [LONG, WIDE, TEXTS], ids=["long", "lists", "string-lists"])
def test_parquet_may_be_long_or_lists(tmp_path, rows):
    store = ScoreStore(tmp_path / "store")
    imported = import_scores(parquet(tmp_path / "train.parquet", rows), store, "teacher")
    assert imported.format == "parquet" and stored(store) == EXPECTED


@pytest.mark.parametrize("header", ["score\tpid\tqid", "\nScore\tDocument\tQuery"])
def test_a_header_names_the_columns(tmp_path, header):
    text = f"{header}\n2.5\t11\t7\n-1.25\t12\t7\n0.5\t11\t8\n-3\t13\t8\n"
    store = ScoreStore(tmp_path / "store")
    import_scores(write(tmp_path / "s.tsv", text), store, "teacher")
    assert stored(store) == EXPECTED


def test_with_a_collection_scores_are_found_by_text(tmp_path, collection):
    path, store = write(tmp_path / "s.tsv", SHAPES["tsv"][1]), ScoreStore(tmp_path / "store")
    imported = import_scores(path, store, "teacher", collection=collection)
    asked = (
        [query_digest("who?"), query_digest("why?")],
        [
            document_digest("One", "first"),
            document_digest("Three", "third"),
        ],
    )
    assert store.lookup(imported.key, *asked).tolist() == [2.5, -3.0]


def test_without_a_collection_scores_are_stored_by_id(tmp_path):
    path, store = write(tmp_path / "s.tsv", SHAPES["tsv"][1]), ScoreStore(tmp_path / "store")
    key = import_scores(path, store, "teacher").key
    assert store.lookup(key, [id_digest("7")], [id_digest("12")]).tolist() == [-1.25]
    assert np.isnan(store.lookup(key, [query_digest("who?")], [document_digest("", "second")]))


BY_TEXT = {
    "FlagEmbedding": {"query": "who?", "pos": ["One first"], "neg": ["second", "unknown"],
                      "pos_scores": [2.5], "neg_scores": [-1.25, 9.0]},
    "Tevatron": {"query_id": "elsewhere-1", "query": "who?", "positive_passages": [
                     {"docid": "11", "title": "One", "text": "first", "score": 2.5}],
                 "negative_passages": [
                     {"docid": "x", "title": "-", "text": "second", "score": -1.25},
                     {"docid": "13", "title": "Three", "text": "third"}]},
    "pairs": [{"query": "who?", "passage": "first", "score": 2.5},
              {"query": "who?", "passage": "second", "score": -1.25}],
    "lists": {"query": "who?", "passages": ["One first", "second"], "scores": [2.5, -1.25]},
    "rank_llm": {"query": {"text": "who?", "qid": "7"}, "candidates": [
                     {"docid": "11", "score": 2.5, "doc": {"contents": "One first"}},
                     {"docid": "x", "score": -1.25, "doc": {"title": "", "segment": "second"}}]},
}  # fmt: skip


@pytest.mark.parametrize("shape", BY_TEXT)
@pytest.mark.parametrize("form", ["jsonl", "list", "parquet"])
def test_scores_keyed_by_text_are_found_in_the_collection(tmp_path, collection, shape, form):
    rows = BY_TEXT[shape] if isinstance(BY_TEXT[shape], list) else [BY_TEXT[shape]]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / "scores"
    if form == "parquet":
        parquet(path, rows)
    else:
        write(path, lines if form == "jsonl" else json.dumps(rows))
    store = ScoreStore(tmp_path / "store")
    imported = import_scores(path, store, "teacher", collection=collection)
    assert stored(store) == {("7", "11"): 2.5, ("7", "12"): -1.25}
    if shape == "FlagEmbedding":
        assert imported.drops.counts == {"document text not in the collection": 1}
    if shape == "Tevatron":
        assert imported.drops.counts == {"passage without a score": 1}


OTHER_NUMBERING = {  # document 11 has the text of 12, and of 11 there is no text
    "flat": [{"qid": "7", "docid": "11", "text": "second", "score": 3},
             {"qid": "7", "docid": "12", "text": "of another collection", "score": 1}],
    "lists": {"qid": "7", "docids": ["11", "12"], "texts": ["second", "other"], "scores": [3, 1]},
    "objects": {"qid": "7", "docs": [{"docid": "11", "text": "second", "score": 3},
                                     {"docid": "12", "text": "other", "score": 1}]},
    "rank_llm": {"query": {"text": "who?", "qid": "7"}, "candidates": [
                     {"docid": "11", "score": 3, "doc": {"contents": "second"}},
                     {"docid": "12", "score": 1, "doc": {"contents": "other"}}]},
}  # fmt: skip


@pytest.mark.parametrize("shape", OTHER_NUMBERING)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_text_beside_an_id_decides(tmp_path, collection, shape, form):
    rows = OTHER_NUMBERING[shape]
    rows = rows if isinstance(rows, list) else [rows]
    path = tmp_path / "scores"
    if form == "parquet":
        parquet(path, rows)
    else:
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    store = ScoreStore(tmp_path / "store")
    imported = import_scores(path, store, "teacher", collection=collection)
    assert stored(store) == {("7", "12"): 3.0}
    assert imported.drops.counts == {"document text not in the collection": 1}


def test_texts_beside_ids_in_a_table_decide_too(tmp_path, collection):
    text = (
        "qid\tquery\tdocid\tscore\ttext\n"
        "7\twho?\t11\t2.5\tfirst\n7\twhich?\t12\t1\t\n7\twho?\t12\t1\tthird\n7\t\t12\t4\n"
    )
    store = ScoreStore(tmp_path / "store")
    path = write(tmp_path / "s.tsv", text)
    imported = import_scores(path, store, "teacher", collection=collection)
    assert stored(store) == {("7", "11"): 2.5, ("7", "13"): 1.0, ("7", "12"): 4.0}
    assert imported.drops.counts == {"query text not in the collection": 1}
    path = write(tmp_path / "s.tsv", "qid\tdocid\tscore\ttext\n7\t12\t5\tfirst\n")
    store = ScoreStore(tmp_path / "other")
    import_scores(path, store, "teacher", collection=collection)
    assert stored(store) == {("7", "11"): 5.0}


def test_the_query_beside_its_id_is_compared(tmp_path, collection):
    rows = [{"qid": "7", "query": "another?", "docid": "11", "score": 3}]
    path = write(tmp_path / "s.jsonl", json.dumps(rows))
    with pytest.raises(InputError, match="1 × query text not in the collection"):
        import_scores(path, ScoreStore(tmp_path / "store"), "teacher", collection=collection)


@pytest.mark.parametrize("form", ["tsv", "jsonl", "parquet"])
def test_judgments_of_beir_are_no_scores(tmp_path, form):
    def made(score: float) -> Path:
        path, names = tmp_path / form, ("query-id", "corpus-id", "score")
        cells = [("7", "11", 1), ("7", "12", score)]
        rows = [dict(zip(names, row, strict=True)) for row in cells]
        if form == "parquet":
            return parquet(path, rows)
        if form == "jsonl":
            return write(path, "".join(json.dumps(row) + "\n" for row in rows))
        lines = ("\t".join(map(str, row)) for row in (names, *cells))
        return write(path, "\n".join(lines))

    store = ScoreStore(tmp_path / "store")
    for gain in (0, 2.0):
        with pytest.raises(InputError, match=r"judgments \(qrels\).*name the fields query_id"):
            import_scores(made(gain), store, "teacher")
    assert not store.path.exists()
    assert import_scores(made(0.5), store, "teacher").stored == 2, "no gains, so scores"


def test_scores_that_become_0_are_counted(tmp_path):
    path = write(tmp_path / "s.tsv", "7\t11\t1e-50\n7\t12\t-1e-60\n7\t13\t0\n")
    imported = import_scores(path, ScoreStore(tmp_path / "store"), "teacher")
    assert imported.drops.counts == {"score too small for 32 bits, stored as 0": 2}


@pytest.mark.parametrize("text", [
    '{"7": {"11": 2.5, "12": -1.25}, "8": {"11": 0.5, "13": -3}}',
    '{"7": {"11": 2.5, "12": -1.25}}\n{"8": {"11": 0.5, "13": -3}}\n',
    json.dumps({"7": {"11": 2.5, "12": -1.25}, "8": {"11": 0.5, "13": -3}}, indent=2),
    '{"7": {' + ", ".join(f'"{n}": {n}.25' for n in range(100_000)) + "}}",
], ids=["object", "lines", "indented", "long"])  # fmt: skip
def test_scores_may_be_nested_by_query_and_document(tmp_path, text):
    store = ScoreStore(tmp_path / "store")
    assert import_scores(write(tmp_path / "s.json", text), store, "teacher").format == "nested"
    assert len(text) > 1 << 20 or stored(store) == EXPECTED


@pytest.mark.parametrize("indent", [None, 1])
def test_records_may_stand_in_one_list(tmp_path, indent):
    rows = [json.loads(line) for line in JSONL[0].splitlines()]
    store = ScoreStore(tmp_path / "store")
    path = write(tmp_path / "s.json", json.dumps(rows, indent=indent))
    assert import_scores(path, store, "teacher").format == "jsonl"
    assert stored(store) == EXPECTED


def test_gzip_is_recognised_without_its_suffix(tmp_path):
    store = ScoreStore(tmp_path / "store")
    path = write(tmp_path / "s.tsv", gzip.compress(SHAPES["tsv"][1].encode()))
    assert import_scores(path, store, "teacher").format == "tsv"
    assert stored(store) == EXPECTED


@pytest.mark.parametrize("scores", [[0.5, 0.5, 0.5], [1, 0, 0]], ids=["constant", "binary"])
def test_scores_that_repeat_are_no_ranks(tmp_path, scores):
    rows = [f"{q}\t{d}\t{s}\n" for q in "ab" for d, s in zip("xyz", scores, strict=True)]
    store = ScoreStore(tmp_path / "store")
    assert import_scores(write(tmp_path / "s.tsv", "".join(rows)), store, "teacher").stored == 6


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[1m"])
def test_a_teacher_needs_a_name(tmp_path, name):
    path = write(tmp_path / "s.tsv", SHAPES["tsv"][1])
    with pytest.raises(InputError, match="no name for a teacher"):
        import_scores(path, ScoreStore(tmp_path / "store"), name)
    assert not (tmp_path / "store").exists()


def test_parquet_that_is_not_utf8_is_refused(tmp_path):
    bad = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    table = pa.table({"query_id": bad, "docid": ["11"], "score": [1.0]})
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(InputError, match=r"s\.parquet: text that is not UTF-8"):
        import_scores(tmp_path / "s.parquet", ScoreStore(tmp_path / "store"), "teacher")


def test_ids_the_collection_lacks_are_counted(tmp_path, collection):
    text = SHAPES["tsv"][1] + "7\t99\t1\n6\t11\t1\n5\t11\t1\n"
    path, store = write(tmp_path / "s.tsv", text), ScoreStore(tmp_path / "store")
    imported = import_scores(path, store, "teacher", collection=collection)
    assert imported.stored == 4 and stored(store) == EXPECTED
    assert imported.drops.counts["query ID not in the collection"] == 2
    assert imported.drops.first["document ID not in the collection"] == "99"


def test_nothing_left_is_an_error_and_leaves_no_store(tmp_path, collection):
    path, store = write(tmp_path / "s.tsv", "6\t11\t1\n7\t99\t2\n"), ScoreStore(tmp_path / "store")
    with pytest.raises(InputError, match=r"nothing to import.*not in the collection \(first: 6"):
        import_scores(path, store, "teacher", collection=collection)
    assert not store.path.exists()


def test_importing_twice_adds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(scores_module, "BATCH", 3)
    path, store = write(tmp_path / "b.tsv", SHAPES["hofstaetter"][1]), ScoreStore(tmp_path / "s")
    assert import_scores(path, store, "teacher").stored == 4
    again = import_scores(path, ScoreStore(tmp_path / "s"), "teacher")
    assert (again.stored, again.known) == (0, 4)
    assert store.read(again.key).num_rows == 4 and len(list(store.path.glob("*/shard*"))) == 1


@pytest.mark.parametrize("batch", [2, 50_000])
def test_a_pair_with_two_scores_keeps_the_first_and_is_counted(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(scores_module, "BATCH", batch)
    text = "2.5\t-1\t7\t11\t12\n2.5\t-2\t7\t11\t13\n2.75\t-1\t7\t11\t12\n"
    store = ScoreStore(tmp_path / "store")
    imported = import_scores(write(tmp_path / "b.tsv", text), store, "teacher")
    assert stored(store) == {("7", "11"): 2.5, ("7", "12"): -1.0, ("7", "13"): -2.0}
    assert (imported.stored, imported.known) == (3, 3)
    ((reason, example),) = imported.drops.first.items()
    assert imported.drops.counts[reason] == 1 and example == "7 11, line 3"
    assert "a different score" in reason


def test_hard_negatives_without_some_scores_are_counted(tmp_path):
    text = HARD + '{"qid": 9, "pos": [11], "neg": {"bm25": [12, {"pid": 13}]}}\n'
    store = ScoreStore(tmp_path / "store")
    imported = import_scores(write(tmp_path / "h.jsonl", text), store, "teacher")
    assert stored(store) == EXPECTED
    assert imported.drops.counts["candidate without a ce-score"] == 3


RANKED = "".join(f"{q} Q0 {d}{q} {r} {1 / r} z\n" for q in "abc" for r, d in enumerate("xyz", 1))


def test_ranks_written_as_scores_need_permission(tmp_path):
    path, store = write(tmp_path / "rankzephyr.run", RANKED), ScoreStore(tmp_path / "store")
    with pytest.raises(InputError, match=r"ranks written as scores.*--allow-ranks"):
        import_scores(path, store, "teacher")
    assert not store.path.exists()
    assert import_scores(path, store, "teacher", allow_ranks=True).stored == 9


def broken_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"7\t11\t2.5\n" * 9999)[:-30])


BROKEN = {
    "missing": ("s.tsv", None, "no such file"),
    "empty": ("s.tsv", "", "empty file"),
    "cut gzip": ("s.tsv.gz", broken_gzip, "damaged or cut off"),
    "not utf-8": ("s.tsv", b"7\t11\t1\n7\t\xff\t1\n", r"s\.tsv:2: not UTF-8"),
    "utf-16": ("s.tsv", "7\t11\t1\n".encode("utf-16"), r"s\.tsv:1: not UTF-8.*iconv -f utf-16"),
    "pickle": ("scores.bin", pickle.dumps({7: {11: 2.5}}), "a pickle.*docs/scores.md"),
    "old pickle": ("scores.bin", pickle.dumps({7: 1}, protocol=0), "a pickle"),
    "zipped pickle": ("ce-scores.pkl.gz", pickle.dumps({7: {11: 2.5}}), "a pickle"),
    "qrels": ("qrels.tsv", "7\t0\t11\t1\n", "judgments"),
    "prose": ("notes.txt", "these are not the scores you look for, friend\n", "no known shape"),
    "short line": ("s.tsv", "7\t11\t1\n7\t12\n", r"s\.tsv:2: 2 columns"),
    "long line": ("s.tsv", "7\t11\t1\n7\t12\t1\t5\n", r"s\.tsv:2: 4 columns"),
    "short triple": ("b.tsv", "1\t2\t7\t11\t12\n1\t2\t7\t11\n", r"b\.tsv:2: 4 columns"),
    "short run line": ("r", "7 Q0 11 1 2.5 x\n7 Q0 12 2 1.5\n", "r:2: 5 columns"),
    "score in words": ("s.tsv", "7\t11\thigh\n", r"s\.tsv:1: score 'high'"),
    "nan": ("s.tsv", "7\t11\t1\n7\t12\tnan\n", r"s\.tsv:2: score 'nan' is not a finite"),
    "underscore": ("s.tsv", "7\t11\t1_0\n", r"s\.tsv:1: score '1_0' is not a finite"),
    "other digits": ("s.tsv", "7\t11\t٣\n", r"s\.tsv:1: score '٣' is not a finite"),
    "huge": ("s.jsonl", f'{{"qid": 7, "pid": 1, "score": 1{"0" * 400}}}', "s.jsonl:1: score 1000"),
    "exponent": ("s.jsonl", '{"qid": 7, "pid": 1, "score": 1e999}', "s.jsonl:1: score inf"),
    "half a character": (
        "s.jsonl",
        '{"qid": "\\ud800", "pid": 1, "score": 1}',
        "surrogate U\\+D800",
    ),
    "document twice": ("s.json", '{"7": {"11": 1, "11": 2}}', "'11' is there twice"),
    "texts without scores": (
        "s.jsonl",
        '{"query": "a", "pos": ["b"], "neg": []}',
        "without pos_sc",
    ),
    "infinite": ("s.jsonl", '{"qid": 7, "pid": 1, "score": -Infinity}', "score -inf is not"),
    "null score": ("s.jsonl", '{"qid": 7, "doc_ids": [1], "scores": [null]}', "score None"),
    "true score": ("s.jsonl", '{"qid": 7, "pid": 1, "score": true}', "score True"),
    "overflow": ("s.tsv", "7\t12\t1\n7\t11\t1e39\n", r"s\.tsv:2: score '1e39' is too large"),
    "empty id": ("s.tsv", "7\t\t2\n", r"s\.tsv:1: empty document ID"),
    "text for an id": ("s.tsv", "who am I\t11\t2\n", "query ID with whitespace.*by ID"),
    "fractional id": ("s.jsonl", '{"qid": 7.5, "pid": 1, "score": 1}', "query ID 7.5"),
    "broken json": (
        "s.jsonl",
        '{"qid": 7, "pid": 1, "score": 1}\n{"qid": 7\n',
        "s.jsonl:2: broken J",
    ),
    "deep json": ("s.jsonl", "[" * 100_000, "broken JSON"),
    "json scalar": (
        "s.jsonl",
        '{"qid": 7, "pid": 1, "score": 1}\n5\n',
        "a number where a JSON",
    ),
    "no query": ("s.jsonl", '{"pid": 1, "score": 1}', "no query ID.*query_id"),
    "text for a query": ("s.jsonl", '{"query": "who?", "pid": 1, "score": 1}', "--collection"),
    "no document": ("s.jsonl", '{"qid": 7, "score": 1}', "no document ID"),
    "no score": ("s.jsonl", '{"qid": 7, "pid": 1, "rank": 1}', "order of documents without scores"),
    "only an order": ("s.jsonl", '{"qid": 7, "doc_ids": [1, 2, 3]}', "not by how much"),
    "margins": ("s.jsonl", '{"qid": 7, "positive_id": 1, "negative_id": 2, "score": 3}', "margins"),
    "uneven lists": (
        "s.jsonl",
        '{"qid": 7, "doc_ids": [1, 2], "scores": [3]}',
        "2 documents but 1",
    ),
    "no list": ("s.jsonl", '{"qid": 7, "doc_ids": [1], "scores": 3}', "one score for a list"),
    "no documents": ("s.jsonl", '{"qid": 7, "doc_ids": [], "scores": []}\n', "nothing to import"),
    "unparsable list": (
        "s.jsonl",
        '{"qid": 7, "doc_ids": "[1, ", "scores": "[2]"}',
        "list of scores",
    ),
    "code for a list": (
        "s.jsonl",
        '{"qid": 7, "doc_ids": "[exit(1)]", "scores": [1]}',
        "scores for",
    ),
    "ranked triple": ("t.jsonl", "[7, 11, 12]\n", "not by how much"),
    "half a pair": ("t.jsonl", "[7, [11, 2.5], [12]]\n", r"\[12\] is not \[document, score\]"),
    "lonely query": ("t.jsonl", "[7]\n", "without documents"),
    "unscored negatives": (
        "h.jsonl",
        '{"qid": 7, "pos": [1], "neg": {"bm25": [2]}}\n' * 2000,
        r"without a single ce-score.*pkl\.gz",
    ),
    "negatives of a query": ("h.jsonl", HARD + '{"qid": 9}\n', "h.jsonl:3: no qid or no neg"),
    "header": ("s.tsv", "query_id\ttext\tscore\n7\tx\t1\n", "the first line names"),
    "cut parquet": ("s.parquet", b"PAR1 and then nothing", "not Parquet"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_clear_error(tmp_path, kind):
    name, content, message = BROKEN[kind]
    path = tmp_path / name
    if callable(content):
        content(path)
    elif content is not None:
        write(path, content)
    with pytest.raises(InputError, match=message):
        import_scores(path, ScoreStore(tmp_path / "store"), "teacher")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query_id": "7", "doc_ids": ["1", "2"]}], "order of documents without scores"),
        ([{"qid": "7", "docno": "1", "rank": 1}], "order of documents without scores"),
        ([{"qid": "7", "docno": "1", "score": 1.0}, {"qid": None, "docno": "2"}], "2: no query ID"),
        ([{"text": "hello"}], "no query ID"),
        ([{"query_id": "7", "positive_id": "1", "negative_id": "2", "score": 3.5}], "margins"),
    ],
    ids=["order", "rank", "null", "texts", "margins"],
)
def test_parquet_without_scores_is_refused(tmp_path, rows, message):
    path = parquet(tmp_path / "train.parquet", rows)
    with pytest.raises(InputError, match=message):
        import_scores(path, ScoreStore(tmp_path / "store"), "teacher")


def test_an_unknown_format_lists_the_known(tmp_path):
    path = write(tmp_path / "s.tsv", "7\t11\t1\n")
    with pytest.raises(InputError, match="hofstaetter, hard-negatives"):
        import_scores(path, ScoreStore(tmp_path / "store"), "teacher", format="csv")
    assert set(SHAPES) < set(FORMATS)


def test_a_wrongly_named_format_is_an_error_of_its_first_line(tmp_path):
    for shape, (name, text) in SHAPES.items():
        path = write(tmp_path / name, text)
        assert detect(path) == shape
        for other in set(FORMATS) - {shape}:
            with pytest.raises(InputError):
                import_scores(path, ScoreStore(tmp_path / "store"), "teacher", format=other)
