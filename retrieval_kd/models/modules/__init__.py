"""Trained layers that Sentence Transformers lacks, and the model classes that load them.

Plain Sentence Transformers does not load them: since version 6 it imports only its own modules
without `trust_remote_code`. `class_of` finds the class that a folder needs.
"""

from __future__ import annotations

from typing import Any

from sentence_transformers.util import load_file_path

from retrieval_kd.files import read_json
from retrieval_kd.models.modules.adapter import AdapterEncoder
from retrieval_kd.models.modules.asymmetric import AsymmetricEncoder
from retrieval_kd.models.modules.headed import MARK
from retrieval_kd.models.modules.interaction import InteractionEncoder
from retrieval_kd.models.modules.lexical import LexicalEncoder
from retrieval_kd.models.modules.multi_function import MultiFunctionEncoder
from retrieval_kd.models.modules.residual import ResidualEncoder
from retrieval_kd.models.modules.saturated import SaturatedEncoder

ENCODERS: dict[str, Any] = {
    kind.student: kind
    for kind in (
        AdapterEncoder,
        AsymmetricEncoder,
        InteractionEncoder,
        LexicalEncoder,
        MultiFunctionEncoder,
        ResidualEncoder,
        SaturatedEncoder,
    )
}


def mark_of(location: str, revision: str | None = None) -> str:
    """Return the kind of student whose class saved a folder or hub name; "" for other models."""
    config = load_file_path(location, "config_sentence_transformers.json", revision=revision)
    return str(read_json(config).get(MARK, "")) if config else ""


def class_of(location: str, plain: Any, revision: str | None = None) -> Any:
    """Return the class that loads a folder or hub name: the one that saved it, or `plain`.

    Example:
        >>> import tempfile
        >>> from sentence_transformers import SentenceTransformer
        >>> class_of(tempfile.gettempdir(), SentenceTransformer).__name__
        'SentenceTransformer'
    """
    ours = ENCODERS.get(mark_of(location, revision))
    return ours if ours is not None and issubclass(ours, plain) else plain
