"""The command `rkd score`. Its work is in `teachers/score.py`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from retrieval_kd.cli.options import CollectionOption, bounded, refuse_unused, setting
from retrieval_kd.errors import KEY
from retrieval_kd.progress import say
from retrieval_kd.schema import Tokens, validate
from retrieval_kd.store.usage import ScoreReport, Spent
from retrieval_kd.teachers.llm.server.settings import ServerSettings

score_app = typer.Typer()

SERVER = "On a server"
LIMITS = "Limits of a server (this command's calls)"
SETTINGS = ServerSettings.model_fields


class Api(StrEnum):
    """The part of the API that a server is queried through."""

    chat = "chat"
    completions = "completions"


def _option(name: str, panel: str = SERVER, *flags: str, **settings: Any) -> Any:
    """An option with the description and the bounds of a server setting."""
    return setting(ServerSettings, name, *flags, rich_help_panel=panel, **settings)


@score_app.command()
def score(
    context: typer.Context,
    collection: CollectionOption,
    candidates: Annotated[Path, typer.Option(help="TREC run file: the candidates to score")],
    teacher: Annotated[
        str,
        typer.Option(
            help="[pointwise:]MODEL (a cross-encoder), yesno:, likelihood:, pairwise: or "
            "listwise:MODEL (a language model), dense:, sparse: or multi_vector:MODEL, bm25, "
            "bm25-lucene, with --server rerank:MODEL or dense:server:MODEL (its embeddings); "
            "options as KIND:MODEL?name=value&name=value, such as MODEL?backend=openvino-int8 "
            "(docs/teachers.md)"
        ),
    ],
    store: Annotated[Path, typer.Option(help="score store; created if missing")],
    judged: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="also score this split's relevant documents that the candidates lack; a student "
            "cannot learn from the teacher about a positive that it has not scored",
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        bounded(Tokens, "tokens of query and document together, or of a language model's passage"),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="query MODEL there, such as http://127.0.0.1:8000/v1; any server with OpenAI's "
            "API, or for rerank:MODEL that of Jina and Cohere. Its key is taken from the "
            f"environment: {KEY}",
            rich_help_panel=SERVER,
        ),
    ] = None,
    api: Annotated[Api, _option("api")] = Api(SETTINGS["api"].default),
    tokenizer: Annotated[str | None, _option("tokenizer", metavar="MODEL")] = None,
    logprobs: Annotated[int, _option("logprobs")] = SETTINGS["logprobs"].default,
    structured: Annotated[bool, _option("structured", SERVER, "--structured")] = False,
    batch: Annotated[int, _option("batch")] = SETTINGS["batch"].default,
    concurrency: Annotated[int, _option("concurrency")] = SETTINGS["concurrency"].default,
    timeout: Annotated[float, _option("timeout")] = SETTINGS["timeout"].default,
    retries: Annotated[int, _option("retries")] = SETTINGS["retries"].default,
    per_minute: Annotated[float | None, _option("per_minute")] = None,
    max_tokens: Annotated[int | None, _option("max_tokens", LIMITS)] = None,
    max_cost: Annotated[float | None, _option("max_cost", LIMITS)] = None,
    prompt_price: Annotated[float, _option("prompt_price", LIMITS)] = 0.0,
    answer_price: Annotated[float, _option("answer_price", LIMITS)] = 0.0,
) -> None:
    """Score every candidate that the store does not have yet.

    A job that was killed, or stopped at a limit, continues where it stopped: what is stored is not
    scored again. Exits 1 if nothing could be scored. See docs/teachers.md.
    """
    settings = None
    if server is not None:
        values = {name: context.params[name] for name in SETTINGS if name != "url"}
        settings = validate(ServerSettings, {**values, "url": server, "api": api.value})
    else:
        refuse_unused(context, SETTINGS, "for servers", "--server")
    from retrieval_kd.teachers.score import score_job

    report, spent = score_job(
        collection,
        candidates,
        teacher,
        store,
        judged=judged,
        max_length=max_length,
        server=settings,
    )
    say(_summary(report, spent, store))
    if report.is_empty:
        raise typer.Exit(1)


def _summary(report: ScoreReport, spent: Spent, store: Path) -> str:
    lines = []
    if report.stale:
        lines.append(
            f"{report.stale} {report.noun} were stored for other texts under these IDs; "
            "scored again"
        )
    verb = "scored" if report.noun == "pairs" else "answered"
    lines.append(
        f"{store}: {report.pairs} {report.noun}, {report.reused} known, {report.scored} {verb} in "
        f"{report.seconds:.0f} s by {report.teacher} ({report.fingerprint})"
    )
    if report.repaired or report.unparsable:
        lines.append(
            f"{report.repaired} orders were incomplete, {report.unparsable} answers unreadable"
        )
    lines += report.unanswered("the same command")
    if spent.prompt_tokens:
        cost = f", which cost {spent.cost:.4g}" if spent.cost else ""
        lines.append(
            f"{spent.calls} calls, {spent.failed} failed; {spent.prompt_tokens:,} tokens read, "
            f"{spent.answer_tokens:,} written{cost}"
        )
    return "\n".join(lines)
