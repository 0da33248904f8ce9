"""What a small decoder is trained on says what it should: the right passage is the right answer."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.decoder_lessons import (
    TASKS,
    Known,
    around,
    known_of,
    lesson,
    lessons,
    made_question,
)
from retrieval_kd.data.collection import open_collection
from retrieval_kd.teachers.comparing.parse_answers import parse_order
from retrieval_kd.teachers.llm.decoder import LocalModel

SHOWN = ["sparrow nest", "sail mast", "violin", "flour yeast"]


@pytest.fixture(scope="module")
def model(tiny_decoder: Path) -> LocalModel:
    return LocalModel(str(tiny_decoder), dtype=torch.float32)


@pytest.mark.parametrize("seed", range(6))
def test_the_answer_of_a_lesson_is_the_right_passage(model, seed):
    one = lesson("order", "which bird?", SHOWN, model, random.Random(seed))
    order, status = parse_order(one.answer, len(SHOWN))
    lines = [line for line in one.prompt.user.splitlines() if line.startswith("[")]
    assert status == "ok" and "sparrow" in lines[order[0]]
    assert sorted(order) == [0, 1, 2, 3] and list(order[1:]) == sorted(order[1:])
    pair = lesson("pair", "which bird?", SHOWN[:2], model, random.Random(seed))
    [line] = [line for line in pair.prompt.user.splitlines() if line.startswith(f"[{pair.answer}]")]
    assert "sparrow" in line
    first = lesson("first", "which bird?", SHOWN, model, random.Random(seed))
    shown = [line for line in first.prompt.user.splitlines() if line.startswith("[")]
    assert first.prompt.start == "[" and "sparrow" in shown["ABCD".index(first.answer)]
    single = lesson("yes/no", "which bird?", SHOWN[:2], model, random.Random(seed))
    assert single.answer == ("yes" if "sparrow" in single.prompt.user else "no")


def test_lessons_are_drawn_by_their_seed_and_of_all_tasks(model, tiny_collection):
    collection = open_collection(str(tiny_collection))
    known = known_of(collection, "train", negatives=3)
    right = {one.query: one.right for one in known}
    assert all(right[one.query] not in one.wrong for one in known)
    texts = [document.full for document in collection.documents.iterate()]
    drawn = [list(islice(lessons(known, texts, model, seed), 40)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {"yes", "no", "A", "B"} <= {one.answer for one in drawn[0]}
    assert {one.answer for one in islice(lessons(known, texts, model, 0, tasks=TASKS[:1]), 9)} == {
        "yes",
        "no",
    }


def test_a_made_question_has_words_of_its_passage_in_their_order():
    text = "The quick brown sparrow builds another nest under seven wooden roofs every spring"
    one = made_question(text, random.Random(0))
    assert isinstance(one, Known) and one.right == text
    places = [text.split().index(word) for word in one.query.split()]
    assert places == sorted(places) and len(places) >= 3
    assert made_question("too few words", random.Random(0)) is None


def test_a_passage_is_cut_where_it_shares_most_with_the_query():
    text = " ".join([*["other"] * 30, "sparrow", "nest", *["other"] * 30])
    assert "sparrow nest" in around(text, "the nest of a sparrow", 8, random.Random(0))
    assert around("short", "sparrow", 8, random.Random(0)) == "short"
