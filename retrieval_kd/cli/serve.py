"""The command `rkd serve`. Its work is in `serving/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.options import refuse_unused, setting
from retrieval_kd.errors import InputError, log
from retrieval_kd.progress import say
from retrieval_kd.schema import validate
from retrieval_kd.serving.listen import address, bind
from retrieval_kd.serving.settings import ServeSettings, need_web

serve_app = typer.Typer()
DEFAULT = ServeSettings()


@serve_app.command()
def serve(
    context: typer.Context,
    index: Annotated[
        list[Path],
        typer.Option(
            help="folder made by `rkd index`, repeated for several of one collection; or one made "
            "by `rkd index combine`"
        ),
    ],
    teacher: Annotated[
        str | None,
        typer.Option(
            help="re-ranks when it is asked to: a cross-encoder's MODEL, yesno:MODEL, dense:MODEL, "
            "bm25, … as in `rkd score`"
        ),
    ] = None,
    rerank: Annotated[int, setting(ServeSettings, "rerank")] = DEFAULT.rerank,
    host: Annotated[str, setting(ServeSettings, "host")] = DEFAULT.host,
    port: Annotated[int, setting(ServeSettings, "port")] = DEFAULT.port,
    concurrency: Annotated[int, setting(ServeSettings, "concurrency")] = DEFAULT.concurrency,
) -> None:
    """Serve indexes as a page to search in, and as a JSON API.

    Shows each index, BM25 and their fusion side by side, with scores, times, what matched, and a
    teacher's order:

        rkd serve --index my-index --teacher cross-encoder/ms-marco-MiniLM-L6-v2

    Then open http://127.0.0.1:8000/?q=your+question, or

        curl http://127.0.0.1:8000/api/search --json '{"query": "your question", "k": 5}'

    /openapi.json describes the API, /ready says whether the models are loaded, /metrics is for
    Prometheus. Only this machine can connect unless --host says otherwise; there is no login.
    Ctrl-C stops it after what it has begun. Needs the extra `serve`. See docs/serving.md.
    """
    values = {name: context.params[name] for name in ServeSettings.model_fields}
    settings = validate(ServeSettings, values)
    if teacher is None:
        refuse_unused(context, ("rerank",), "for --teacher", "--teacher")
    for folder in index:
        if not folder.is_dir():
            remedy = "build it with rkd index"
            raise InputError("no finished index here", file=folder, remedy=remedy)
    need_web()
    with bind(settings) as bound:
        # after all that needs no model: these load torch
        from retrieval_kd.serving.server import run_server
        from retrieval_kd.serving.service import Service

        service = Service(index, teacher, rerank)
        if not settings.is_local:
            log.warning("other machines may search here, and there is no login")
        say(f"loading {', '.join(service.names)}; then open {address(bound)}")
        run_server(service, settings, bound)
