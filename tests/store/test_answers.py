"""Comparing teachers' answers are stored unchanged, found by their texts, and checked."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from retrieval_kd.cli.scores import scores_app
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.store.answers import AnswerStore, Row, as_stored, to_rows, to_table
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.shards import shard_paths, write_shard

PAIRWISE = TeacherKey("pairwise", "pairwise:judge", digest="ab12", prompt="pair by logits: which")
LISTWISE = TeacherKey("listwise", "listwise:judge", digest="ab12", prompt="order by words: order")

finite = st.floats(-80, 80, width=32)
answers = st.builds(
    Answer,
    text=st.text(max_size=20),
    logs=st.none() | st.lists(finite | st.just(float("nan")), max_size=4).map(tuple),
    log_odds=st.none() | finite,
    order=st.none() | st.permutations(range(4)).map(tuple),
    status=st.sampled_from(["ok", "repaired", "unparsable"]),
)


def row(shown: str, answer: Answer | None = None, query: str = "q", strategy: str = "") -> Row:
    """A row whose documents are single letters and whose texts are their IDs."""
    digests = tuple(digest_text("", id) for id in shown)
    return Row(query, tuple(shown), digest_text(query), digests, answer, strategy)


def put(store: ScoreStore, key: TeacherKey, *rows: Row, **options) -> AnswerStore:
    answers = AnswerStore(store.folder(key), key)
    with answers.writer(**options) as writer:
        for one in rows:
            writer.add([one])
    return answers


def command(*arguments, fails: bool = False) -> str:
    result = CliRunner().invoke(scores_app, [str(argument) for argument in arguments])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == (1 if fails else 0), result.output
    return result.output


@given(answers, st.text("abcd", min_size=1, max_size=5))
def test_a_row_comes_back_as_it_was(answer, shown):
    strategy = row(shown, strategy="pairs=all")
    given = row(shown, as_stored(answer))
    back = to_rows(to_table([given, strategy]))
    assert repr(back) == repr([given, strategy])  # repr, because NaN is not equal to itself


@given(answers)
def test_numbers_are_rounded_before_anybody_decides_by_them(answer):
    [back] = to_rows(to_table([row("ab", answer)]))
    assert repr(back.answer) == repr(as_stored(answer))


def test_another_order_is_another_request_and_the_first_answer_counts(tmp_path):
    store = ScoreStore(tmp_path)
    answers = put(
        store,
        PAIRWISE,
        row("ab", Answer(log_odds=1.0)),
        row("ba", Answer(log_odds=-2.0)),
        row("ab", Answer(log_odds=9.0)),
        row("ab", Answer(log_odds=5.0), query="other"),
    )
    for opened in (answers, AnswerStore(store.folder(PAIRWISE), PAIRWISE)):
        known = opened.of_query(digest_text("q")).answers
        assert [answer.log_odds for answer in known.values()] == [1.0, -2.0]
        assert len(opened) == 3


def test_what_was_added_is_known_before_it_is_in_a_shard_and_after(tmp_path):
    answers = AnswerStore(tmp_path / PAIRWISE.fingerprint, PAIRWISE)
    with answers.writer(shard_rows=3) as writer:
        for number, shown in enumerate(("ab", "ba", "ac", "ca"), start=1):
            writer.add([row(shown, Answer(log_odds=float(number)))])
            assert len(answers.of_query(digest_text("q")).answers) == number
        assert len(shard_paths(answers.folder)) == 1
    assert [pq.read_metadata(path).num_rows for path in shard_paths(answers.folder)] == [3, 1]


def test_an_exception_and_a_long_wait_store_what_is_there(tmp_path):
    answers = AnswerStore(tmp_path / PAIRWISE.fingerprint, PAIRWISE)
    with pytest.raises(KeyboardInterrupt), answers.writer() as writer:
        writer.add([row("ab", Answer(log_odds=1.0))])
        raise KeyboardInterrupt
    assert len(answers) == 1
    with answers.writer(most_seconds=0) as writer:
        writer.add([row("ba", Answer(log_odds=1.0))])
        assert len(AnswerStore(answers.folder, PAIRWISE)) == 2


def test_the_latest_list_of_candidates_is_the_last(tmp_path):
    first, second = row("abc", strategy="how=heap"), row("abcd", strategy="how=heap")
    answers = put(ScoreStore(tmp_path), LISTWISE, first, second, first)
    assert answers.of_query(digest_text("q")).strategies == [second, first]
    assert len(answers) == 0


def test_pointwise_reading_refuses_answers_about_several(tmp_path):
    store = ScoreStore(tmp_path)
    put(store, PAIRWISE, row("ab", Answer(log_odds=1.0)))
    for read in (store.read, store.count):
        with pytest.raises(InputError, match="not scores of single documents"):
            read(PAIRWISE)
    with pytest.raises(InputError, match="one by one"):
        AnswerStore(tmp_path / "x", replace(PAIRWISE, kind="pointwise"))


def test_inspect_counts_requests_statuses_and_order_bias(tmp_path):
    store = ScoreStore(tmp_path)
    odds = {"ab": 2.0, "ba": 1.0, "ac": 3.0, "ca": -4.0, "bc": 1.0}
    put(store, PAIRWISE, *(row(shown, Answer(log_odds=value)) for shown, value in odds.items()))
    put(
        store,
        LISTWISE,
        row("abc", strategy="how=windows&window=3&stride=1&passes=1"),
        row("abc", Answer("[2] > [1] > [3]", order=(1, 0, 2))),
        row("bca", Answer("no", status="unparsable")),
    )
    told = {one["kind"]: one for one in json.loads(command("inspect", tmp_path, "--json"))}
    pairs, lists = told["pairwise"], told["listwise"]
    assert (pairs["questions"], pairs["queries"]) == (5, 1)
    assert pairs["order_bias"] == {
        "pairs": 2, "first_wins": 0.75, "contradictions": 0.5, "log_odds": 0.5
    }  # fmt: skip
    assert lists["statuses"] == {"ok": 1, "repaired": 0, "unparsable": 1}
    assert lists["strategies"] == {"how=windows&window=3&stride=1&passes=1": 1}
    assert lists["shown"] == {"min": 3, "median": 3, "max": 3} and lists["order_bias"] is None
    shown = command("inspect", tmp_path)
    for part in ("75.0%", "50.0%", "1 ok, 0 repaired, 1", "pair by logits: which"):
        assert part in shown


def test_answers_are_exported_unchanged(tmp_path):
    store = ScoreStore(tmp_path / "store")
    said = Answer("[2] > [1]", order=(1, 0), status="ok")
    put(store, LISTWISE, row("ab", said), row("ab", strategy="how=heap"))
    assert "1 answers" in command("export", store.path, "--out", tmp_path / "a.jsonl")
    [line] = (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "query_id": "q", "document_ids": ["a", "b"], "text": "[2] > [1]", "logs": None,
        "log_odds": None, "order": [1, 0], "status": "ok",
    }  # fmt: skip
    command("export", store.path, "--out", tmp_path / "a.parquet")
    assert to_rows(pq.read_table(tmp_path / "a.parquet"))[0].answer == said
    with pytest.raises(InputError, match="ends in"):
        command("export", store.path, "--out", tmp_path / "a.trec")


def test_verify_finds_what_is_wrong_with_answers(tmp_path):
    store = ScoreStore(tmp_path)
    answers = put(store, LISTWISE, row("abc", Answer(order=(1, 0, 2))), row("ab", strategy="x=y"))
    assert "all is well" in command("verify", tmp_path)
    put(store, LISTWISE, row("abc", Answer(order=(2, 0, 1))))
    bad = [
        row("ab", Answer(order=(0, 2))),
        row("ab", Answer(order=(0, 0))),
        row("ab", Answer(order=None)),
        row("ab", Answer(order=(0, 1), logs=(1.0,))),
        replace(row("ab", Answer(order=(0, 1))), document_digests=()),
    ]
    write_shard(answers.folder, LISTWISE.about(), to_table(bad))
    found = command("verify", tmp_path, fails=True)
    for part in (
        "another answer than", "places that 2 documents", "a document twice", "status 'ok'",
        "1 log-probabilities", "0 bytes of digests",
    ):  # fmt: skip
        assert part in found
    path = shard_paths(answers.folder)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "changed after it was written" in command("verify", tmp_path, fails=True)
    with pytest.raises(InputError, match="makes its contents again"):
        AnswerStore(answers.folder, LISTWISE).of_query(digest_text("q"))


def test_scores_among_answers_are_refused_not_misread(tmp_path):
    answers = put(ScoreStore(tmp_path), LISTWISE, row("abc", Answer(order=(1, 0, 2))))
    write_shard(answers.folder, LISTWISE.about(), pa.table({"score": np.zeros(1, np.float32)}))
    with pytest.raises(InputError, match="not those of a shard"):
        AnswerStore(answers.folder, LISTWISE).of_query(digest_text("q"))
    assert "not those of a shard" in command("verify", tmp_path, fails=True)
