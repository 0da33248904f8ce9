"""A generated collection is the old one and a split; what cannot work is said before any call."""

from __future__ import annotations

import json

import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.generation.collection import (
    Filters,
    draw_documents,
    draw_examples,
    generate_collection,
)
from retrieval_kd.teachers.generate.write import QueryTask
from tests.teachers.generate.test_write import Writer


class Copies(Writer):
    """Writes the first three words of the document; or, for every fourth, a test query."""

    def __init__(self, test_query=""):
        super().__init__()
        self.test_query = test_query

    def generate(self, prompts, most_tokens):
        shown = [prompt.user.split("<document>")[-1].split("</document>")[0] for prompt in prompts]
        self.asked += shown
        kept = [" ".join(text.split()[:3]) for text in shown]
        texts = [
            self.test_query if n % 4 == 1 and self.test_query else text
            for n, text in enumerate(kept)
        ]
        from retrieval_kd.teachers.llm.protocol import Completion

        return [Completion(f"<query>{text}</query>") for text in texts]


@pytest.fixture
def collection(tiny_collection):
    return open_collection(tiny_collection)


def test_the_folder_is_the_collection_with_one_more_split(collection, tmp_path):
    test_query = next(iter(collection.query_texts("test").values()))
    out = tmp_path / "out"
    filters = Filters(against=("test",), retrievers=("bm25",), depth=5)
    about = generate_collection(
        collection, Copies(test_query), QueryTask(count=1), filters, tmp_path / "store", out
    )
    made = open_collection(out)
    assert made.documents.digest == collection.documents.digest
    assert set(made.splits) == {*collection.splits, "generated"}
    for split in collection.splits:
        assert made.qrels(split) == collection.qrels(split)
        assert made.query_texts(split) == collection.query_texts(split)
    kept = made.query_texts("generated")
    assert len(kept) == about["queries"]["kept"] and test_query not in kept.values()
    for query, judged in made.qrels("generated").items():
        assert all(kept[query] in made.documents[id].full for id in judged)
    counts = about["queries"]
    assert counts["distinct"] == counts["overlapping"] + counts["not_found"] + counts["kept"]
    assert counts["overlapping"] == 1 and counts["written"] > counts["distinct"]
    dropped = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert len(dropped) == counts["overlapping"] + counts["not_found"]
    assert any("overlap with query" in row["reason"] for row in dropped)
    assert json.loads((out / "generation.json").read_text()) == json.loads(json.dumps(about))


def test_other_filters_ask_nothing_anew_and_replace_the_folder(collection, tmp_path):
    first, second = Copies(), Copies()
    out, task = tmp_path / "out", QueryTask(count=1)
    strict = generate_collection(
        collection, first, task, Filters(retrievers=("bm25",), depth=1), tmp_path / "store", out
    )
    loose = generate_collection(
        collection, second, task, Filters(retrievers=()), tmp_path / "store", out
    )
    assert first.asked and not second.asked
    assert loose["queries"]["kept"] == loose["queries"]["distinct"] >= strict["queries"]["kept"]
    assert loose["round_trip"] == {} and 0 < strict["round_trip"]["bm25"] <= 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"split": "test"}, "has a split 'test'"),
        ({"split": "../x"}, "no name for a split"),
        ({"filters": Filters(against=("nowhere",))}, "no split 'nowhere'"),
        ({"filters": Filters(retrievers=("bm25+./none",))}, "no such model folder"),
    ],
)
def test_what_cannot_be_finished_is_refused_before_a_call(collection, tmp_path, wrong, told):
    writer = Copies()
    arguments = {"filters": Filters(), "split": "generated"} | wrong
    with pytest.raises(InputError, match=told):
        generate_collection(
            collection, writer, QueryTask(), arguments["filters"], tmp_path / "store",
            tmp_path / "out", split=arguments["split"],
        )  # fmt: skip
    assert not writer.asked and not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_not_replaced(collection, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(InputError, match="does not hold a generated collection"):
        generate_collection(
            collection, Copies(), QueryTask(), Filters(), tmp_path / "store", tmp_path
        )


def test_new_queries_do_not_take_the_ids_of_old_ones(collection, tmp_path):
    out, filters = tmp_path / "out", Filters(retrievers=())
    generate_collection(collection, Copies(), QueryTask(count=1), filters, tmp_path / "s", out)
    (out / "qrels" / "generated.tsv").unlink()  # the split is gone, its queries are not
    made, writer = open_collection(out), Copies()
    with pytest.raises(InputError, match="IDs begin with 'generated:'"):
        generate_collection(made, writer, QueryTask(), filters, tmp_path / "s2", tmp_path / "b")
    assert not writer.asked


@pytest.mark.parametrize("place", ["", "answers", "a/b"])
def test_answers_are_not_stored_in_the_folder_that_is_replaced(collection, tmp_path, place):
    writer, out = Copies(), tmp_path / "out"
    with pytest.raises(InputError, match="answers would be lost"):
        generate_collection(collection, writer, QueryTask(), Filters(), out / place, out)
    assert not writer.asked and not out.exists()


def test_of_a_model_that_writes_nothing_usable_the_answers_are_counted(collection, tmp_path):
    class Chatty(Writer):
        def generate(self, prompts, most_tokens):
            from retrieval_kd.teachers.llm.protocol import Completion

            return [Completion("Sure, here it is!") for _ in prompts]

    about = generate_collection(
        collection, Chatty(), QueryTask(), Filters(), tmp_path / "s", tmp_path / "out"
    )
    assert about["answers"]["other_words"] == len(collection.documents)
    assert about["queries"]["kept"] == 0
    assert not (tmp_path / "out").exists()


def test_documents_and_examples_are_drawn_by_seed(collection):
    ids = draw_documents(collection, None, 0)
    assert len(ids) == len(collection.documents)
    some = draw_documents(collection, 5, 1)
    assert some == draw_documents(collection, 5, 1) != draw_documents(collection, 5, 2)
    assert [id for id in ids if id in some] == some  # in the order of the collection
    pairs = draw_examples(collection, "train", 3, 0)
    relevant = {
        (collection.documents[d].full, collection.queries[q].full)
        for q, judged in collection.qrels("train").items()
        for d, gain in judged.items()
        if gain > 0
    }
    assert set(pairs) <= relevant and len({text for text, _ in pairs}) == 3
    with pytest.raises(InputError, match="relevant documents to show"):
        draw_examples(collection, "train", 10_000, 0)
