"""The kinds of students, and the options of each besides layers and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from retrieval_kd.errors import InputError, did_you_mean
from retrieval_kd.models.projection import Start
from retrieval_kd.schema import Dimensions, Weight, as_input_error, check_type

OPTIONS: dict[str, tuple[str, ...]] = {
    "dense": (),
    "sparse": ("top_k", "activation"),
    "multi_vector": (),
    "multi_function": ("lexical", "weights", "main"),
    "interaction": ("head", "hidden", "attention_heads"),
    "cross_encoder": (),
    "static": ("saturate",),
    "residual": ("train_vectors",),
    "asymmetric": (),
    "adapter": ("rank", "start"),
}
NUMBERS = {  # the types of options
    "top_k": Dimensions, "hidden": Dimensions, "attention_heads": Dimensions,
    "weights": dict[str, Weight], "train_vectors": bool, "saturate": bool,
    "rank": Dimensions, "start": Start, "activation": Literal["relu", "log1p_relu"],
}  # fmt: skip
Query = Literal["idf"] | None  # what reads a sparse student's queries; None: its transformer
TABLES = (
    "static",
    "residual",
    "asymmetric",
    "adapter",
)  # trained from frozen parts
UNCUT = ("residual", "asymmetric")  # kinds whose vectors are not cut to their first dimensions
FIXED = ("asymmetric",)  # kinds whose documents stay as another model has made them
DRAWN = (  # kinds with weights that are drawn at random where the base is not of the same kind
    "multi_vector", "multi_function", "interaction", "cross_encoder", "static", "residual",
)  # fmt: skip
STARTS = {"asymmetric": ("dense", "residual", "asymmetric")}  # kinds to start from; dense and own
SAVED_AS = {"adapter": "dense"}  # kinds whose saved model is one of another kind
RE_RANKS = ("cross_encoder",)  # kinds without vectors: they re-rank a first stage's candidates
WITH_DIMENSIONS = (
    "dense",  # of a text's vector
    "multi_vector",
    "multi_function",
    "static",
    "residual",
    "adapter",  # of a text's vector
)  # of token vectors
PARTS = {  # names of a student's scores besides `score`
    "multi_function": ("dense", "sparse", "multi", "integrated"),
    "interaction": ("vector",),
}
SEARCHED_AS = {  # by one vector per text
    kind: "dense" for kind in ("multi_function", "interaction", *TABLES)
}


def check_options(
    kind: str, dimensions: int | None, options: Mapping[str, Any], query: str | None = None
) -> None:
    """Refuse a kind of student that does not exist, and options that the kind does not have.

    Example:
        >>> check_options("sparse", None, {"top_k": 128})
    """
    if kind not in OPTIONS:
        remedy = did_you_mean(kind, OPTIONS) or f"choose one of {', '.join(OPTIONS)}"
        raise InputError(f"no kind of student {kind!r}", remedy=remedy)
    if dimensions is not None and kind not in WITH_DIMENSIONS:
        raise InputError(
            f"a {kind} student has no `dimensions` to choose",
            remedy="leave it out, or make the student dense or multi_vector",
        )
    as_input_error(check_type, Query, query, "query: ")
    if query is not None and kind != "sparse":
        raise InputError(
            f"a {kind} student cannot have `query: {query}`: it has no weights of words",
            remedy="leave it out, or make the student sparse",
        )
    wrong = sorted(set(options) - set(OPTIONS[kind]))
    if wrong:
        options_of_kind = ", ".join(OPTIONS[kind]) or "none"
        raise InputError(
            f"a {kind} student has no option {wrong[0]!r}", remedy=f"its options: {options_of_kind}"
        )
    for name, numbers in NUMBERS.items():
        if options.get(name) is not None:
            as_input_error(check_type, numbers, options[name], f"{name}: ")
