"""Trained layers that Sentence Transformers has no module for, and the classes that load them.

Nothing here is loaded by plain Sentence Transformers, which since version 6 imports no module but
its own without `trust_remote_code`. `class_of` finds the class that a folder needs.
"""

from __future__ import annotations

from typing import Any

from sentence_transformers.util import load_file_path

from retrieval_kd.files import read_json
from retrieval_kd.models.modules.headed import MARK
from retrieval_kd.models.modules.interaction import InteractionEncoder
from retrieval_kd.models.modules.lexical import LexicalEncoder
from retrieval_kd.models.modules.multi_function import MultiFunctionEncoder

ENCODERS: dict[str, Any] = {
    kind.student: kind for kind in (InteractionEncoder, LexicalEncoder, MultiFunctionEncoder)
}


def mark_of(location: str, revision: str | None = None) -> str:
    """Which of our classes saved a folder or hub name; "" for all others."""
    found = load_file_path(location, "config_sentence_transformers.json", revision=revision)
    return str(read_json(found).get(MARK, "")) if found else ""


def class_of(location: str, plain: Any, revision: str | None = None) -> Any:
    """The class to load a folder or hub name with: one of ours if it was saved by it, or `plain`.

    Example:
        >>> import tempfile
        >>> from sentence_transformers import SentenceTransformer
        >>> class_of(tempfile.gettempdir(), SentenceTransformer).__name__
        'SentenceTransformer'
    """
    ours = ENCODERS.get(mark_of(location, revision))
    return ours if ours is not None and issubclass(ours, plain) else plain
