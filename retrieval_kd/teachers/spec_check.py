"""What is wrong with a teacher's spec, as far as that is known without a model: said at once.

Imports no model library: those take many seconds. What is left to say is said by `opening.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrieval_kd.errors import InputError
from retrieval_kd.models.lora import Lora, need_peft
from retrieval_kd.models.names import check_there
from retrieval_kd.schema import Part
from retrieval_kd.teachers.comparing.listwise import ListwiseOptions
from retrieval_kd.teachers.comparing.pairwise import PairwiseOptions
from retrieval_kd.teachers.comparing.set_prompts import PAIR_TEMPLATES, list_templates
from retrieval_kd.teachers.llm.prompts import Template, find_template
from retrieval_kd.teachers.pointwise import likelihood, yes_no
from retrieval_kd.teachers.spec import (
    ALONE,
    LANGUAGE_MODELS,
    CrossEncoderOptions,
    LikelihoodOptions,
    NoOptions,
    TeacherSpec,
    YesNoOptions,
    parse_spec,
)


def check_base(spec: str, *, layers: Sequence[int] | None, lora: Lora | None) -> None:
    """Refuse what a teacher of this kind cannot be fine-tuned into, before anything is loaded.

    Raises:
        InputError: saying what would do.
    """
    kind = parse_spec(spec).kind
    if kind not in ("pointwise", "yesno"):
        raise InputError(
            f"{kind} teachers are not fine-tuned", id=spec, remedy="give MODEL or yesno:MODEL"
        )
    if kind == "pointwise" and spec != parse_spec(spec).model:
        raise InputError(
            "a cross-encoder to be fine-tuned is named by its MODEL alone",
            id=spec,
            remedy=f"write {parse_spec(spec).model}; which layers to keep is told apart",
        )
    if kind == "yesno" and layers is not None:
        raise InputError("a decoder is trained with all its layers", remedy="leave layers out")
    if kind == "pointwise" and lora is not None:
        raise InputError(
            "LoRA adapters are trained of decoders", id=spec, remedy="name the base yesno:MODEL"
        )
    if lora is not None:
        need_peft()


OPTIONS: dict[str, type[Part]] = {
    "pointwise": CrossEncoderOptions,
    "yesno": YesNoOptions,
    "likelihood": LikelihoodOptions,
    "pairwise": PairwiseOptions,
    "listwise": ListwiseOptions,
}


def check_options(spec: str) -> TeacherSpec:
    """A teacher's name, its kind and options found good.

    Example:
        >>> check_options("listwise:org/model?windw=4")
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: listwise teachers have no option 'windw' (id org/model). \
To fix: did you mean 'window'? options are: prompt, passage_tokens, cut, layers, query_tokens, \
how, answer, window, stride, passes, children, top, group, rounds.

    Raises:
        InputError: the kind or an option is not there, or a value is impossible.
    """
    asked = parse_spec(spec)
    asked.checked(OPTIONS.get(asked.kind, NoOptions))
    return asked


def check_spec(spec: str, *, on_server: bool = False, tokenizer: str | None = None) -> None:
    """Refuse a spec of which no teacher can be opened.

    Args:
        on_server: the model is a server's, which is not asked for it here.
        tokenizer: a model that is taken for its tokenizer.

    Raises:
        InputError: saying what to write instead.
    """
    asked = check_options(spec)
    if on_server and asked.kind not in LANGUAGE_MODELS:
        raise InputError(
            f"{spec!r} is no teacher that a server can be asked for",
            remedy="use yesno:, likelihood:, pairwise: or listwise:, or leave --server out",
        )
    _check_files(asked.kind, asked.options)
    if tokenizer is not None:
        check_there(tokenizer)
    if not on_server and asked.kind not in ALONE:
        check_there(asked.model)


def _check_files(kind: str, options: dict[str, str]) -> None:
    """Refuse a prompt, or a file of answers, that is not there."""
    answers = options.get("answers") if kind == "likelihood" else None
    if answers is not None and not Path(answers).is_file():
        raise InputError("no such file", file=answers, remedy="name a file of answers by query ID")
    if kind in LANGUAGE_MODELS and "prompt" in options:
        alone = kind == "likelihood" and "answers" not in options
        find_template(options["prompt"], _templates(kind, options), without_query=alone)


def _templates(kind: str, options: dict[str, str]) -> Sequence[Template]:
    """The templates that a kind's option `prompt` may name."""
    if kind == "likelihood":
        return likelihood.ANSWERING if "answers" in options else likelihood.TEMPLATES
    if kind == "listwise":
        return list_templates(options.get("how", ""), options.get("answer", ""))
    return PAIR_TEMPLATES if kind == "pairwise" else yes_no.TEMPLATES
