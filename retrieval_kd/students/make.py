"""Makes a student of any kind from an encoder. What differs by kind is in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SparseEncoder

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.models.facts import vector_size
from retrieval_kd.models.layers import check_layers
from retrieval_kd.models.load import (
    check_length,
    config_of,
    is_cross_encoder,
    is_static,
    is_transformer,
    kind_of,
    load_cross_encoder,
    load_retriever,
    pair_length,
    resolve_model,
)
from retrieval_kd.models.modules import mark_of
from retrieval_kd.students.adapter import make_adapter
from retrieval_kd.students.asymmetric import make_asymmetric
from retrieval_kd.students.dense import make_dense, shallow
from retrieval_kd.students.inference_free import (
    has_query_table,
    idf_table,
    query_table,
    splade_modules,
    with_query_table,
    without_query_table,
)
from retrieval_kd.students.interaction import make_interaction
from retrieval_kd.students.multi_function import make_multi_function
from retrieval_kd.students.multi_vector import make_multi_vector
from retrieval_kd.students.options import (
    DRAWN,
    OPTIONS,
    STARTS,
    TABLES,
    Query,
    check_options,
)
from retrieval_kd.students.residual import make_residual
from retrieval_kd.students.sparse import make_sparse
from retrieval_kd.students.static import DIMENSIONS, make_static


def make_student(
    model_spec: str,
    kind: str = "dense",
    layers: Sequence[int] | None = None,
    *,
    max_length: int | None = None,
    dimensions: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    documents: Texts | None = None,
    query: Query = None,
) -> Any:
    """Make a float32 student from an encoder, or from a student of the same kind.

    The same arguments produce the same weights. A saved student loads in plain
    `SentenceTransformer`, `SparseEncoder`, `MultiVectorEncoder` or `CrossEncoder`; a multi_function
    or interaction student loads there as a dense encoder without its heads.

    Args:
        kind: "dense", "sparse", "multi_vector", "multi_function", "interaction", "static",
            "residual", "asymmetric", "adapter", or "cross_encoder", which has no vectors and
            re-ranks.
        layers: numbers of the layers to keep, counted from 0; by default all.
        max_length: most tokens per text; by default the encoder's own limit.
        dimensions: size of a text's vector (dense, adapter), which adds a linear map, or of each
            token's (multi_vector, multi_function, static, residual); those of an adapter and of
            tokens are ignored if `model_spec` is already a student of that kind.
        seed: for the weights that the encoder does not have.
        options: settings that only this kind has: `top_k`, the number of words that a sparse
            student keeps per text, and its `activation` ("relu": log(1 + ReLU), "log1p_relu": the
            logarithm of one more than that); the keyword arguments of `make_multi_function`,
            `make_interaction`, `make_static`, `make_residual` and `make_adapter`.
        documents: the collection, in which static, residual and asymmetric students count words,
            and a sparse one with `query`.
        query: "idf": a sparse student whose queries are a table of word weights.

    Raises:
        InputError: no such kind or option, or the model is a student of a different kind.

    Example:
        >>> student = make_student("org/model", "sparse", [0, 2, 5])  # doctest: +SKIP
        >>> student.save("my-student")                                           # doctest: +SKIP
    """
    options, common = dict(options or {}), dict[str, Any]()
    check_options(kind, dimensions, options, query)
    check_trainable(model_spec, kind, query)
    saved_kind = saved_as(model_spec)
    if saved_kind not in STARTS.get(kind, ("dense", kind)):
        raise InputError(
            f"{model_spec} is a {saved_kind} model: no {kind} student can be made from it",
            remedy="start from a dense encoder, or from a student of the same kind",
        )
    if kind in TABLES:
        if layers is not None:
            raise InputError(f"a {kind} student has no layers to keep", remedy="leave layers out")
        if kind == "adapter":
            common = {"max_length": max_length, "dimensions": dimensions}
            return make_adapter(model_spec, documents, **common, **options)
        counted = _needed(documents, kind)
        if kind == "asymmetric":
            return make_asymmetric(model_spec, counted, max_length=max_length)
        common = {"dimensions": dimensions, "seed": seed}
        if kind == "static":
            return make_static(model_spec, counted, max_length=max_length, **common, **options)
        return make_residual(model_spec, counted, max_length=max_length, **common, **options)
    if kind == "dense":
        return make_dense(
            model_spec, layers, max_length=max_length, dimensions=dimensions, seed=seed
        )
    if kind == "cross_encoder":
        return make_cross_encoder(model_spec, layers, max_length=max_length, seed=seed)
    common = {"max_length": max_length, "seed": seed, **options}
    if kind == "multi_function":
        return make_multi_function(model_spec, layers, dimensions=dimensions, **common)
    if kind == "interaction":
        return make_interaction(model_spec, layers, **common)
    if kind == "sparse":
        return _make_sparse(model_spec, layers, max_length, options, documents, query)
    if saved_kind == kind:
        model = load_retriever(model_spec, max_length=max_length, dtype=torch.float32)
    else:
        model = make_multi_vector(
            model_spec, dimensions=dimensions, max_length=max_length, seed=seed
        )
    return shallow(model, layers)


def _make_sparse(
    model_spec: str,
    layers: Sequence[int] | None,
    max_length: int | None,
    options: Mapping[str, Any],
    documents: Texts | None,
    query: Query,
) -> SparseEncoder:
    """Make a sparse student; with `query`, the layers are those that read documents."""
    table = None
    if saved_as(model_spec) == "sparse":
        model = load_retriever(model_spec, max_length=max_length, dtype=torch.float32)
        table = query_table(model)
        model = shallow(model if table is None else without_query_table(model), layers)
    else:
        model = make_sparse(model_spec, layers, max_length=max_length)
    if options.get("activation"):
        splade_modules(model, model_spec)[1].activation_function = options["activation"]
    if query is not None:
        if table is None:
            table = idf_table(model, model_spec, _needed(documents, "sparse"))
        model = with_query_table(model, table)
    if options.get("top_k"):
        model.max_active_dims = int(options["top_k"])
    return model


def _needed(documents: Texts | None, kind: str) -> Texts:
    if documents is None:
        raise InputError(
            f"a {kind} student counts words in the collection", remedy="give its `documents`"
        )
    return documents


def make_cross_encoder(
    model_spec: str,
    layers: Sequence[int] | None = None,
    *,
    max_length: int | None = None,
    seed: int = 0,
) -> CrossEncoder:
    """Make a float32 cross-encoder with one logit from some layers of a model, by default all.

    It has no vectors to search by: it is trained and evaluated by re-ranking a first stage's
    candidates.

    Args:
        model_spec: a cross-encoder, or any encoder, which gets a new head.
        max_length: most tokens of a query and a document together; by default 256, or fewer if the
            model has fewer.
        seed: for a new head.
    """
    torch.manual_seed(seed)
    length = pair_length(model_spec, max_length)
    model = load_cross_encoder(model_spec, max_length=length, dtype=torch.float32, new_head=True)
    return shallow(model, layers)


def saved_as(model_spec: str) -> str:
    """Return the kind of student that a model was saved as; other models count as dense."""
    ref = resolve_model(model_spec)
    mark = mark_of(ref.location, ref.revision)
    if mark in OPTIONS:
        return mark
    if is_static(model_spec):
        return "static"
    return "cross_encoder" if is_cross_encoder(model_spec) else kind_of(model_spec)


def check_trainable(model_spec: str, kind: str, query: Query = None) -> None:
    """Refuse a base without a transformer, unless it is a table that the kind starts from."""
    if kind == "sparse" and not is_transformer(model_spec) and has_query_table(model_spec):
        if query is None:
            raise InputError(
                f"queries of {model_spec} are a table of word weights: no transformer reads them",
                remedy="say so with `query: idf` (rkd train --query idf)",
            )
        return
    starts = STARTS.get(kind, (kind,)) if kind in TABLES else ()
    if not is_transformer(model_spec) and saved_as(model_spec) not in starts:
        raise InputError(
            f"{model_spec} has no transformer at its beginning: such a student cannot be trained",
            remedy="start from a transformer encoder; this model can still retrieve and index",
        )


def check_plan(
    model_spec: str,
    kind: str,
    layers: Sequence[int] | None,
    *,
    max_length: int,
    dimensions: int | None = None,
    widths: Sequence[int] = (),
    query: Query = None,
) -> None:
    """Refuse settings of a student that its base does not allow, by the base's files alone.

    Raises:
        InputError: the base has no transformer, or not these layers, positions or dimensions.
    """
    check_trainable(model_spec, kind, query)
    check_base_layers(model_spec, layers)
    if kind != "static":  # which reads whole texts
        check_length(model_spec, max_length)
    size = planned_size(model_spec, kind, dimensions)
    if size is not None and kind != "residual":
        check_widths(size, widths)


def planned_size(model_spec: str, kind: str, dimensions: int | None) -> int | None:
    """Return the size of a text's vector by the base's files; None where they do not say it."""
    size = vector_size(model_spec)
    if kind == "static" and size is not None:
        return dimensions or max(DIMENSIONS, size)
    return (dimensions if kind in ("dense", "adapter") else None) or size


def check_seeds_alike(model_spec: str, kind: str, dimensions: int | None = None) -> None:
    """Refuse to average seeds of a student whose first weights the seed decides.

    Args:
        dimensions: of a dense student, whose projection to them is drawn too.

    Raises:
        InputError: the kind has such weights, and the base does not bring them.
    """
    projected = kind == "dense" and dimensions not in (None, vector_size(model_spec))
    if projected or (kind in DRAWN and saved_as(model_spec) != kind):
        raise InputError(
            f"each seed of a {kind} student made from {model_spec} starts from other random "
            "weights, whose average means nothing: merge: {with: seeds} is not for it",
            remedy=f"make a {kind} student first, by another run or `rkd train`, and name its "
            "folder as the base: then all seeds start alike",
        )


def check_base_layers(model_spec: str, layers: Sequence[int] | None) -> None:
    """Refuse layers that a model does not have, by its configuration alone."""
    count = layer_count(model_spec)
    if layers is not None and count is not None:
        check_layers(list(layers), count)


def layer_count(model_spec: str) -> int | None:
    """Return the number of a model's layers, by its configuration alone; None if it says none."""
    count: int | None = getattr(config_of(model_spec), "num_hidden_layers", None)
    return count


def check_kept(model_spec: str, keep: int) -> int:
    """Refuse to choose more layers than a model has; return how many it has."""
    count = layer_count(model_spec)
    if count is None or keep > count:
        raise InputError(
            f"{keep} layers cannot be chosen of {model_spec}, which has {count or 'none'}",
            remedy=f"keep at most {count}" if count else "leave `layers` out",
        )
    return count


def check_widths(dimensions: int, widths: Sequence[int]) -> None:
    """Refuse widths to search by that a student with so many dimensions does not have."""
    if widths and max(widths) > dimensions:
        raise InputError(
            f"widths asks for {max(widths)} dimensions of a student with {dimensions}",
            remedy=f"give widths of at most {dimensions}",
        )
