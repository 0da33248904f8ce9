"""`teacher.server` of a configuration: where and how teachers that are language models are asked.

The same settings as those of `rkd score --server`; obeyed by `teachers/server_model.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retrieval_kd.teachers.llm.server.budget import Limits
from retrieval_kd.teachers.llm.server.client import Server

if TYPE_CHECKING:
    from retrieval_kd.teachers.llm.server.model import Api, ServerModel


from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from retrieval_kd.schema import Part, as_value_error
from retrieval_kd.teachers.spec import LANGUAGE_MODELS, parse_spec


class TeacherServer(Part):
    """A server with OpenAI's API; its key is in the environment: RETRIEVAL_KD_API_KEY."""

    url: str = Field(description="of its API, such as http://127.0.0.1:8000/v1")
    members: list[str] | None = Field(
        None, description="teachers, as named in `teacher`, that it is asked for; none: all "
        "language models"
    )  # fmt: skip
    api: Literal["chat", "completions"] = Field(
        "chat", description="completions: for models without a chat template"
    )
    tokenizer: str | None = Field(
        None,
        description="the MODEL's own, to format and cut prompts here and to send tokens (vLLM, "
        "llama.cpp)",
    )
    logprobs: int = Field(20, ge=1, description="likeliest words to ask for; more find rarer ones")
    structured: bool = Field(
        False, description="hold the model to the form that is expected (response_format)"
    )
    concurrency: int = Field(8, ge=1, description="calls at once")
    timeout: float = Field(120.0, gt=0, description="until a call counts as lost (seconds)")
    retries: int = Field(6, ge=0, description="how often a failed call is repeated")
    per_minute: float | None = Field(
        None, gt=0, description="requests in a minute, repeats included, at most"
    )
    max_tokens: int | None = Field(
        None, ge=0, description="of one `rkd run`, read and written (tokens)"
    )
    max_cost: float | None = Field(
        None, ge=0, description="of one `rkd run`, in the currency of the prices"
    )
    prompt_price: float = Field(0.0, ge=0, description="of a million tokens read")
    answer_price: float = Field(0.0, ge=0, description="of a million tokens written")

    @model_validator(mode="after")
    def _possible(self) -> TeacherServer:
        as_value_error(self.on_server)
        return self

    def on_server(self) -> OnServer:
        """How models are opened there; nothing is spent of its limits yet.

        Raises:
            InputError: the address is none, or a limit of cost has no prices.
        """
        return OnServer(
            Server(self.url, self.concurrency, self.timeout, self.retries, self.per_minute),
            self.api,
            self.tokenizer,
            self.logprobs,
            self.structured,
            Limits(self.max_tokens, self.max_cost, self.prompt_price, self.answer_price),
        )


def served_by(server: TeacherServer, members: Sequence[str]) -> list[str]:
    """Those of `members` that are asked on the server.

    Example:
        >>> server = TeacherServer(url="http://127.0.0.1:8000/v1")
        >>> served_by(server, ["bm25", "yesno:big", "org/cross-encoder"])
        ['yesno:big']
    """
    able = [member for member in members if parse_spec(member).kind in LANGUAGE_MODELS]
    return able if server.members is None else [m for m in able if m in server.members]


def check_served(server: TeacherServer, members: Sequence[str]) -> None:
    """Refuse a server for what it cannot be asked.

    Raises:
        ValueError: saying what.
    """
    served = served_by(server, members)
    strangers = [name for name in server.members or () if name not in served]
    if strangers:
        raise ValueError(
            f"server.members names {strangers[0]!r}, which is no teacher here that is a language "
            f"model; teachers: {', '.join(members)}"
        )
    if not served:
        raise ValueError(
            "server: no teacher is a language model; name one with yesno:, likelihood:, pairwise: "
            "or listwise:, or leave the server out"
        )
    for name in served:
        if "layers" in parse_spec(name).options:
            raise ValueError(f"{name}: a server answers from its model's last layer: no `layers`")


@dataclass(frozen=True)
class OnServer:
    """A server, and how its model is to be asked; see `ServerModel`."""

    server: Server
    api: Api = "chat"
    tokenizer: str | None = None
    logprobs: int = 20
    structured: bool = False
    limits: Limits = field(default_factory=Limits)

    def open(self, name: str) -> ServerModel:
        from retrieval_kd.teachers.llm.server.model import ServerModel

        return ServerModel(
            name,
            self.server,
            api=self.api,
            tokenizer=self.tokenizer,
            logprobs=self.logprobs,
            structured=self.structured,
            limits=self.limits,
        )

    def cache_key(self, name: str) -> list[str | int]:
        """All that may change what a model there answers; where the server is does not."""
        return [self.open(name).digest, self.logprobs]
