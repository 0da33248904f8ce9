"""The web application: the JSON API and its description, the page, and the probes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from retrieval_kd.errors import InputError, log, shown
from retrieval_kd.serving.bodies import (
    About,
    HitModel,
    ListModel,
    Ready,
    SearchRequest,
    SearchResult,
    SystemModel,
    problems,
)
from retrieval_kd.serving.guard import Guard
from retrieval_kd.serving.metrics import CONTENT_TYPE, Metrics
from retrieval_kd.serving.service import Answer, Hit, Service
from retrieval_kd.serving.settings import (
    LARGEST_REQUEST,
    LONGEST_PREFIX,
    LONGEST_QUERY,
    MOST_HITS,
    ServeSettings,
)

WORKERS = 4  # threads that search; a model encodes in one at a time
RETRY_AFTER = "1"  # seconds
LOCAL_NAMES = ["localhost", "127.0.0.1", "::1", "[::1]"]
FILES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
STYLE = "report/style.css"  # colours and fonts are the report's


class Slots:
    """Searches at work or waiting, up to a bound; the next one is refused, not queued."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.most, self.metrics = most, metrics
        self.pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="search")

    async def run(self, function: Any, *arguments: Any) -> Any:
        if self.metrics.at_work >= self.most:
            raise unavailable(f"{self.most} searches are at work already; try again in a moment")
        self.metrics.at_work += 1  # only the event loop's thread changes it
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.pool, function, *arguments)
        finally:
            self.metrics.at_work -= 1


def unavailable(detail: str) -> HTTPException:
    return HTTPException(503, detail, headers={"Retry-After": RETRY_AFTER})


def make_app(service: Service, settings: ServeSettings, metrics: Metrics) -> ASGIApp:
    """Make the application that serves `service`; until that is loaded, searches get a 503."""
    app = FastAPI(
        title="retrieval_kd",
        description="Search one collection with several systems, side by side.",
        version="1",
        docs_url=None,  # its scripts would come from another host
        redoc_url=None,
        max_body_size=LARGEST_REQUEST,
    )
    if settings.is_local:  # a page of another host must not read here under a name of its own
        app.add_middleware(
            TrustedHostMiddleware,
            allowed_hosts=[settings.host, *LOCAL_NAMES],
            www_redirect=False,
        )
    _handle_errors(app)
    _add_search(app, service, Slots(settings.concurrency, metrics), metrics)
    _add_probes(app, service, metrics)
    _add_files(app)
    return Guard(app, metrics, {getattr(route, "path", "") for route in app.routes})


def _add_search(app: FastAPI, service: Service, slots: Slots, metrics: Metrics) -> None:
    @app.post(
        "/api/search", response_model=SearchResult, responses=problems(400, 413, 422, 500, 503)
    )
    async def search(asked: SearchRequest) -> Response:
        """Search with every system, or with those that are named."""
        _check(asked, service)
        body = await slots.run(_answer, service, asked, metrics)
        return Response(body, media_type="application/json")

    @app.get("/api/about", responses=problems(503))
    async def about() -> About:
        """Return what can be searched, and the bounds of a search."""
        if not service.ready:
            raise unavailable("the models are being loaded; try again in a moment")
        return About(
            collection=shown(service.collection.name),
            documents=len(service.collection.documents),
            systems=[SystemModel(name=n, kind=k, about=a) for n, k, a in service.kinds()],
            teacher=service.teacher_name,
            rerank=service.rerank,
            longest_query=LONGEST_QUERY,
            longest_prefix=LONGEST_PREFIX,
            most_hits=MOST_HITS,
        )


def _check(asked: SearchRequest, service: Service) -> None:
    """Refuse what only this server cannot do."""
    if not service.ready:
        raise unavailable("the models are being loaded; try again in a moment")
    unknown = [name for name in asked.systems or () if name not in service.names]
    if unknown:
        known = ", ".join(service.names)
        raise HTTPException(422, shown(f"systems: no system {unknown[0]!r}; there are {known}"))
    if asked.rerank and service.teacher_spec is None:
        raise HTTPException(422, "rerank: this server has no teacher; start it with --teacher")


def _answer(service: Service, asked: SearchRequest, metrics: Metrics) -> str:
    """Search and write the response; runs in a thread of its own."""
    answer = service.search(
        asked.query,
        asked.k,
        systems=asked.systems,
        prefix=asked.prefix,
        rerank=asked.rerank,
        highlight=asked.highlight,
    )
    for one in answer.lists:
        metrics.searched(one.system, (one.found.encode_ms + one.found.search_ms) / 1000)
    return _result(answer).model_dump_json()


def _result(answer: Answer) -> SearchResult:
    return SearchResult(
        lists=[
            ListModel(
                system=one.system,
                encode_ms=round(one.found.encode_ms, 2),
                search_ms=round(one.found.search_ms, 2),
                complete=one.found.complete,
                hits=[_hit(rank, hit) for rank, hit in enumerate(one.hits, 1)],
            )
            for one in answer.lists
        ],
        reranked=answer.reranked,
        teacher_ms=round(answer.teacher_ms, 2),
        marks_ms=round(answer.marks_ms, 2),
    )


def _hit(rank: int, hit: Hit) -> HitModel:
    lists = {
        "title_marks": [piece._asdict() for piece in hit.title_marks],
        "text_marks": [piece._asdict() for piece in hit.text_marks],
        "words": [word._asdict() for word in hit.words],
    }
    return HitModel.model_validate({"rank": rank, **vars(hit), **lists})


def _add_probes(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/ready", responses={503: {"model": Ready, "description": "models are being loaded"}})
    async def ready() -> Ready:
        """Say whether searches are answered."""
        if service.ready:
            return Ready(ready=True)
        return JSONResponse({"ready": False}, 503, {"Retry-After": RETRY_AFTER})  # type: ignore[return-value]

    @app.get("/metrics", response_class=PlainTextResponse)
    async def read_metrics() -> Response:
        """Return counts and latencies in the text format of Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _add_files(app: FastAPI) -> None:
    """Serve the page and its own script and style."""

    def add(path: str, content: str, kind: str) -> None:
        @app.get(path, include_in_schema=False)
        async def file() -> Response:
            return Response(content, media_type=f"{kind}; charset=utf-8")

    own = resources.files("retrieval_kd.serving")
    for name, kind in FILES.items():
        content = own.joinpath(name).read_text("utf-8")
        if name == "page.css":
            style = resources.files("retrieval_kd.evaluation").joinpath(STYLE).read_text("utf-8")
            content = f"{style}\n{content}"
        add("/" if name == "page.html" else f"/{name}", content, kind)


def _handle_errors(app: FastAPI) -> None:
    """Answer every mistake with one sentence, without the value, which may be no text at all."""

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return JSONResponse({"detail": f"body: not JSON: {first['ctx']['error']}"}, 400)
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        what = str(first["msg"]).removeprefix("Value error, ")
        return JSONResponse({"detail": shown(f"{where}: {what}", 500)}, 422)

    @app.exception_handler(InputError)
    async def failed(request: Request, error: InputError) -> Response:
        log.error("a search failed: %s", error)
        return JSONResponse({"detail": "the search failed; the server's log says why"}, 500)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": "the search failed; the server's log says why"}, 500)
