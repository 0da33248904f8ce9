"""The command `rkd generate`. Its work is in `generation/collection.py`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from retrieval_kd.cli.options import CollectionOption, bounded, out_folder, refuse_unused
from retrieval_kd.cli.server_options import (
    API,
    CONCURRENCY,
    RETRIES,
    TIMEOUT,
    AnswerPrice,
    ApiPart,
    Concurrency,
    MaxCost,
    MaxTokens,
    PerMinute,
    PromptPrice,
    Retries,
    Timeout,
    Tokenizer,
    said_spent,
    server_option,
    server_settings,
)
from retrieval_kd.progress import say
from retrieval_kd.schema import Tokens
from retrieval_kd.store.usage import Spent

generate_app = typer.Typer()
PROMPT, FILTERS = "What is written", "What is kept"


class Written(StrEnum):
    """Kinds of queries that a model can be asked for."""

    queries = "queries"
    questions = "questions"
    keywords = "keywords"
    claims = "claims"


@generate_app.command()
def generate(
    context: typer.Context,
    collection: CollectionOption,
    model: Annotated[
        str,
        typer.Option(
            help="MODEL: a language model that follows instructions, as a folder or a hub name; "
            "with --server its name there"
        ),
    ],
    store: Annotated[
        Path,
        typer.Option(
            help="folder for the model's answers, word for word; made if missing, outside --out"
        ),
    ],
    out: Annotated[Path, out_folder("folder for the collection with the new split")],
    split: Annotated[str, typer.Option(help="name of the new split")] = "generated",
    write: Annotated[
        Written,
        typer.Option(
            help="what to write: take the kind of your test queries", rich_help_panel=PROMPT
        ),
    ] = Written.queries,
    per_document: Annotated[
        int,
        bounded(
            Annotated[int, Field(ge=1, le=100)],
            "queries per document, at most",
            rich_help_panel=PROMPT,
        ),
    ] = 3,
    documents: Annotated[
        int | None,
        bounded(
            Annotated[int, Field(ge=1)],
            "write about so many, drawn at random; default: all",
            rich_help_panel=PROMPT,
        ),
    ] = None,
    seed: Annotated[
        int,
        bounded(
            Annotated[int, Field(ge=0)],
            "of the draws of documents and examples",
            rich_help_panel=PROMPT,
        ),
    ] = 0,
    examples: Annotated[
        int,
        bounded(
            Annotated[int, Field(ge=0, le=100)],
            "judged pairs of a document and a query to show first",
            rich_help_panel=PROMPT,
        ),
    ] = 0,
    examples_split: Annotated[
        str,
        typer.Option(
            help="split that the examples are from; never one you test on", rich_help_panel=PROMPT
        ),
    ] = "train",
    passage_tokens: Annotated[
        int, bounded(Tokens, "tokens shown of a document", rich_help_panel=PROMPT)
    ] = 384,
    query_tokens: Annotated[
        int, bounded(Tokens, "tokens allowed for a query", rich_help_panel=PROMPT)
    ] = 48,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPLIT",
            help="drop queries that overlap with one of this split, by the checks of rkd audit; "
            "may be given several times; default: all splits but train",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    round_trip: Annotated[
        int,
        bounded(
            Annotated[int, Field(ge=0, le=1000)],
            "keep queries whose document is among the first so many results; 0 keeps all",
            rich_help_panel=FILTERS,
        ),
    ] = 10,
    found_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RETRIEVER",
            help="who searches for it: bm25, a MODEL, or A+B fused by rank; may be given several "
            "times: one that finds it is enough; default: bm25",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    server: Annotated[str | None, server_option()] = None,
    api: ApiPart = API,
    tokenizer: Tokenizer = None,
    concurrency: Concurrency = CONCURRENCY,
    timeout: Timeout = TIMEOUT,
    retries: Retries = RETRIES,
    per_minute: PerMinute = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    prompt_price: PromptPrice = 0.0,
    answer_price: AnswerPrice = 0.0,
) -> None:
    """Have a language model write queries about documents, and make a collection with them.

    OUT is a BEIR folder: the documents, queries and judgments of the collection, and the new split,
    whose queries have the documents that they were written about as relevant. Left out are answers
    that do not follow the form, queries that a test split has, and queries that do not find their
    document; OUT/generation.json counts them, and OUT/dropped.jsonl has them. A job that was
    killed, or stopped at a limit, continues where it stopped, and other filters ask nothing anew.
    Exits 1 if no query is left.
    See docs/generation.md.
    """
    settings = server_settings(context, server)
    if not round_trip:
        refuse_unused(context, ["found_by"], "for the round-trip check", "--round-trip 1 or more")
    if not examples:
        refuse_unused(context, ["examples_split"], "for examples", "--examples")
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.generation.collection import (
        Filters,
        draw_examples,
        generate_collection,
    )
    from retrieval_kd.models.names import check_exists
    from retrieval_kd.teachers.generate.write import QueryTask

    opened = open_collection(collection)
    others = [one for one in opened.splits if one != "train"]
    filters = Filters(
        tuple(others if against is None else against),
        tuple(found_by or ["bm25"]) if round_trip else (),
        max(round_trip, 1),
    )
    if settings is None or settings.tokenizer is not None:
        check_exists(model if settings is None else str(settings.tokenizer))
    shown = draw_examples(opened, examples_split, examples, seed) if examples else ()
    task = QueryTask(write.value, per_document, shown, passage_tokens, query_tokens)
    from retrieval_kd.teachers.kinds import open_language_model
    from retrieval_kd.teachers.llm.server.model import ServerModel
    from retrieval_kd.teachers.options import PassageOptions

    opener = partial(ServerModel, settings=settings) if settings is not None else None
    writer = open_language_model(model, PassageOptions(), opener)
    about = generate_collection(
        opened, writer, task, filters, store, out, split=split, documents=documents, seed=seed
    )
    say("\n".join(_summary(about, out)))
    if not about["queries"]["kept"]:
        raise typer.Exit(1)


def _summary(about: dict[str, Any], out: Path) -> list[str]:
    answers, queries = about["answers"], about["queries"]
    problems = {
        name: count
        for name, count in answers.items()
        if name not in ("documents", "without_text", "failed", "ok") and count
    }
    kind, lines = about["task"]["kind"], [f"{out}: split {about['split']!r}"]

    def row(name: str, count: int, words: str) -> None:
        if count:
            lines.append(f"  {name:<11}{count:>9,}  {words}".rstrip())

    row("written", queries["written"], f"{kind} about {answers.get('ok', 0):,} documents by "
        f"{about['model']} ({about['reused']:,} answers were stored)")  # fmt: skip
    listed = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in problems.items())
    row("unusable", sum(problems.values()), f"answers: {listed}")
    row("no text", answers["without_text"], "documents of which nothing could be shown")
    row("failed", answers["failed"], f"documents: {about['failure']}; the same command asks again")
    row("repeated", queries["written"] - queries["distinct"], "joined with those of the same text")
    splits = ", ".join(about["filters"]["against"])
    row("overlap", queries["overlapping"], f"with queries of {splits}")
    found = ", ".join(
        f"{name} finds {share:.0%}"
        for name, share in about["round_trip"].items()
        if share is not None
    )
    row("not found", queries["not_found"],
        f"among the first {about['filters']['depth']} ({found})")  # fmt: skip
    row("kept", queries["kept"], "")
    lines += said_spent(Spent(**about["spent"]))
    if not queries["kept"]:
        return [*lines, f"no query is left, so no collection was made. {_remedy(about)}"]
    return [
        *lines,
        "to learn from them as from a query log: "
        f"rkd run configs/quickstart.yaml collection={out} unlabelled.log={about['split']}",
    ]


def _remedy(about: dict[str, Any]) -> str:
    """What to do if no query is left, by where the last ones were lost."""
    answers, queries = about["answers"], about["queries"]
    if queries["not_found"]:
        return "Raise --round-trip or name another --found-by; the stored answers are used again."
    if queries["overlapping"]:
        return "All are like queries of another split; ask about more --documents."
    if answers["documents"]:
        return (
            "No answer has the form: does the model follow instructions? "
            "Its answers are in the store, word for word."
        )
    if answers["failed"]:
        return "No answer came."
    return "No document that was drawn has text."
