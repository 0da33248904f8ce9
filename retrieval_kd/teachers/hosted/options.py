"""Options that embeddings and re-rankers on servers share, and how their texts are cut."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypeVar

from pydantic import Field

from retrieval_kd.schema import Part
from retrieval_kd.teachers.llm.rendering import Renderer, open_renderer
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.model import cut
from retrieval_kd.teachers.llm.server.responses import Json
from retrieval_kd.teachers.llm.server.settings import ServerSettings

Item = TypeVar("Item")


class HostedOptions(Part):
    """Options of every teacher on a server that is no language model."""

    passage_tokens: int | None = Field(
        None, gt=0, description="tokens of a document; the rest is cut off here, not on the server"
    )
    revision: str = Field(
        "", description="any name: tells apart what servers give under one model's name"
    )


class Cutter:
    """Cuts documents to `most_tokens` tokens, of four characters where no tokenizer is named."""

    def __init__(self, settings: ServerSettings, most_tokens: int | None) -> None:
        self.settings, self.most_tokens = settings, most_tokens

    def cut(self, texts: Sequence[str]) -> list[str]:
        if self.most_tokens is None:
            return list(texts)
        if self._renderer is not None:
            return self._renderer.shorten(texts, self.most_tokens)
        return [cut(text, self.most_tokens, "end") for text in texts]

    @property
    def described(self) -> str:
        """The tokenizer that cuts, for a teacher's key; empty without one."""
        return self._renderer.described() if self._renderer is not None else ""

    @cached_property
    def _renderer(self) -> Renderer | None:
        named = self.settings.tokenizer
        return None if self.most_tokens is None or named is None else open_renderer(named)


def in_batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """The items, at most `size` in each list."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def halves(batches: Sequence[list[Item]], bodies: Sequence[Json], calls: Calls) -> list[list[Item]]:
    """What to send again of refused batches: one text that is too long fails a whole request.

    Nothing after a limit was reached: what has come is stored first.
    """
    if calls.stopped is not None:
        return []
    refused = {id(body) for body in calls.refused}
    again = [batch for batch, body in zip(batches, bodies, strict=True) if id(body) in refused]
    return [half for batch in again if len(batch) > 1
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :])]  # fmt: skip
