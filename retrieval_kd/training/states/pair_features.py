"""The state of a pair that a cross-encoder computes its logit from, for `feature_imitation`.

A student with an interaction head reads two vectors, its teacher both texts. The features of a
query's candidates are trained to be as similar to each other for the student as for the teacher
(D2LLM, Liao et al. 2024, https://arxiv.org/abs/2406.17262, "Feature Imitation").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models.load import load_cross_encoder
from retrieval_kd.models.modules.interaction import InteractionEncoder
from retrieval_kd.training.live_models import at_most, slate_pairs


class PairTeacher(nn.Module):
    """A frozen cross-encoder that returns the states its logits are computed from.

    Args:
        model_spec: the MODEL, a cross-encoder with one logit.
        student: the model to train, with an interaction head.

    Raises:
        InputError: the student has no such head, or the model no such state.
    """

    def __init__(self, model_spec: str, student: Any) -> None:
        super().__init__()
        if not isinstance(student, InteractionEncoder):
            raise InputError(
                "feature_imitation compares what an interaction head makes of two vectors, and "
                "this student has none",
                remedy="use kind: interaction, or an objective on scores",
            )
        self.model = load_cross_encoder(model_spec).requires_grad_(False).eval()
        with torch.no_grad(), before_answer(self.model) as states:
            texts = {"queries": ["a query"], "documents": ["a document"]}
            only = torch.zeros(1, 1, dtype=torch.long)
            *_, groups = slate_pairs(self.model, texts, {"columns": only, "mask": only == 0})
            self.model(next(groups))
        if [state.dim() for state in states] != [2]:
            raise InputError(
                f"{model_spec} does not make its score of one state for each pair",
                remedy="name a cross-encoder with a classification head, such as BERT's",
            )

    def train(self, mode: bool = True) -> PairTeacher:
        return super().train(False)

    @torch.no_grad()
    def forward(
        self, texts: Mapping[str, list[str]], labels: Mapping[str, Tensor], length: int
    ) -> Tensor:
        """Return states (B, N, E) of each query's slate; zeros where a slate is shorter.

        Args:
            length: maximum number of tokens of a pair.
        """
        with at_most(self.model, length), before_answer(self.model) as states:
            rows, places, groups = slate_pairs(self.model, texts, labels)
            for group in groups:
                self.model(group)
        flat = torch.cat(states).float()  # (P, E)
        empty = flat.new_zeros(*labels["mask"].shape, flat.shape[-1])  # (B, N, E)
        return empty.index_put((rows, places), flat)


@contextmanager
def before_answer(model: Any) -> Iterator[list[Tensor]]:
    """Capture the input (n, E) of a cross-encoder's last linear layer in a forward pass.

    Raises:
        InputError: no linear layer has one output.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    if not layers:
        raise InputError(
            "this cross-encoder's score is not made by a linear layer from a state",
            remedy="name a cross-encoder with a classification head, such as BERT's",
        )
    states: list[Tensor] = []
    handle = layers[-1].register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))
    try:
        yield states
    finally:
        handle.remove()
