"""The training examples of a small decoder: the positive passage is the correct answer."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.decoder_examples import (
    TASKS,
    JudgedQuery,
    example,
    examples,
    excerpt,
    judged_queries,
    make_question,
)
from retrieval_kd.data.collection import open_collection
from retrieval_kd.teachers.comparing.parse_answers import parse_order
from retrieval_kd.teachers.llm.decoder import LocalModel

SHOWN = ["sparrow nest", "sail mast", "violin", "flour yeast"]


@pytest.fixture(scope="module")
def model(tiny_decoder: Path) -> LocalModel:
    return LocalModel(str(tiny_decoder), dtype=torch.float32)


@pytest.mark.parametrize("seed", range(6))
def test_the_answer_of_an_example_is_the_positive_passage(model, seed):
    one = example("order", "which bird?", SHOWN, model, random.Random(seed))
    order, status = parse_order(one.answer, len(SHOWN))
    lines = [line for line in one.prompt.user.splitlines() if line.startswith("[")]
    assert status == "ok" and "sparrow" in lines[order[0]]
    assert sorted(order) == [0, 1, 2, 3] and list(order[1:]) == sorted(order[1:])
    pair = example("pair", "which bird?", SHOWN[:2], model, random.Random(seed))
    [line] = [line for line in pair.prompt.user.splitlines() if line.startswith(f"[{pair.answer}]")]
    assert "sparrow" in line
    first = example("first", "which bird?", SHOWN, model, random.Random(seed))
    shown = [line for line in first.prompt.user.splitlines() if line.startswith("[")]
    assert first.prompt.start == "[" and "sparrow" in shown["ABCD".index(first.answer)]
    single = example("yes/no", "which bird?", SHOWN[:2], model, random.Random(seed))
    assert single.answer == ("yes" if "sparrow" in single.prompt.user else "no")


def test_examples_are_drawn_by_their_seed_from_all_tasks(model, tiny_collection):
    collection = open_collection(str(tiny_collection))
    judged = judged_queries(collection, "train", negatives=3)
    right = {one.query: one.positive for one in judged}
    assert all(right[one.query] not in one.negatives for one in judged)
    texts = [document.full for document in collection.documents.iterate()]
    drawn = [list(islice(examples(judged, texts, model, seed), 40)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {"yes", "no", "A", "B"} <= {one.answer for one in drawn[0]}
    assert {
        one.answer for one in islice(examples(judged, texts, model, 0, tasks=TASKS[:1]), 9)
    } == {
        "yes",
        "no",
    }


def test_a_made_question_has_words_of_its_passage_in_their_order():
    text = "The quick brown sparrow builds another nest under seven wooden roofs every spring"
    one = make_question(text, random.Random(0))
    assert isinstance(one, JudgedQuery) and one.positive == text
    places = [text.split().index(word) for word in one.query.split()]
    assert places == sorted(places) and len(places) >= 3
    assert make_question("too few words", random.Random(0)) is None


def test_a_passage_is_cut_where_it_shares_most_with_the_query():
    text = " ".join([*["other"] * 30, "sparrow", "nest", *["other"] * 30])
    assert "sparrow nest" in excerpt(text, "the nest of a sparrow", 8, random.Random(0))
    assert excerpt("short", "sparrow", 8, random.Random(0)) == "short"
