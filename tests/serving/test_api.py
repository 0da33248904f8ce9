"""The application answers every request with a result or one sentence, and its headers."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from retrieval_kd.errors import InputError
from retrieval_kd.serving import guard
from retrieval_kd.serving import settings as bounds
from retrieval_kd.serving.api import make_app
from retrieval_kd.serving.guard import HEADERS
from retrieval_kd.serving.metrics import Metrics
from retrieval_kd.serving.service import Service
from retrieval_kd.serving.settings import ServeSettings
from tests.serving.conftest import SCRIPT, WORDS

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def service(indexes) -> Service:
    made = Service([indexes["dense"], indexes["sparse"]], "bm25", 3)
    made.load()
    return made


def client_of(service: Any, **settings: Any) -> TestClient:
    app = make_app(service, ServeSettings(**settings), Metrics())
    return TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=True)


@pytest.fixture
def client(service) -> TestClient:
    return client_of(service)


def test_a_search_gives_the_lists_of_the_service(client, service):
    asked = {"query": WORDS, "k": 4, "systems": ["bm25", "my-dense"], "highlight": True}
    response = client.post("/api/search", json=asked)
    assert response.status_code == 200
    expected = service.search(WORDS, 4, systems=["bm25", "my-dense"], highlight=True)
    for one, other in zip(response.json()["lists"], expected.lists, strict=True):
        assert one["system"] == other.system
        assert [(h["id"], h["score"], h["text"], h["rank"]) for h in one["hits"]] == [
            (h.id, h.score, h.text, rank) for rank, h in enumerate(other.hits, 1)
        ]


def test_re_ranking_and_what_can_be_searched(client):
    about = client.get("/api/about").json()
    assert [one["name"] for one in about["systems"]] == ["my-dense", "my-sparse", "bm25", "hybrid"]
    assert (about["documents"], about["teacher"], about["rerank"]) == (61, "bm25", 3)
    body = client.post("/api/search", json={"query": WORDS, "rerank": True}).json()
    assert body["reranked"] and body["lists"][0]["hits"][0]["teacher"] is not None


HOSTILE = [
    (b"", 422, "body"),
    (b"null", 422, "valid"),
    (b"[]", 422, "valid"),
    (b'"x"', 422, "valid"),
    (b"{", 400, "JSON"),
    (b'{"query": "a"', 400, "JSON"),
    (bytes(range(256)), 400, "JSON"),
    (b'{"query": "\xff\xfe"}', 400, "parsing"),
    (b"[" * 30_000, 400, "parsing"),
    (b'{"query": "a", "k": ' + b"9" * 5_000 + b"}", 400, "parsing"),
    (b'{"query": "\\ud800"}', 422, "query: "),
    (b'{"query": "a", "prefix": "\\udfff"}', 422, "prefix: "),
    (b'{"query": "a", "systems": ["\\ud800"]}', 422, "systems"),
    (b'{"query": "a", "\\ud800": 1}', 422, "valid string"),
    (b'{"query": "a\\u0000b"}', 422, "control character, U+0000"),
    (b'{"query": "\\u001b[31m"}', 422, "control character, U+001B"),
    (b'{"query": "a", "prefix": "\\u0007"}', 422, "control character"),
    (b'{"query": ""}', 422, "at least 1 character"),
    (b'{"query": " \\n\\t "}', 422, "only spaces"),
    (b'{"query": null}', 422, "query: "),
    (b'{"query": 7}', 422, "query: "),
    (b'{"query": ["a"]}', 422, "query: "),
    (b'{"query": {"$gt": ""}}', 422, "query: "),
    (b"{}", 422, "query: Field required"),
    (b'{"query": "a", "k": 0}', 422, "k: "),
    (b'{"query": "a", "k": -1}', 422, "k: "),
    (b'{"query": "a", "k": 101}', 422, "k: "),
    (b'{"query": "a", "k": 9e99}', 422, "k: "),
    (b'{"query": "a", "k": 1e400}', 422, "k: "),
    (b'{"query": "a", "k": NaN}', 422, "k: "),
    (b'{"query": "a", "k": "5"}', 422, "k: "),
    (b'{"query": "a", "k": true}', 422, "k: "),
    (b'{"query": "a", "k": 5.0}', 422, "k: "),
    (b'{"query": "a", "rerank": "yes"}', 422, "rerank: "),
    (b'{"query": "a", "highlight": 1}', 422, "highlight: "),
    (b'{"query": "a", "systems": []}', 422, "systems: "),
    (b'{"query": "a", "systems": "bm25"}', 422, "systems: "),
    (b'{"query": "a", "systems": ["none\\u001b"]}', 422, "there are my-dense"),
    (b'{"query": "a", "depth": 5}', 422, "Extra inputs"),
    (json.dumps({"query": "x" * (bounds.LONGEST_QUERY + 1)}).encode(), 422, "at most 2000"),
    (json.dumps({"query": "a", "prefix": "x" * 201}).encode(), 422, "at most 200"),
    (json.dumps({"query": "a", "systems": ["x"] * 33}).encode(), 422, "at most 32"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "told"), HOSTILE, ids=lambda v: str(v)[:30])
def test_a_hostile_body_gets_one_sentence(client, body, status, told):
    response = client.post("/api/search", content=body, headers=JSON)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    [(key, detail)] = response.json().items()
    assert key == "detail" and told in detail and len(detail) <= 500 and detail.isprintable()


@pytest.mark.parametrize("body", [b"x" * 100_000, iter([b"x" * 30_000] * 4)], ids=["told", "not"])
def test_a_huge_body_is_refused_whether_it_tells_its_size_or_not(client, body):
    response = client.post("/api/search", content=body, headers=JSON)
    assert response.status_code == 413


@pytest.mark.parametrize(
    "query",
    [SCRIPT, "' OR 1=1 --", "\u202egnp.exe", "東京都", "🐦" * 2_000, "%00%ff", "{{7*7}}", "a\nb",
     "[CLS] [SEP] [MASK]", "\ufeff\u200b", "e" + "\u0301" * 1_999, "\x85".replace("\x85", "\xa0x")],
)  # fmt: skip
def test_any_text_is_searched_and_nothing_of_it_is_markup(client, query):
    asked = {"query": query, "highlight": True, "rerank": True}
    response = client.post("/api/search", json=asked)
    assert response.status_code == 200 and response.headers["content-type"] == "application/json"
    assert len(response.json()["lists"]) == 4


def test_scripts_in_passages_come_as_text_in_json(client):
    body = client.post("/api/search", json={"query": "sparrow", "k": 100, "highlight": True})
    hits = {hit["id"]: hit for hit in body.json()["lists"][0]["hits"]}
    assert hits["evil-1"]["title"] == SCRIPT and "\x1b" not in hits["evil-1"]["text"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_a_form_of_another_site_cannot_search(client, kind):
    response = client.post("/api/search", content=b'{"query": "a"}', headers={"Content-Type": kind})
    assert response.status_code == 422


def test_a_name_of_another_site_reads_nothing_here(service):
    client = client_of(service)
    for host, status in (
        ("evil.example", 400), ("127.0.0.1.evil.example:8000", 400), ("", 400), ("\xff", 400),
        ("127.0.0.1:8000", 200), ("localhost:8000", 200), ("[::1]:8000", 200),
    ):  # fmt: skip
        answer = client.get("/ready", headers={"Host": host.encode("latin-1")})
        assert answer.status_code == status, host
    anywhere = client_of(service, host="0.0.0.0")
    assert anywhere.get("/ready", headers={"Host": "search.example"}).status_code == 200


def test_every_answer_has_the_headers(client, service, monkeypatch):
    monkeypatch.setattr(service, "search", lambda *_, **__: 1 / 0)
    answers = [
        client.get(path)
        for path in ("/", "/page.js", "/page.css", "/ready", "/metrics", "/openapi.json", "/none",
                     "/docs", "/redoc", "/../../etc/passwd", "/%00", "/page.js/x", "/api/search")
    ]  # fmt: skip
    answers += [
        client.post("/api/search", json={"query": "a"}),
        client.post("/api/search", content=b"\xff", headers=JSON),
        client.post("/api/search", content=b"x" * 99_999, headers=JSON),
        client.request("DELETE", "/"),
        client.get("/", headers={"Host": "evil.example"}),
    ]
    for answer in answers:
        assert HEADERS.items() <= {name: answer.headers.get(name) for name in HEADERS}.items(), (
            answer.url
        )
    statuses = [answer.status_code for answer in answers]
    assert statuses == [*[200] * 6, *[404] * 6, 405, 500, 400, 413, 405, 400]


def test_the_page_asks_no_other_host_and_has_no_inline_code(client):
    page, script, style = (client.get(path).text for path in ("/", "/page.js", "/page.css"))
    for text in (page, script, style):
        assert "//" not in "".join(line.partition("// ")[0] for line in text.splitlines())
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)
    assert page.count("<script") == 1 == page.count('<script src="page.js" defer></script>')
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert sink not in script
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_a_body_that_never_comes_is_given_up(service, monkeypatch):
    monkeypatch.setattr(guard, "SLOWEST", 0.01)
    app = make_app(service, ServeSettings(), Metrics())
    sent: list[Any] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/api/search", "headers": headers}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
        await app(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]

    asyncio.run(ask())
    assert sent[0]["status"] == 400


class Waiting:
    """A service whose search waits until it is let go on."""

    def __init__(self, service: Service) -> None:
        self.service, self.go_on, self.begun = service, threading.Event(), threading.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.service, name)

    def search(self, *arguments: Any, **named: Any) -> Any:
        self.begun.release()
        assert self.go_on.wait(60)
        return self.service.search(*arguments, **named)


def test_a_request_that_is_cut_off_by_the_end_leaves_one_line(caplog):
    async def cancelled(*_: Any) -> None:
        raise asyncio.CancelledError

    wrapped = guard.Guard(cancelled, Metrics(), set())
    asyncio.run(wrapped({"type": "http", "path": "/"}, None, None))  # type: ignore[arg-type]
    assert caplog.messages == ["a request was cut off, as the server stops"]


def test_past_the_bound_a_search_gets_503_and_those_at_work_end_well(service):
    waiting = Waiting(service)
    with client_of(waiting, concurrency=2) as client, ThreadPoolExecutor(2) as pool:
        ask = {"query": WORDS}
        first = [pool.submit(client.post, "/api/search", json=ask) for _ in range(2)]
        for _ in first:
            assert waiting.begun.acquire(timeout=60)
        assert "rkd_searches_at_work 2" in client.get("/metrics").text
        refused = client.post("/api/search", json=ask)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert "2 searches are at work" in refused.json()["detail"]
        assert client.get("/ready").status_code == 200, "probes are answered"
        waiting.go_on.set()
        assert [answer.result().status_code for answer in first] == [200, 200]
        assert client.post("/api/search", json=ask).status_code == 200
        assert "rkd_searches_at_work 0" in client.get("/metrics").text


def test_many_searches_at_a_time_give_what_one_gives(client, service):
    queries = [WORDS, "ship sail", "piano", "river"] * 6
    ask = lambda query: client.post("/api/search", json={"query": query, "highlight": True})  # noqa: E731
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, queries))
    for query, answer in zip(queries, answers, strict=True):
        expected = service.search(query).lists
        got = [[hit["id"] for hit in one["hits"]] for one in answer.json()["lists"]]
        assert got == [[hit.id for hit in one.hits] for one in expected]


def test_until_the_models_are_loaded_searches_get_503(indexes):
    client = client_of(Service([indexes["dense"]]))
    for answer in (
        client.get("/ready"),
        client.get("/api/about"),
        client.post("/api/search", json={"query": "a"}),
    ):
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert client.get("/").status_code == 200


def test_a_teacher_must_be_there_to_re_rank(service, monkeypatch):
    monkeypatch.setattr(service, "teacher_spec", None)
    answer = client_of(service).post("/api/search", json={"query": "a", "rerank": True})
    assert answer.status_code == 422 and "--teacher" in answer.json()["detail"]


def test_a_failure_says_nothing_of_the_servers_files(client, service, monkeypatch, caplog):
    def fail(*_: Any, **__: Any) -> None:
        raise InputError("damaged", file="/secret/place")

    monkeypatch.setattr(service, "search", fail)
    answer = client.post("/api/search", json={"query": "a"})
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "/secret/place: damaged" in caplog.text


def test_metrics_count_requests_errors_and_seconds(client):
    for body in ({"query": "a"}, {"query": "b", "systems": ["bm25"]}, {"query": ""}):
        client.post("/api/search", json=body)
    client.get("/nothing")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        'rkd_requests_total{route="/api/search",status="200"} 2',
        'rkd_requests_total{route="/api/search",status="422"} 1',
        'rkd_requests_total{route="other",status="404"} 1',
        'rkd_errors_total{route="/api/search"} 1',
        'rkd_request_seconds_bucket{route="/api/search",le="+Inf"} 3',
        'rkd_request_seconds_count{route="/api/search"} 3',
        'rkd_search_seconds_count{system="bm25"} 2',
        'rkd_search_seconds_count{system="my-dense"} 1',
    ):
        assert line in lines


def test_the_description_names_every_parameter_with_its_bounds(client):
    described = client.get("/openapi.json").json()
    asked = described["components"]["schemas"]["SearchRequest"]
    properties = asked["properties"]
    assert {*properties} == {"query", "k", "systems", "prefix", "rerank", "highlight"}
    assert all(about["description"] for about in properties.values())
    assert (properties["query"]["minLength"], properties["query"]["maxLength"]) == (1, 2_000)
    assert (properties["k"]["minimum"], properties["k"]["maximum"]) == (1, 100)
    assert properties["prefix"]["maxLength"] == 200
    assert properties["systems"]["anyOf"][0]["maxItems"] == 32
    assert asked["additionalProperties"] is False and asked["required"] == ["query"]
    told = described["paths"]["/api/search"]["post"]["responses"]
    assert {"200", "400", "413", "422", "500", "503"} <= {*told}
    for status in ("400", "422", "503"):
        assert told[status]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
