"""`rkd score`, one command for each kind of teacher: a server gives the answers of this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import read_run
from retrieval_kd.errors import InputError
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import Usage, read_usage
from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.llm.protocol import Prompt
from retrieval_kd.teachers.llm.server.call_log import LOGS
from retrieval_kd.teachers.score import score, scores_of
from retrieval_kd.teachers.spec import open_teacher
from tests.teachers.llm.server.command import rkd, words
from tests.teachers.llm.server.echo_server import echo_server
from tests.teachers.llm.server.proxy import Proxy
from tests.teachers.llm.server.test_model import failing, on
from tests.tiny_models import write_decoder

ATOL = 5e-3  # llama.cpp multiplies in another order


@pytest.fixture(scope="module")
def local(served_decoder: Path) -> LocalModel:
    return LocalModel(str(served_decoder), dtype=torch.float32)


@pytest.fixture(scope="module")
def echo(local: LocalModel) -> Iterator[str]:
    pytest.importorskip("openai")
    with echo_server(local) as url:
        yield url


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


@pytest.mark.parametrize(
    ("teacher", "server"),
    [
        ("yesno:MODEL", "llama"),
        ("pairwise:MODEL?pairs=adjacent", "llama"),
        ("listwise:MODEL?window=3&stride=2", "llama"),
        ("listwise:MODEL?window=3&stride=2&answer=logits", "llama"),
        ("likelihood:MODEL", "echo"),
    ],
)
def test_a_server_gives_the_answers_of_this_process(
    teacher, server, request, local, collection, tiny_collection, candidates, tmp_path
):
    run, url = candidates(3, 5), request.getfixturevalue(server)
    local.usage = Usage()
    named = teacher.replace("MODEL", local.name)
    more = ["--logprobs", "512"]  # every word there is: a random decoder may not name an option
    more += ["--server", url, "--tokenizer", local.name]
    told = rkd(words(tiny_collection, run, tmp_path / "there", named, *more))
    assert "0 failed" in told
    asked = {query: list(found) for query, found in read_run(run).results.items()}
    queries = {query: collection.queries[query].full for query in asked}
    here, there = ScoreStore(tmp_path / "here"), ScoreStore(tmp_path / "there")
    mine = open_teacher(named, collection, open_model=lambda name: local)
    score(collection, queries, asked, mine, here)
    [key] = there.teachers()
    assert key.fingerprint != mine.key.fingerprint, "answers of two backends are not mixed"
    if key.is_pointwise:
        found, expected = (scores_of(collection, queries, asked, s, k) for s, k in
                           ((there, key), (here, mine.key)))  # fmt: skip
        assert found.keys() == expected.keys() == asked.keys()
        for query in asked:
            assert found[query] == pytest.approx(expected[query], abs=ATOL)
    else:
        found, expected = said(there, key), said(here, mine.key)
        assert found.keys() == expected.keys() and len(found) >= 3 * 2
        for question, answer in expected.items():
            assert found[question].order == answer.order
            assert found[question].log_odds == pytest.approx(answer.log_odds, abs=ATOL)
    spent = read_usage(there.folder(key))
    assert spent is not None and spent.prompt_tokens == local.usage.prompt_tokens
    assert verify_folder_is_clean(there)


def said(store: ScoreStore, key: TeacherKey) -> dict[tuple[str, ...], Answer]:
    rows = AnswerStore(store.folder(key), key).rows()
    return {(row.query_id, *row.document_ids): row.answer for row in rows if row.answer}


def verify_folder_is_clean(store: ScoreStore) -> bool:
    return not store.verify() and not list(store.path.glob(f"*/{LOGS}"))


def test_pairs_that_fail_are_missing_and_all_come_in_the_end(
    llama, served_decoder, tiny_collection, candidates, tmp_path
):
    named, run, store = f"yesno:{served_decoder}", candidates(6, 6), tmp_path / "store"
    with Proxy(llama, failing(0.2)) as proxy:
        command = words(tiny_collection, run, store, named, "--server", proxy.url,
                        "--retries", "0", "--logprobs", "512", "--api", "completions")  # fmt: skip
        told = rkd(command)
        first = proxy.answered.total()
        assert f"36 pairs, 0 known, {first} scored" in told
        assert f"{36 - first} pairs were not answered" in told and 0 < first < 36
        for _ in range(20):
            rkd(command)
        assert set(proxy.answered.values()) == {1} and len(proxy.answered) == 36
    kept = ScoreStore(store)
    assert kept.count(kept.teachers()[0]) == 36


@pytest.mark.parametrize("chat", [True, False])
def test_likelihoods_are_found_in_what_a_server_echoes(chat, tmp_path):
    pytest.importorskip("openai")
    model = LocalModel(str(write_decoder(tmp_path / "one", chat=chat)), dtype=torch.float32)
    prompts = [Prompt("violin: chord", system="é"), Prompt("tide", start="Query:"), Prompt("x")]
    queries = ["harbour sail", "the été of an ox", "no"]
    with echo_server(model) as url:
        asked = on(url, tokenizer=model.name if chat else None)
        found = asked.likelihoods(prompts, queries)
    expected = model.likelihoods(prompts, queries)
    assert [len(logs) for logs in found] == [len(logs) for logs in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_only_teachers_that_write_are_asked_on_a_server(tiny_collection, candidates, tmp_path):
    command = words(tiny_collection, candidates(2, 3), tmp_path / "s", "bm25")
    with pytest.raises(InputError, match="a server cannot run"):
        rkd([*command, "--server", "http://127.0.0.1:1/v1"])
    with pytest.raises(InputError, match="--max-tokens is for servers"):
        rkd([*command, "--max-tokens", "10"])
    with pytest.raises(InputError, match="needs the server's prices"):
        rkd([*command, "--server", "http://127.0.0.1:1/v1", "--max-cost", "1"])


def test_other_teachers_note_what_they_cost_too(tiny_collection, candidates, tmp_path):
    rkd(words(tiny_collection, candidates(2, 3), tmp_path / "store", "bm25"))
    store = ScoreStore(tmp_path / "store")
    spent = read_usage(store.folder(store.teachers()[0]))
    assert spent is not None and spent.calls == 6 and spent.seconds > 0
    assert store.verify() == []
