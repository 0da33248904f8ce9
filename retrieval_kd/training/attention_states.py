"""Queries, keys and values of one layer's attention: what `relations` compares.

Relations of a layer's own queries, keys and values say what its attention does, however wide it is
and however many heads it has (MiniLMv2, Wang et al. 2020, https://arxiv.org/abs/2012.15828).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.students.layers import layer_stack

KINDS = ("queries", "keys", "values")
NAMES = (  # of the three linear maps: BERT and its like, DistilBERT, Llama and its like, MPNet
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("q", "k", "v"),
)


@contextmanager
def attention_states(model: Any, layer: int = -1) -> Iterator[dict[str, Tensor]]:
    """While open, a forward pass leaves `queries`, `keys` and `values` (n, L, D) of a layer.

    All attention heads are side by side; positions that an attention turns into them afterwards
    (rotary embeddings) are not in them.

    Args:
        layer: its number, from 0; -1 is the last.

    Raises:
        InputError: no such layer, or its attention has no three maps of their own.
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
    """The linear maps from a layer's input to its queries, keys and values.

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
    """Refuse a number of relation heads that a layer's width cannot be cut into.

    Raises:
        InputError: naming the width.
    """
    for kind, linear in attention_maps(model, layer).items():
        if heads < 1 or linear.out_features % heads:
            raise InputError(
                f"{kind} of {whose} have {linear.out_features} dimensions, which cannot be cut "
                f"into {heads} relation heads",
                remedy="give `heads`, a number that divides the widths of student and teacher",
            )
