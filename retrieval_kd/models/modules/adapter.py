"""The adapter: a linear map after a frozen encoder, which also maps vectors that are stored."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize

from retrieval_kd.models.modules.headed import MarkedEncoder


class AdapterEncoder(MarkedEncoder, SentenceTransformer):
    """An encoder's modules, a `Dense` (E, D) without bias, and `Normalize` if it has cosines.

    All of these are Sentence Transformers' own, so plain `SentenceTransformer` loads a saved one.

    Args:
        base_digest: the encoder's digest, by which cached vectors of it are found.
        rank: of the change that is trained; None is the whole matrix.
    """

    student: ClassVar[str] = "adapter"

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        base_digest: str = "",
        rank: int | None = None,
        **arguments: Any,
    ) -> None:
        self.base_digest, self.rank = base_digest, rank
        self.base_spec = model_name_or_path or ""
        super().__init__(model_name_or_path, **arguments)

    @property
    def dense(self) -> Dense:
        """The module with the map."""
        module = self[self._at]
        assert isinstance(module, Dense)
        return module

    @cached_property
    def encoder(self) -> SentenceTransformer:
        """The frozen encoder alone, with the same weights in memory."""
        return SentenceTransformer(
            modules=list(self)[: self._at],
            similarity_fn_name=self.similarity_fn_name,
            prompts={name: text for name, text in self.prompts.items() if text},
            default_prompt_name=self.default_prompt_name,
            device=str(self.device),
        ).eval()

    @torch.no_grad()
    def join_documents(self, vectors: np.ndarray, texts: Any) -> np.ndarray:
        """Return documents' vectors (n, E), not yet scaled, from the encoder's (n, D) of them."""
        weight = self.dense.linear.weight.detach().float().cpu()
        return (torch.from_numpy(np.array(vectors)) @ weight.T).numpy()

    @property
    def _at(self) -> int:
        return len(self) - (2 if isinstance(self[-1], Normalize) else 1)

    def _get_model_config(self) -> dict[str, Any]:
        own = {"base_digest": self.base_digest, "rank": self.rank}
        return {**super()._get_model_config(), **own}

    def _parse_model_config(self, model_config: dict[str, Any]) -> None:
        super()._parse_model_config(model_config)
        self.base_digest, self.rank = str(model_config["base_digest"]), model_config.get("rank")
