"""Options of the commands that query a model on a server, with the bounds of its settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from retrieval_kd.cli.options import refuse_unused, setting
from retrieval_kd.errors import KEY
from retrieval_kd.schema import validate
from retrieval_kd.store.usage import Spent
from retrieval_kd.teachers.llm.server.settings import ServerSettings

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


def server_option(apis: str = "any server with OpenAI's API") -> Any:
    """The option `--server`."""
    return typer.Option(
        metavar="URL",
        help=f"query MODEL there, such as http://127.0.0.1:8000/v1; {apis}. Its key is taken from "
        f"the environment: {KEY}",
        rich_help_panel=SERVER,
    )


ApiPart = Annotated[Api, _option("api")]
Tokenizer = Annotated[str | None, _option("tokenizer", metavar="MODEL")]
Structured = Annotated[bool, _option("structured", SERVER, "--structured")]
Concurrency = Annotated[int, _option("concurrency")]
Timeout = Annotated[float, _option("timeout")]
Retries = Annotated[int, _option("retries")]
PerMinute = Annotated[float | None, _option("per_minute")]
MaxTokens = Annotated[int | None, _option("max_tokens", LIMITS)]
MaxCost = Annotated[float | None, _option("max_cost", LIMITS)]
PromptPrice = Annotated[float, _option("prompt_price", LIMITS)]
AnswerPrice = Annotated[float, _option("answer_price", LIMITS)]
Logprobs = Annotated[int, _option("logprobs")]
Batch = Annotated[int, _option("batch")]

API = Api(SETTINGS["api"].default)
CONCURRENCY: int = SETTINGS["concurrency"].default
TIMEOUT: float = SETTINGS["timeout"].default
RETRIES: int = SETTINGS["retries"].default
LOGPROBS: int = SETTINGS["logprobs"].default
BATCH: int = SETTINGS["batch"].default


def server_settings(context: typer.Context, server: str | None) -> ServerSettings | None:
    """Return the settings of the server that a command names, from its options.

    Raises:
        InputError: a setting is wrong, or is given without a server.
    """
    if server is None:
        names = [name for name in SETTINGS if name in context.params]
        refuse_unused(context, names, "for servers", "--server")
        return None
    values = {name: context.params[name] for name in SETTINGS if name in context.params}
    return validate(ServerSettings, {**values, "url": server, "api": context.params["api"].value})


def said_spent(spent: Spent) -> list[str]:
    """Return a line about the calls of a language model, if there were any."""
    if not spent.prompt_tokens:
        return []
    cost = f", which cost {spent.cost:.4g}" if spent.cost else ""
    return [
        f"{spent.calls} calls, {spent.failed} failed; {spent.prompt_tokens:,} tokens read, "
        f"{spent.answer_tokens:,} written{cost}"
    ]
