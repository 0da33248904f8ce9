"""States of all layers of a model, and which of a bigger model's layers each of them imitates.

Language-model distillation in the form of TinyBERT's general stage, Jiao et al. 2019,
https://arxiv.org/abs/1909.10351: no task, no labels, only what the layers make of a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.students.layers import layer_stack


@contextmanager
def all_states(model: Any) -> Iterator[list[Tensor]]:
    """While open, a forward pass leaves its embeddings and each layer's states, (n, L, D) each."""
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
    """Which teacher's layer each layer of the student learns; 0 are the embeddings.

    TinyBERT's uniform strategy, g(m) = m · M / N for N of M layers, here rounded.

    Example:
        >>> uniform_map(3, 6), uniform_map(2, 3)
        ([(0, 0), (1, 2), (2, 4), (3, 6)], [(0, 0), (1, 2), (2, 3)])
    """
    return [(m, int(m * teacher / student + 0.5)) for m in range(student + 1)]


def check_width(student: Any, teacher: Any, model_spec: str) -> tuple[int, int]:
    """How many layers the two have, whose states are of one width.

    Raises:
        InputError: they are not.
    """
    own, other = (model[0].auto_model.config for model in (student, teacher))
    if own.hidden_size != other.hidden_size:
        raise InputError(
            f"the states of {model_spec} have {other.hidden_size} dimensions, the student's "
            f"{own.hidden_size}",
            remedy="make the student of this model, with fewer layers, or learn its relations",
        )
    return own.num_hidden_layers, other.num_hidden_layers
