"""Published orders become a listwise teacher's answers about the collection's own texts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from retrieval_kd.cli.app import app
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.importers import import_permutations
from retrieval_kd.teachers.importers.orders import PublishedOrder, parse_conversation
from retrieval_kd.teachers.stored import stored_scores

QUERY = "q-birds0"
SHOWN = ["birds3", "ships1", "birds9"]
BEST_FIRST = ["birds9", "birds3", "ships1"]  # what `[3] > [1] > [2]` says of them
ANSWER = "[3] > [1] > [2]"


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


def text_of(collection: Collection, id: str) -> str:
    return collection.documents[id].text


def user_turn(query: str, passages: list[str]) -> str:
    """As RankZephyr's training data have it."""
    listed = "\n\n".join(f"[{place}] {text}" for place, text in enumerate(passages, start=1))
    count = len(passages)
    return (
        f"I will provide you with {count} passages, each indicated by a numerical identifier []. "
        f"Rank the passages based on their relevance to the search query: {query}.\n\n{listed}\n\n"
        f"Search Query: {query}.\nRank the {count} passages above based on their relevance."
    )


def record(shape: str, collection: Collection) -> dict:
    """The same order in each shape that is read."""
    query = collection.queries[QUERY].full
    passages = [
        {"docid": id, "title": collection.documents[id].title, "text": text_of(collection, id)}
        for id in SHOWN
    ]
    texts = [f"Title: {p['title']} Content: {p['text']}" for p in passages]
    spoken = [("human", user_turn(query, texts)), ("gpt", ANSWER)]
    said_apart = [
        ("user", "I will provide you with 3 passages, each indicated by number identifier []."),
        ("assistant", "Okay, please provide the passages."),
        *((who, words) for place, text in enumerate(texts, start=1)
          for who, words in (("user", f"[{place}] {text}"), ("assistant", "Received."))),
        ("user", f"Search Query: {query}. Rank the 3 passages above."),
        ("assistant", ANSWER),
    ]  # fmt: skip
    return {
        "by ID": {"query_id": QUERY, "hits": [{"docid": id} for id in SHOWN], "response": ANSWER},
        "by text": {
            "query": query,
            "retrieved_passages": [{"text": p["text"]} for p in passages],
            "response": ANSWER,
        },
        "ID and text": {"query": query, "retrieved_passages": passages, "permutation": ANSWER},
        "from 0": {"query": query, "retrieved_passages": passages, "permutation": [2, 0, 1]},
        "from 1": {"query": query, "retrieved_passages": passages, "permutation": [3, 1, 2]},
        "nested": {
            "query": {"qid": QUERY, "text": query},
            "candidates": [{"docid": p["docid"], "doc": {"contents": p["text"]}} for p in passages],
            "response": ANSWER,
        },
        "conversation": {"conversations": [{"from": w, "value": v} for w, v in spoken]},
        "chat": {"messages": [{"role": w, "content": v} for w, v in said_apart]},
    }[shape]  # fmt: skip


SHAPES = (
    "by ID", "by text", "ID and text", "from 0", "from 1", "nested", "conversation", "chat",
)  # fmt: skip


def written(path: Path, *records: dict) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def scores(collection: Collection, store: ScoreStore, name: str = "gpt") -> dict:
    queries = {query: collection.queries[query].full for query in collection.queries.ids()}
    [found] = stored_scores(collection, queries, store.path, [name], None, Drops())
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_training_finds_an_order_of_any_shape(shape, collection, tmp_path):
    store = ScoreStore(tmp_path / "store")
    file = written(tmp_path / "orders.jsonl", record(shape, collection))
    made = import_permutations(file, store, "gpt", collection)
    assert (made.stored, made.known, made.repaired, made.drops.summary()) == (1, 0, 0, [])
    found = scores(collection, store)
    assert found == {QUERY: {id: 1 / rank for rank, id in enumerate(BEST_FIRST, start=1)}}
    assert sorted(scores(collection, store, "gpt?aggregate=borda")[QUERY]) == sorted(SHOWN)
    assert store.verify() == []


def test_one_list_of_json_and_a_second_import_add_nothing(collection, tmp_path):
    file, store = tmp_path / "orders.json", ScoreStore(tmp_path / "store")
    file.write_text(json.dumps([record(shape, collection) for shape in SHAPES], indent=1))
    made = import_permutations(file, store, "gpt", collection)
    assert (made.stored, made.known) == (1, len(SHAPES) - 1)  # all say the same
    again = import_permutations(file, store, "gpt", collection)
    assert (again.stored, again.known) == (0, len(SHAPES))


def test_a_list_of_json_may_begin_after_blank_lines(collection, tmp_path):
    file = tmp_path / "orders.json"
    file.write_text("\n\n" + json.dumps([record("by ID", collection)], indent=1))
    made = import_permutations(file, ScoreStore(tmp_path / "store"), "gpt", collection)
    assert made.stored == 1


def test_a_conversation_about_several_lists_is_no_order_of_the_first(collection, tmp_path):
    """The last answer is about the last list, whose numbers are those of the first."""
    whole = record("conversation", collection)
    query = collection.queries[QUERY].full
    more = user_turn(query, [text_of(collection, id) for id in ("music1", "birds1", "birds2")])
    turns = [*whole["conversations"], {"from": "human", "value": more},
             {"from": "gpt", "value": "[1] > [3] > [2]"}]  # fmt: skip
    file = written(tmp_path / "orders.jsonl", {"conversations": turns}, whole)
    store = ScoreStore(tmp_path / "store")
    made = import_permutations(file, store, "gpt", collection)
    assert made.drops.counts == {"conversation with several lists of passages": 1}
    assert sorted(SHOWN, key=scores(collection, store)[QUERY].get, reverse=True) == BEST_FIRST


def test_a_passage_that_names_a_query_asks_for_nothing():
    passages = ["Do not see Search Query: violins", "The moon."]
    found = parse_conversation(
        [
            {"role": "user", "content": user_turn("tides", passages)},
            {"role": "assistant", "content": "[2] > [1]"},
        ]
    )
    assert isinstance(found, PublishedOrder) and found.query == "tides."


@pytest.mark.parametrize("words", ["[2] > [0] > [1]", "2 > 0 > 1", "The order: 2, 0, 1", "0\n2\n1"])
def test_words_that_count_from_0_are_read_like_lists_that_do(words, collection, tmp_path):
    whole = {**record("by ID", collection), "response": words}
    store = ScoreStore(tmp_path / "store")
    made = import_permutations(written(tmp_path / "o.jsonl", whole), store, "gpt", collection)
    assert (made.stored, made.repaired, made.drops.counts) == (1, 1, {})
    best = sorted(SHOWN, key=scores(collection, store)[QUERY].get, reverse=True)
    assert best == [SHOWN[int(place)] for place in re.findall(r"\d", words)]


@pytest.mark.parametrize("words", ["[2] > [0]", "2 > 1 > 0 > 9", "[0, 1]"])
def test_words_that_may_count_from_0_are_not_taken_for_places_from_1(words, collection, tmp_path):
    whole = record("by ID", collection)
    file = written(tmp_path / "orders.jsonl", {**whole, "response": words}, whole)
    made = import_permutations(file, ScoreStore(tmp_path / "store"), "gpt", collection)
    assert (made.stored, made.repaired) == (1, 0)
    assert made.drops.counts == {"answer that cannot be parsed": 1}


def test_zeros_that_name_no_passage_do_no_harm(collection, tmp_path):
    file = written(
        tmp_path / "orders.jsonl",
        {**record("by ID", collection), "response": f"Confidence: 0.10\n{ANSWER}"},
    )
    made = import_permutations(file, ScoreStore(tmp_path / "store"), "gpt", collection)
    assert (made.stored, made.drops.summary()) == (1, [])


def test_what_is_left_out_is_counted_and_moves_no_other_place(collection, tmp_path):
    whole = record("ID and text", collection)
    strange = {"docid": "not-there", "text": "of another collection"}
    other_text = {"docid": "music1", "text": "of another collection with these IDs"}
    file = written(
        tmp_path / "orders.jsonl",
        {**whole, "retrieved_passages": [strange, other_text, *whole["retrieved_passages"]],
         "permutation": "[5] > [1] > [3] > [2] > [4]"},
        {**whole, "query": "nobody asked this"},
        {**whole, "permutation": "I cannot rank these."},
        {**whole, "retrieved_passages": [strange, other_text], "permutation": "[1] > [2]"},
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "[1]"}]},
    )  # fmt: skip
    store = ScoreStore(tmp_path / "store")
    made = import_permutations(file, store, "gpt", collection)
    assert made.stored == 1
    assert made.drops.counts == {
        "passage that the collection lacks": 4,
        "order of a query that the collection lacks": 1,
        "answer that cannot be parsed": 1,
        "order of fewer than two passages that the collection has": 1,
        "conversation without a query, passages or answer": 1,
    }
    assert list(scores(collection, store)[QUERY]) == sorted(SHOWN)
    assert sorted(SHOWN, key=scores(collection, store)[QUERY].get, reverse=True) == BEST_FIRST
    [key] = store.teachers()
    [answer] = [row.answer for row in AnswerStore(store.folder(key), key).rows() if row.answer]
    assert (answer.text, answer.order) == (ANSWER, (2, 0, 1))  # of the three that are left


def test_gaps_are_counted_and_several_lists_of_a_query_are_aggregated(collection, tmp_path):
    whole = record("by ID", collection)
    file = written(
        tmp_path / "orders.jsonl",
        {**whole, "response": "[3] > [1]"},
        {**whole, "hits": [{"docid": id} for id in ("birds9", "birds3")], "response": "[1] > [2]"},
    )
    store = ScoreStore(tmp_path / "store")
    made = import_permutations(file, store, "gpt", collection)
    assert (made.stored, made.repaired, made.again) == (2, 1, 1)
    assert scores(collection, store)[QUERY] == {"birds9": 1.0, "birds3": 0.5}  # ships1: not named


def test_later_imports_report_another_list_of_a_query_too(collection, tmp_path):
    whole, store = record("by ID", collection), ScoreStore(tmp_path / "store")
    first = written(tmp_path / "first.jsonl", whole)
    other = {**whole, "hits": [{"docid": id} for id in reversed(SHOWN)]}
    second = written(tmp_path / "second.jsonl", other)
    again = [import_permutations(f, store, "gpt", collection).again for f in (first, second, first)]
    assert again == [0, 1, 0]  # the third adds nothing


def test_what_is_no_order_is_an_error_with_its_line(collection, tmp_path):
    good = record("by ID", collection)
    for bad, problem in (
        ({"query": "x", "hits": []}, "no list of passages, or no answer"),
        ({**good, "response": [1, 2]}, "not an order of 3 passages"),
        ({**good, "response": [0, int("9" * 4300), 1]}, "not an order of 3 passages"),
        ([1], "a list where a JSON object"),
    ):
        file = written(tmp_path / "bad.jsonl", good, bad)
        with pytest.raises(InputError, match=rf"bad.jsonl:2: .*{problem}"):
            import_permutations(file, ScoreStore(tmp_path / "store"), "gpt", collection)
    with pytest.raises(InputError, match="nothing to import: 1 × order of a query"):
        elsewhere = written(tmp_path / "other.jsonl", {**good, "query_id": "?"})
        import_permutations(elsewhere, ScoreStore(tmp_path / "empty"), "gpt", collection)


def test_the_command_says_what_it_did(tiny_collection, collection, tmp_path):
    file = written(tmp_path / "orders.jsonl", record("conversation", collection))
    arguments = ["--store", str(tmp_path / "s"), "--collection", str(tiny_collection)]
    command = ["scores", "import-permutations", str(file), "--teacher", "rank-zephyr", *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "1 orders stored (0 incomplete)" in result.stdout


LINE = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]) | st.just(" "), min_size=1)


@given(st.lists(LINE.map(str.strip).filter(bool), min_size=2, max_size=12), st.data())
def test_passages_of_a_conversation_come_back_as_they_were_shown(passages, data):
    """Whatever is in them, on one line as these prompts have it."""
    places = data.draw(st.permutations(range(1, len(passages) + 1)))
    answer = " > ".join(f"[{place}]" for place in places)
    turns = [
        {"role": "user", "content": user_turn("tides", passages)},
        {"role": "assistant", "content": answer},
    ]
    found = parse_conversation(turns)
    assert isinstance(found, PublishedOrder) and found.response == answer
    assert [passage.text for passage in found.passages] == passages
    assert found.query == "tides."  # the matcher knows both ways to end it
