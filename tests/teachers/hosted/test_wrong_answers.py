"""What cannot be true of an answer of `/embeddings` or `/rerank` never becomes a score."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import numpy as np
import pytest

from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.hosted.embeddings import EmbeddingOptions, EmbeddingTeacher
from retrieval_kd.teachers.hosted.rerank import RerankOptions, RerankTeacher
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.settings import ServerSettings
from tests.teachers.llm.server.raw_server import Reply, raw_server

DOCUMENTS = [Document(str(n), "", f"text {n}") for n in range(4)]
QUERIES = ["query"] * 4
NAN, INFINITY = float("nan"), float("inf")


def teacher(kind: str, url: str, *, batch: int = 4, **options: Any) -> Any:
    settings = ServerSettings(url=url, retries=1, concurrency=1, batch=batch)
    calls = partial(Calls, settings)
    if kind == "dense":
        return EmbeddingTeacher("m", EmbeddingOptions(**options), calls)
    return RerankTeacher("m", RerankOptions(**options), calls)


def vectors(*rows: Any) -> dict[str, Any]:
    return {"data": [{"index": n, "embedding": row} for n, row in enumerate(rows)]}


def results(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"results": [{"index": index, "relevance_score": score} for index, score in pairs]}


GOOD = [[1, 0], [0, 1], [3, 4], [1, 1]]


@pytest.mark.parametrize(
    "answer",
    [
        {}, [], "text", {"data": None}, vectors(*GOOD[:3]), vectors(*GOOD, [1, 0]),
        vectors([1, NAN], *GOOD[1:]), vectors([1, INFINITY], *GOOD[1:]),
        vectors([1, 1e39], *GOOD[1:]), vectors([1, 10**400], *GOOD[1:]),
        vectors([1, "1"], *GOOD[1:]), vectors([1, True], *GOOD[1:]),
        vectors([1, 0, 0], *GOOD[1:]), vectors([], [], [], []), vectors("!", *GOOD[1:]),
        vectors("AAA=", *GOOD[1:]), vectors(None, *GOOD[1:]),
        {"data": [{"index": 0, "embedding": row} for row in GOOD]},
        {"data": [{"index": n + 1, "embedding": row} for n, row in enumerate(GOOD)]},
        {"data": [{"index": "0", "embedding": row} for row in GOOD]}, {"data": [1, 2, 3, 4]},
    ],
)  # fmt: skip
def test_vectors_that_cannot_be_true_are_missing(answer, own_cache):
    def reply(number: int, body: dict, key: str) -> Any:
        return answer if len(body["input"]) == 4 else vectors([1, 0])

    with raw_server(lambda *given: Reply(reply(*given))) as url:
        asked = teacher("dense", url)
        assert asked.score(QUERIES, DOCUMENTS).mask.all()
    assert asked.calls.usage.failed == 1 and asked.calls.usage.calls == 3
    assert len(list(own_cache.rglob("*.vectors"))) == 1, "of the query"


@pytest.mark.parametrize(
    "answer",
    [
        {}, "text", {"results": {}}, [], results(), results((0, 0.5), (0, 0.5)),
        results((4, 0.5)), results((-1, 0.5)), results((True, 0.5)), results((None, 0.5)),
        results((0, NAN)), results((0, INFINITY)), results((0, 1e39)), results((0, 10**400)),
        results((0, "0.5")),
        results((0, None)), {"results": [0.5, 0.25, 0.1, 0.0]},
    ],
)  # fmt: skip
def test_scores_that_cannot_be_true_are_missing(answer):
    with raw_server(lambda *_: Reply(answer)) as url:
        asked = teacher("rerank", url)
        assert asked.score(QUERIES, DOCUMENTS).mask.all()
    assert asked.calls.usage.failed == 1 and asked.calls.usage.calls == 2


def test_scores_follow_their_index_and_one_that_is_left_out_is_missing():
    with raw_server(lambda *_: results((3, -1.5), (0, 2), (1, 0.25))) as url:
        scores = teacher("rerank", url).score(QUERIES, DOCUMENTS)
    assert scores.tolist() == [2.0, 0.25, None, -1.5]


def test_vectors_are_read_from_base64_and_by_their_place_where_there_is_no_index():
    def reply(number: int, body: dict, key: str) -> dict:
        rows = [np.array(row, "<f4").tobytes() for row in GOOD[: len(body["input"])]]
        return {"data": [{"embedding": base64.b64encode(row).decode()} for row in rows]}

    with raw_server(reply) as url:
        cosines = teacher("dense", url).score(QUERIES, DOCUMENTS)
        products = teacher("dense", url, similarity="dot").score(QUERIES, DOCUMENTS)
    assert cosines.tolist() == pytest.approx([1, 0, 0.6, 0.5**0.5])
    assert products.tolist() == [1, 0, 3, 1]


def test_cosines_of_huge_vectors_are_right_and_products_beyond_32_bits_are_missing():
    def reply(number: int, body: dict, key: str) -> dict:
        return vectors(*([x * 1e30 for x in row] for row in GOOD[: len(body["input"])]))

    with raw_server(reply) as url:
        cosines = teacher("dense", url).score(QUERIES, DOCUMENTS)
        products = teacher("dense", url, similarity="dot").score(QUERIES, DOCUMENTS)
    assert cosines.tolist() == pytest.approx([1, 0, 0.6, 0.5**0.5])
    assert products.tolist() == [None, 0, None, None]


def test_a_key_in_the_place_of_an_index_is_masked_before_it_is_cut(monkeypatch):
    monkeypatch.setenv("RETRIEVAL_KD_API_KEY", "sk-1234567890abcdef")
    with raw_server(lambda _, body, key: results((f"{'-' * 8} {key}", 1))) as url:
        asked = teacher("rerank", url)
        asked.score(QUERIES, DOCUMENTS)
    [reason] = asked.calls.reasons
    assert "***" in reason and "sk-" not in reason


@pytest.mark.parametrize("kind", ["dense", "rerank"])
def test_a_text_that_is_too_long_fails_alone(kind):
    def reply(number: int, body: dict, key: str) -> Reply | dict:
        texts = body.get("documents", body.get("input"))
        if "text 2" in texts:
            return Reply({"error": {"message": "413: too long"}}, 413)
        if kind == "dense":
            return vectors(*GOOD[: len(texts)])
        assert body["top_n"] == len(texts)
        return results(*((n, 1) for n in range(len(texts))))

    with raw_server(reply) as url:
        asked = teacher(kind, url)
        assert asked.score(QUERIES, DOCUMENTS).mask.tolist() == [False, False, True, False]
    assert asked.calls.usage.failed == 3  # of four texts, of two, of one


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("dense", "name and --batch; a model without ?dimensions=, ?input_type= or ?task= needs"),
        ("rerank", "name and --batch; TEI's own API needs ?form=tei; one that reads less"),
    ],
)
def test_where_all_is_refused_the_remedy_is_one_of_this_kind_of_model(kind, remedy, own_cache):
    refusal = Reply({"error": {"message": "unknown field"}}, 422)
    with raw_server(lambda *_: refusal) as url:
        asked = teacher(kind, url, batch=8)
        with pytest.raises(InputError, match="refuses the first 5 requests: 422") as caught:
            asked.score([*QUERIES, "b"], [*DOCUMENTS, DOCUMENTS[0]])
    assert remedy in str(caught.value) and "chat" not in str(caught.value)


def test_a_server_that_cannot_cut_its_vectors_is_an_error(own_cache):
    with (
        raw_server(lambda number, body, key: vectors(*GOOD[: len(body["input"])])) as url,
        pytest.raises(InputError, match=r"of 2 numbers where 8 were asked for.*\?dimensions="),
    ):
        teacher("dense", url, dimensions=8).score(QUERIES, DOCUMENTS)
    assert not list(own_cache.rglob("*.vectors"))


def test_vectors_of_zeros_are_warned_of_once(caplog):
    with raw_server(lambda n, body, key: vectors(*[[0.0, 0.0] for _ in body["input"]])) as url:
        asked = teacher("dense", url)
        for query in ("one", "two"):
            assert asked.score([query] * 4, DOCUMENTS).tolist() == [0, 0, 0, 0]
    told = [record.getMessage() for record in caplog.records if "zeros" in record.getMessage()]
    assert [message.split()[3:7] for message in told] == [
        ["1", "of", "1", "queries"], ["4", "of", "4", "documents"],
    ]  # fmt: skip


def test_another_model_under_the_same_name_is_an_error_if_its_vectors_are_longer():
    length = 2
    with raw_server(
        lambda number, body, key: vectors(*[[1.0] * length for _ in body["input"]])
    ) as url:
        teacher("dense", url).score(QUERIES, DOCUMENTS)
        length = 3
        with pytest.raises(InputError, match=r"of 3 numbers, and gave 2.*\?revision=NAME"):
            teacher("dense", url).score(["another"] * 4, DOCUMENTS)
        assert teacher("dense", url, revision="new").score(QUERIES, DOCUMENTS).count() == 4
