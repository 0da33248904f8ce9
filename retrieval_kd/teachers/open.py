"""Open a teacher by its name; `spec.py` parses names, `kinds.py` opens each kind."""

from __future__ import annotations

from dataclasses import replace

from retrieval_kd.data.collection import Collection
from retrieval_kd.teachers.kinds import KINDS, Context, OpenModel, Teacher
from retrieval_kd.teachers.spec import parse_spec


def open_teacher(
    spec: str,
    collection: Collection,
    *,
    max_length: int | None = None,
    open_model: OpenModel | None = None,
) -> Teacher:
    """Open the teacher with this name: `[KIND:]MODEL[?option=value&…]`, or `bm25`.

    Args:
        collection: the documents to score; BM25's scores depend on all of them.
        max_length: tokens of query and document together, or of a language model's passage. An
            option in `spec` takes precedence.
        open_model: opens the language model of a teacher, for instance on a server; by default the
            model runs in this process.

    Raises:
        InputError: the kind, an option or the model does not exist.
    """
    parsed = parse_spec(spec)
    kind = KINDS[parsed.kind]
    if kind.is_language_model and max_length is not None:
        options = {"passage_tokens": str(max_length), **parsed.options}
        parsed = replace(parsed, options=options)
    options_model = parsed.validated(kind.options)
    return kind.open(parsed.model, options_model, Context(collection, max_length, open_model))
