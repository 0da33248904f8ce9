"""`rkd score` with embeddings and re-rankers of a server: their scores, and no call twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import read_run
from retrieval_kd.errors import InputError
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import read_usage
from retrieval_kd.teachers.kinds import PointwiseTeacher
from retrieval_kd.teachers.llm.server.budget import Stopped
from retrieval_kd.teachers.llm.server.call_log import LOGS
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.settings import ServerSettings
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher
from retrieval_kd.teachers.pointwise.retrievers import DenseTeacher
from retrieval_kd.teachers.score import score_query_and_record, scores_of
from retrieval_kd.teachers.spec import open_teacher
from tests.teachers.llm.server.command import rkd, words
from tests.teachers.llm.server.proxy import Proxy
from tests.teachers.llm.server.serving import PATIENCE
from tests.teachers.llm.server.test_model import failing
from tests.teachers.llm.server.test_transformers_serve import until

DENSE, RERANK = "dense:server:some/encoder", "rerank:some/reranker"
BOTH = pytest.mark.parametrize("teacher", [DENSE, RERANK])
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


def stored(collection: Collection, run: Path, folder: Path) -> dict[str, dict[str, float]]:
    """All scores of a store's only teacher, by query and document."""
    store = ScoreStore(folder)
    wanted = {query: list(ids) for query, ids in read_run(run).results.items()}
    queries = {query: collection.queries[query].full for query in wanted}
    return scores_of(collection, queries, wanted, store, store.only())


def scored_here(collection: Collection, run: Path, teacher: PointwiseTeacher) -> dict:
    pairs = [(q, d) for q, ids in read_run(run).results.items() for d in ids]
    scores = teacher.score(
        [collection.queries[q].full for q, _ in pairs], [collection.documents[d] for _, d in pairs]
    )
    found: dict[str, dict[str, float]] = {}
    for (query, document), score in zip(pairs, scores.tolist(), strict=True):
        found.setdefault(query, {})[document] = score
    return found


@pytest.mark.parametrize(
    "teacher", [DENSE, RERANK, f"{RERANK}?form=tei", f"{RERANK}?raw_scores=true"]
)
def test_a_server_gives_the_scores_of_this_process(
    teacher, served, collection, tiny_collection, tiny_encoder, tiny_cross_encoder, candidates,
    tmp_path, monkeypatch,
):  # fmt: skip
    monkeypatch.setenv("RETRIEVAL_KD_DTYPE", "float32")
    run = candidates(3, 5)
    told = rkd(words(tiny_collection, run, tmp_path / "s", teacher,
                     "--server", served, "--batch", "3"))  # fmt: skip
    assert "15 pairs, 0 known, 15 scored" in told and "0 failed" in told
    mine: PointwiseTeacher = (
        DenseTeacher(collection, str(tiny_encoder))
        if teacher == DENSE
        else CrossEncoderTeacher(str(tiny_cross_encoder), dtype=torch.float32)
    )
    found, expected = stored(collection, run, tmp_path / "s"), scored_here(collection, run, mine)
    assert found.keys() == expected.keys()
    for query in expected:
        assert found[query] == pytest.approx(expected[query], abs=1e-4)


@BOTH
def test_with_many_calls_failing_all_scores_arrive_and_no_answer_comes_twice(
    teacher, served, collection, tiny_collection, candidates, tmp_path
):
    run = candidates(6, 10)
    with Proxy(served, failing(0.4)) as proxy:
        arguments = words(tiny_collection, run, tmp_path / "s", teacher,
                          "--server", proxy.url, "--batch", "2")  # fmt: skip
        told = rkd(arguments)
        assert "60 scored" in told and "0 failed" in told and "not answered" not in told
        assert len(proxy.faults) > 1 and set(proxy.answered.values()) == {1}
        calls = proxy.calls.total()
        assert "60 known, 0 scored" in rkd(arguments) and proxy.calls.total() == calls
    store = ScoreStore(tmp_path / "s")
    spent = read_usage(store.folder(store.only()))
    assert spent is not None and spent.calls == calls and spent.prompt_tokens > 0
    assert store.verify() == []


@BOTH
def test_killed_and_resumed_no_call_is_made_twice(
    teacher, served, tiny_collection, candidates, tmp_path
):
    store = tmp_path / "s"
    with Proxy(served) as proxy:
        proxy.hold_after = 5  # what is sent after them waits, and is never answered
        arguments = words(tiny_collection, candidates(6, 10), store, teacher, "--server", proxy.url,
                          "--batch", "4", "--concurrency", "2")  # fmt: skip
        killed = subprocess.Popen([sys.executable, "-m", "retrieval_kd", *arguments],
                                  env=dict(os.environ))  # fmt: skip
        try:
            assert proxy.answered_enough.wait(PATIENCE)
            until(lambda: len(kept(store)) == proxy.answered.total())
        finally:
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        before = dict(proxy.answered)
        assert len(before) >= 5 and not list(store.glob("*/*.parquet"))
        seen = texts_in(proxy)[: len(before)]
    with Proxy(served) as proxy:
        arguments[arguments.index("--server") + 1] = proxy.url
        assert "60 scored" in rkd(arguments)
        assert set(proxy.answered.values()) == {1} and not set(proxy.answered) & set(before)
        after = texts_in(proxy)
    assert not set(seen) & set(after), "no text is sent again that was answered"
    assert not kept(store)
    found = ScoreStore(store)
    spent = read_usage(found.folder(found.only()))
    assert spent is not None and spent.calls == len(before) + len(after)


def kept(store: Path) -> list[str]:
    return [line for path in store.glob(f"*/{LOGS}") for line in path.read_text().splitlines()]


def texts_in(proxy: Proxy) -> list[str]:
    """What each call was about: its texts, with their query."""
    bodies = [json.loads(body) for _, body in proxy.seen if body]  # a killed client
    return [json.dumps([body.get("query"), body.get("input", body.get("documents"))])
            for body in bodies]  # fmt: skip


def test_vectors_are_known_wherever_their_server_is_and_whoever_asks(
    served, tiny_collection, candidates, tmp_path
):
    with Proxy(served) as one, Proxy(served) as other:
        shared = ["--server", one.url, "--batch", "8"]
        rkd(words(tiny_collection, candidates(6, 10), tmp_path / "a", DENSE, *shared))
        calls = one.calls.total()
        shared[1] = other.url
        rkd(words(tiny_collection, candidates(4, 8), tmp_path / "b", DENSE, *shared))
        assert calls > 0 and other.calls.total() == 0
        for option in ("document_prompt=passage: ", "dimensions=16", "input_type=a,b",
                       "revision=2", "passage_tokens=2"):  # fmt: skip
            before = other.calls.total()
            rkd(words(tiny_collection, candidates(4, 8), tmp_path / "b", f"{DENSE}?{option}",
                      *shared))  # fmt: skip
            assert other.calls.total() > before, option
        bodies = [json.loads(body) for _, body in other.seen]
    assert {body.get("input_type") for body in bodies} == {None, "a", "b"}
    assert {body.get("dimensions") for body in bodies} == {None, 16}
    assert any(text.startswith("passage: ") for body in bodies for text in body["input"])
    assert len(ScoreStore(tmp_path / "b").teachers()) == 6
    assert all(len(body["input"]) <= 8 for body in bodies)


@pytest.mark.parametrize(("teacher", "most", "batch"), [(DENSE, 150, 1), (RERANK, 400, 2)])
def test_a_limit_stops_cleanly_and_the_same_command_goes_on(
    teacher, most, batch, served, tiny_collection, candidates, tmp_path
):
    limit = ["--max-tokens", str(most), "--batch", str(batch)]
    with Proxy(served) as proxy:
        command = words(tiny_collection, candidates(6, 10), tmp_path / "s", teacher,
                        "--server", proxy.url, *limit)  # fmt: skip
        stops, told = 0, ""
        for _ in range(20):
            try:
                told = rkd(command)
            except Stopped:
                stops += 1
            else:
                break
        assert stops and "60 pairs" in told and set(proxy.answered.values()) == {1}


def test_a_query_is_sent_again_where_latency_is_measured(served, collection, candidates, tmp_path):
    with Proxy(served) as proxy:
        opened = open_teacher(DENSE, collection,
                              open_calls=partial(Calls, ServerSettings(url=proxy.url)))  # fmt: skip
        store, ids = ScoreStore(tmp_path / "s"), ["music1", "music2"]
        for calls in (2, 3, 4):  # documents once
            scores = score_query_and_record(collection, "violin chord", ids, opened, store)
            assert len(scores) == 2 and proxy.calls.total() == calls


def test_a_teacher_that_needs_a_server_says_so_before_anything_is_read(tmp_path):
    for teacher in (DENSE, RERANK):
        with pytest.raises(InputError, match=r"on a server, and none is named.*--server URL"):
            rkd(words(tmp_path / "no", tmp_path / "none.trec", tmp_path / "s", teacher))
    with pytest.raises(InputError, match="give two values"):
        rkd(words(tmp_path / "no", tmp_path / "none.trec", tmp_path / "s",
                  f"{DENSE}?input_type=query", "--server", NOWHERE))  # fmt: skip
