"""The settings of a server with OpenAI's API: of `rkd score --server` and of `teacher.server`."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from retrieval_kd.errors import KEY
from retrieval_kd.files import digest_text
from retrieval_kd.schema import Part


class ServerSettings(Part):
    """A server with OpenAI's API; its key is in the environment: RETRIEVAL_KD_API_KEY.

    For api.openai.com the key may also be in OPENAI_API_KEY.
    """

    url: str = Field(description="address of the API, such as http://127.0.0.1:8000/v1")
    api: Literal["chat", "completions"] = Field(
        "chat", description="chat, or completions for models without a chat template"
    )
    tokenizer: str | None = Field(
        None,
        description="the model's own, to format and cut prompts here and to send tokens (vLLM, "
        "llama.cpp)",
    )
    logprobs: int = Field(
        20, ge=1, description="number of likeliest words to request; more find rarer ones"
    )
    structured: bool = Field(
        False, description="constrain answers to the expected format (response_format)"
    )
    batch: int = Field(
        32, ge=1, le=2048, description="texts in one call, of embeddings and re-rankers"
    )
    concurrency: int = Field(8, ge=1, le=1024, description="number of calls at the same time")
    timeout: float = Field(
        120.0,
        ge=0.001,
        le=1_000_000,
        allow_inf_nan=False,
        description="seconds to wait for an answer",
    )
    retries: int = Field(6, ge=0, description="how often a failed call is repeated")
    per_minute: float | None = Field(
        None,
        ge=0.001,
        allow_inf_nan=False,
        description="maximum requests per minute, retries included",
    )
    prompt_price: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="price of a million tokens read"
    )
    answer_price: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="price of a million tokens written"
    )
    max_tokens: int | None = Field(
        None, ge=0, description="stop before one command reads and writes more tokens"
    )
    max_cost: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="stop before one command spends more, in the currency of the prices",
    )

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
            secret = bool(parts.username or parts.password or parts.query)
        except ValueError:
            good = secret = False
        if secret:  # the message does not show the address
            raise ValueError(
                "the server's address contains a name, a password or a query; give the bare "
                f"address, and the key in the environment as {KEY}"
            )
        if not good:
            raise ValueError(f"not a server's address: {url!r}; write http://HOST:PORT/v1")
        return url

    @field_validator("max_cost")
    @classmethod
    def _has_prices(cls, most: float | None, info: ValidationInfo) -> float | None:
        if most is not None and not (
            info.data.get("prompt_price") or info.data.get("answer_price")
        ):
            raise ValueError(
                "a limit of cost needs the server's prices; give prompt_price and answer_price "
                "(--prompt-price, --answer-price), of a million tokens"
            )
        return most

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """The price of these tokens.

        Example:
            >>> prices = {"prompt_price": 0.5, "answer_price": 2.0}
            >>> ServerSettings(url="http://127.0.0.1:8000/v1", **prices).cost(1_000_000, 100_000)
            0.7
        """
        return (prompt_tokens * self.prompt_price + answer_tokens * self.answer_price) / 1e6

    def cache_key(self) -> list[Any]:
        """Everything that may change an answer: not the address, the key, the pace or a limit."""
        return [self.prompt_digest(), self.structured, self.logprobs]

    def prompt_digest(self) -> str:
        """Digest of how prompts become a model's input: by the server, or by a tokenizer here."""
        if self.tokenizer is None:
            return digest_text(self.api)
        from retrieval_kd.teachers.llm.rendering import open_renderer

        return digest_text(open_renderer(self.tokenizer).described())
