"""The residual encoder: a frozen encoder and a table of token vectors, in one vector per text."""

from __future__ import annotations

from typing import ClassVar

from sentence_transformers import SentenceTransformer

from retrieval_kd.models.modules.headed import CodedEncoder
from retrieval_kd.models.modules.token_table import ResidualEmbedding


class ResidualEncoder(CodedEncoder, SentenceTransformer):
    """A `SentenceTransformer` whose only module is a `ResidualEmbedding`."""

    student: ClassVar[str] = "residual"
    own_modules = (ResidualEmbedding,)

    @property
    def embedding(self) -> ResidualEmbedding:
        """The module."""
        module = self[0]
        assert isinstance(module, ResidualEmbedding)
        return module
