"""The static encoder that weighs a document's words as BM25 does."""

from __future__ import annotations

from typing import ClassVar

from sentence_transformers import SentenceTransformer

from retrieval_kd.models.modules.headed import CodedEncoder
from retrieval_kd.models.modules.token_table import SaturatedEmbedding


class SaturatedEncoder(CodedEncoder, SentenceTransformer):
    """A `SentenceTransformer` whose only module is a `SaturatedEmbedding`."""

    student: ClassVar[str] = "static"
    own_modules = (SaturatedEmbedding,)
