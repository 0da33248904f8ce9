"""The command `rkd score`. Its work is in `teachers/score.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.options import CollectionOption, bounded
from retrieval_kd.cli.server_options import (
    API,
    BATCH,
    CONCURRENCY,
    LOGPROBS,
    RETRIES,
    TIMEOUT,
    AnswerPrice,
    ApiPart,
    Batch,
    Concurrency,
    Logprobs,
    MaxCost,
    MaxTokens,
    PerMinute,
    PromptPrice,
    Retries,
    Structured,
    Timeout,
    Tokenizer,
    said_spent,
    server_option,
    server_settings,
)
from retrieval_kd.progress import say
from retrieval_kd.schema import Tokens
from retrieval_kd.store.usage import ScoreReport, Spent

score_app = typer.Typer()


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
        server_option("any server with OpenAI's API, or for rerank:MODEL that of Jina and Cohere"),
    ] = None,
    api: ApiPart = API,
    tokenizer: Tokenizer = None,
    logprobs: Logprobs = LOGPROBS,
    structured: Structured = False,
    batch: Batch = BATCH,
    concurrency: Concurrency = CONCURRENCY,
    timeout: Timeout = TIMEOUT,
    retries: Retries = RETRIES,
    per_minute: PerMinute = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    prompt_price: PromptPrice = 0.0,
    answer_price: AnswerPrice = 0.0,
) -> None:
    """Score every candidate that the store does not have yet.

    A job that was killed, or stopped at a limit, continues where it stopped: what is stored is not
    scored again. Exits 1 if nothing could be scored. See docs/teachers.md.
    """
    settings = server_settings(context, server)
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
    lines += said_spent(spent)
    return "\n".join(lines)
