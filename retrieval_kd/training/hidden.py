"""States of all layers of a model, and a bigger model's, which a smaller one imitates.

Language-model distillation in the form of TinyBERT's general stage, Jiao et al. 2019,
https://arxiv.org/abs/1909.10351: no task, no labels, only what the layers make of a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models import load_encoder
from retrieval_kd.objectives.layers import hidden_states
from retrieval_kd.students.layers import layer_stack
from retrieval_kd.training.terms import Term


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


class HiddenTeacher(nn.Module):
    """A frozen encoder whose layers a student of the same vocabulary and width imitates.

    Args:
        model_spec: the MODEL, bigger in layers only.
        student: the model that learns; anything with a transformer as its first module.

    Raises:
        InputError: the two do not cut texts into the same tokens, or their states differ in width.
    """

    def __init__(self, model_spec: str, student: Any) -> None:
        super().__init__()
        encoder: Any = load_encoder(model_spec)
        if encoder.tokenizer.get_vocab() != student.tokenizer.get_vocab():
            raise InputError(
                f"{model_spec} has another vocabulary than the student: their tokens' states "
                "cannot be compared",
                remedy="learn from a model that the student was made of",
            )
        own, other = (model[0].auto_model.config for model in (student, encoder))
        if own.hidden_size != other.hidden_size:
            raise InputError(
                f"the states of {model_spec} have {other.hidden_size} dimensions, the student's "
                f"{own.hidden_size}",
                remedy="make the student of this model, with fewer layers",
            )
        self.model = encoder.requires_grad_(False).eval()
        self.layers = uniform_map(own.num_hidden_layers, other.num_hidden_layers)

    def train(self, mode: bool = True) -> HiddenTeacher:
        return super().train(False)

    @torch.no_grad()
    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Embeddings and states of all layers, (n, L, D) each, of tokenised texts."""
        with all_states(self.model) as states:
            self.model[0](dict(features))
        return [state.float() for state in states]

    def loss(self, term: Term, student: list[Tensor], features: Mapping[str, Tensor]) -> Tensor:
        """The term's distance of the student's states from these, mean over tokens and layers."""
        mask = features["attention_mask"]  # (n, L)
        own = [state.float() for state in student]
        found = hidden_states(own, self(features), mask, layers=self.layers, **term.parameters)
        return found
