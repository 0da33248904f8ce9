"""Captures states inside a model in a forward pass: of its layers, its attention or its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models.layers import layer_stack

Seen = dict[str, Any]  # captured states by the name of the objective


@contextmanager
def watched(model: Any, names: Iterable[str], layer: int = -1) -> Iterator[Seen]:
    """Capture the states that the objectives of these names compare in a forward pass."""
    ways: dict[str, Any] = {
        "hidden_states": lambda: all_states(model),
        "relations": lambda: attention_states(model, layer),
        "token_alignment": lambda: token_states(model),
    }
    with ExitStack() as stack:
        yield {name: stack.enter_context(ways[name]()) for name in sorted(names)}


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

    with ExitStack() as hooks:
        hooks.enter_context(stack[0].register_forward_pre_hook(before))
        for module in stack:
            hooks.enter_context(module.register_forward_hook(after))
        yield states


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
    """
    states: dict[str, Tensor] = {}

    with ExitStack() as hooks:
        for kind, linear in attention_maps(model, layer).items():

            def keep(module: nn.Module, inputs: Any, output: Tensor, kind: str = kind) -> None:
                states[kind] = output  # (n, L, D)

            hooks.enter_context(linear.register_forward_hook(keep))
        yield states


def attention_maps(model: Any, layer: int = -1) -> dict[str, nn.Linear]:
    """Find the linear maps from a layer's input to its queries, keys and values.

    Raises:
        InputError: no such layer, or not one map for each.
    """
    parent, name = layer_stack(model)
    stack: Any = getattr(parent, name)
    if layer >= len(stack):
        raise InputError(
            f"layer {layer} does not exist: the model has {len(stack)} layers",
            remedy=f"give `layer` from 0 to {len(stack) - 1}, or leave it out to use the last",
        )
    inside = list(stack[layer].named_modules())
    for names in NAMES:
        candidates = [
            [m for n, m in inside if n.rpartition(".")[2] == own and isinstance(m, nn.Linear)]
            for own in names
        ]
        if all(len(maps) == 1 for maps in candidates):
            return dict(zip(KINDS, (maps[0] for maps in candidates), strict=True))
    raise InputError(
        f"no maps to queries, keys and values found in {type(stack[layer]).__name__}",
        remedy="use hidden_states, or a model whose attention has three linear layers for them",
    )


@contextmanager
def token_states(model: Any) -> Iterator[dict[str, Tensor]]:
    """Capture the output `tokens` (n, L, D) and the mask `present` (n, L) of a forward pass.

    For a multi-vector model these are the vectors it scores with, for a dense one the last layer's
    states.
    """
    states: dict[str, Tensor] = {}

    def after(module: nn.Module, inputs: Any, output: dict[str, Any]) -> None:
        states["tokens"] = output["token_embeddings"]
        states["present"] = output["attention_mask"].bool()

    with model.register_forward_hook(after):
        yield states


@contextmanager
def before_answer(model: Any) -> Iterator[list[Tensor]]:
    """Capture the input (n, E) of a cross-encoder's last linear layer in a forward pass.

    Raises:
        InputError: no linear layer has one output.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    if not layers:
        raise InputError(
            "this cross-encoder does not compute its score from a state with a linear layer",
            remedy="name a cross-encoder with a classification head, such as BERT's",
        )
    states: list[Tensor] = []
    with layers[-1].register_forward_pre_hook(lambda module, inputs: states.append(inputs[0])):
        yield states
