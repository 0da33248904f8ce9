"""Hooks that capture the states of a model's layers, and the map from its layers to a teacher's.

They serve language-model distillation as in TinyBERT's general stage (Jiao et al. 2019,
https://arxiv.org/abs/1909.10351), which needs no task and no labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models.layers import layer_stack


@contextmanager
def all_states(model: Any) -> Iterator[list[Tensor]]:
    """Capture the embeddings and each layer's states, (n, L, D) each, of a forward pass."""
    parent, name = layer_stack(model)
    stack: Any = getattr(parent, name)
    states: list[Tensor] = []

    def before(module: nn.Module, inputs: Any) -> None:
        states[:] = [inputs[0]]

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handles = [stack[0].register_forward_pre_hook(before)]
    handles += [layer.register_forward_hook(after) for layer in stack]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def uniform_map(student: int, teacher: int) -> list[tuple[int, int]]:
    """Pair each layer of the student with one of the teacher; 0 are the embeddings.

    TinyBERT's uniform strategy, g(m) = m · M / N for N of M layers, here rounded.

    Example:
        >>> uniform_map(3, 6), uniform_map(2, 3)
        ([(0, 0), (1, 2), (2, 4), (3, 6)], [(0, 0), (1, 2), (2, 3)])
    """
    return [(m, int(m * teacher / student + 0.5)) for m in range(student + 1)]


def check_width(student: Any, teacher: Any, model_spec: str) -> tuple[int, int]:
    """Return the numbers of layers of two models whose states have the same width.

    Raises:
        InputError: the widths differ.
    """
    own, other = (model[0].auto_model.config for model in (student, teacher))
    if own.hidden_size != other.hidden_size:
        raise InputError(
            f"the states of {model_spec} have {other.hidden_size} dimensions, the student's "
            f"{own.hidden_size}",
            remedy="make the student of this model, with fewer layers, or learn its relations",
        )
    return own.num_hidden_layers, other.num_hidden_layers


KINDS = ("queries", "keys", "values")
NAMES = (  # of the three linear maps in BERT, DistilBERT, Llama, MPNet
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("q", "k", "v"),
)


@contextmanager
def attention_states(model: Any, layer: int = -1) -> Iterator[dict[str, Tensor]]:
    """Capture `queries`, `keys` and `values` (n, L, D) of a layer in a forward pass.

    The attention heads are concatenated. Rotary position embeddings, which are applied afterwards,
    are not included.

    Args:
        layer: its number, from 0; -1 is the last.

    Raises:
        InputError: no such layer, or its attention does not have three separate linear maps.
    """
    states: dict[str, Tensor] = {}

    def keep(kind: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            states[kind] = output  # (n, L, D)

        return hook

    maps = attention_maps(model, layer)
    handles = [maps[kind].register_forward_hook(keep(kind)) for kind in KINDS]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def attention_maps(model: Any, layer: int = -1) -> dict[str, nn.Linear]:
    """Find the linear maps from a layer's input to its queries, keys and values.

    Raises:
        InputError: no such layer, or not one map for each.
    """
    parent, name = layer_stack(model)
    stack: Any = getattr(parent, name)
    if layer >= len(stack):
        raise InputError(
            f"relations of layer {layer} are asked of a model with {len(stack)} layers",
            remedy=f"give `layer` from 0 to {len(stack) - 1}; without it, it is the last",
        )
    inside = list(stack[layer].named_modules())
    for names in NAMES:
        found = [
            [m for n, m in inside if n.rpartition(".")[2] == own and isinstance(m, nn.Linear)]
            for own in names
        ]
        if all(len(maps) == 1 for maps in found):
            return dict(zip(KINDS, (maps[0] for maps in found), strict=True))
    raise InputError(
        f"no maps to queries, keys and values found in {type(stack[layer]).__name__}",
        remedy="use hidden_states, or a model whose attention has three linear layers for them",
    )


def check_heads(model: Any, heads: int, layer: int, whose: str) -> None:
    """Refuse a number of relation heads that does not divide a layer's width.

    Raises:
        InputError: the number does not divide the width.
    """
    for kind, linear in attention_maps(model, layer).items():
        if heads < 1 or linear.out_features % heads:
            raise InputError(
                f"{kind} of {whose} have {linear.out_features} dimensions, which cannot be cut "
                f"into {heads} relation heads",
                remedy="give `heads`, a number that divides the widths of student and teacher",
            )
