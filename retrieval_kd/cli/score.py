"""The subcommand score. `cli.py` mounts it; what it does is in `teachers/score_job.py`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval_kd.cli.search import CollectionOption
from retrieval_kd.errors import InputError

if TYPE_CHECKING:
    from retrieval_kd.store.usage import ScoreReport, Spent
    from retrieval_kd.teachers.llm.server.settings import OnServer

score_app = typer.Typer()

SERVERS = "On a server"
LIMITS = "Limits of a server (this command's calls)"


class Api(StrEnum):
    """How a server is asked."""

    chat = "chat"
    completions = "completions"


@score_app.command()
def score(
    collection: CollectionOption,
    candidates: Annotated[Path, typer.Option(help="TREC run file: what to score")],
    teacher: Annotated[
        str,
        typer.Option(
            help="[pointwise:]MODEL (a cross-encoder), yesno:, likelihood:, pairwise: or "
            "listwise:MODEL (a language model), dense:, sparse: or multi_vector:MODEL, bm25, "
            "bm25-lucene; options as KIND:MODEL?name=value&name=value"
        ),
    ],
    store: Annotated[Path, typer.Option(help="score store; made if it is not there")],
    judged: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="score this split's relevant documents too, where the candidates lack them; a "
            "student cannot learn from the teacher about a positive it has not seen",
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            help="tokens of query and document together, or of a language model's passage"
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="ask MODEL there, such as http://127.0.0.1:8000/v1; any server with OpenAI's API. "
            "Its key is taken from the environment: RETRIEVAL_KD_API_KEY",
            rich_help_panel=SERVERS,
        ),
    ] = None,
    api: Annotated[
        Api,
        typer.Option(
            help="chat, or completions for models without a chat template", rich_help_panel=SERVERS
        ),
    ] = Api.chat,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="the model's own, to format and cut prompts here and to send tokens (vLLM, "
            "llama.cpp)",
            rich_help_panel=SERVERS,
        ),
    ] = None,
    logprobs: Annotated[
        int,
        typer.Option(
            min=1, help="likeliest words to ask for; more find rarer ones", rich_help_panel=SERVERS
        ),
    ] = 20,
    structured: Annotated[
        bool,
        typer.Option(
            "--structured",
            help="hold the model to the form that is expected (response_format)",
            rich_help_panel=SERVERS,
        ),
    ] = False,
    concurrency: Annotated[int, typer.Option(help="calls at once", rich_help_panel=SERVERS)] = 8,
    timeout: Annotated[
        float, typer.Option(help="seconds to wait for an answer", rich_help_panel=SERVERS)
    ] = 120.0,
    retries: Annotated[
        int, typer.Option(help="how often a failed call is repeated", rich_help_panel=SERVERS)
    ] = 6,
    per_minute: Annotated[
        float | None,
        typer.Option(help="most requests in a minute, repeats included", rich_help_panel=SERVERS),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="stop before more tokens are read and written", rich_help_panel=LIMITS),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="stop before this is spent", rich_help_panel=LIMITS)
    ] = None,
    prompt_price: Annotated[
        float, typer.Option(help="of a million tokens read", rich_help_panel=LIMITS)
    ] = 0.0,
    answer_price: Annotated[
        float, typer.Option(help="of a million tokens written", rich_help_panel=LIMITS)
    ] = 0.0,
) -> None:
    """Ask a teacher what the store does not know yet about every candidate.

    A job that was killed, or stopped at a limit, goes on where it stopped: what is stored is not
    asked again. See docs/teachers.md.
    """
    from retrieval_kd.teachers.spec_check import check_spec

    on_server = None
    if server is not None:
        from retrieval_kd.teachers.llm.server.budget import Limits
        from retrieval_kd.teachers.llm.server.client import Server
        from retrieval_kd.teachers.llm.server.settings import OnServer

        on_server = OnServer(
            Server(server, concurrency, timeout, retries, per_minute),
            api.value,  # type: ignore[arg-type]
            tokenizer,
            logprobs,
            structured,
            Limits(max_tokens, max_cost, prompt_price, answer_price),
        )
    elif max_tokens is not None or max_cost is not None:
        raise InputError(
            "limits are for servers", remedy="name one with --server, or leave the limit out"
        )
    check_spec(teacher, on_server=server is not None, tokenizer=tokenizer)
    report, spent = _score(collection, candidates, teacher, store, judged, max_length, on_server)
    _print(report, spent, store)


def _score(
    name: str,
    candidates: Path,
    teacher: str,
    store: Path,
    judged: str | None,
    max_length: int | None,
    on_server: OnServer | None,
) -> tuple[ScoreReport, Spent]:
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.data.runs import check_run, read_run, with_relevant

    opened, run = open_collection(name), read_run(candidates)
    check_run(run, opened)
    from retrieval_kd.teachers.score_job import score_job  # torch: takes seconds

    return score_job(
        opened,
        {query: opened.queries[query].full for query in run.results},
        with_relevant(run.results, opened.qrels(judged) if judged else {}, opened.documents),
        teacher,
        store,
        max_length=max_length,
        on_server=on_server,
    )


def _print(made: ScoreReport, spent: Spent, store: Path) -> None:
    if made.stale:
        print(f"{made.stale} {made.noun} were stored for other texts under these IDs; asked again")
    verb = "scored" if made.noun == "pairs" else "answered"
    print(
        f"{store}: {made.pairs} {made.noun}, {made.reused} known, {made.scored} {verb} in "
        f"{made.seconds:.0f} s by {made.teacher} ({made.fingerprint})"
    )
    if made.repaired or made.unparsable:
        print(f"{made.repaired} orders were incomplete, {made.unparsable} answers not to be read")
    if made.missing:
        queries = f" ({made.unfinished} queries are unfinished)" if made.unfinished else ""
        print(
            f"{made.missing} {made.noun} were not answered{queries}; the same command asks for "
            "them again"
        )
    if spent.prompt_tokens:
        cost = f", which cost {spent.cost:.4g}" if spent.cost else ""
        print(
            f"{spent.calls} calls, {spent.failed} failed; {spent.prompt_tokens:,} tokens read, "
            f"{spent.answer_tokens:,} written{cost}"
        )
