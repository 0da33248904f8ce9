"""How a teacher's model is asked on a server, as settings; `server_model.py` obeys them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retrieval_kd.teachers.limits import Limits
from retrieval_kd.teachers.server_client import Server

if TYPE_CHECKING:
    from retrieval_kd.teachers.server_model import Api, ServerModel


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
        from retrieval_kd.teachers.server_model import ServerModel

        return ServerModel(
            name,
            self.server,
            api=self.api,
            tokenizer=self.tokenizer,
            logprobs=self.logprobs,
            structured=self.structured,
            limits=self.limits,
        )

    def told(self, name: str) -> list[str | int]:
        """All that may change what a model there answers; where the server is does not."""
        return [self.open(name).digest, self.logprobs]
