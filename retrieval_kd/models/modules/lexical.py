"""The sparse encoder of M3's lexical weights."""

from __future__ import annotations

from typing import ClassVar

from sentence_transformers import SparseEncoder

from retrieval_kd.models.modules.headed import CodedEncoder
from retrieval_kd.models.modules.lexical_weights import LexicalWeights


class LexicalEncoder(CodedEncoder, SparseEncoder):
    """A `SparseEncoder` that may contain `LexicalWeights`."""

    student: ClassVar[str] = "lexical"
    own_modules = (LexicalWeights,)
