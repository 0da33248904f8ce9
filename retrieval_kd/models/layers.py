"""The layers of a transformer: early exits, students with fewer layers, digests of weights."""

from __future__ import annotations

import hashlib
import tempfile
from typing import Any

import torch
from torch import nn

from retrieval_kd.errors import InputError


def check_exit(layers: int, depth: int, model_spec: str) -> None:
    """Refuse an early exit that a model of `depth` layers does not have."""
    if not 1 <= layers <= depth:
        raise InputError(
            f"this model has no exit after layer {layers}: it has {depth} layers",
            id=model_spec,
            remedy="leave ?layers= out, or name a layer it has",
        )


def keep_layers(model: Any, layers: list[int]) -> None:
    """Keep only `layers` of the model's transformer, in this order. Changes the model in place."""
    config = transformer_of(model).config
    check_layers(layers, config.num_hidden_layers)
    parent, name = layer_stack(model)
    stack = getattr(parent, name)
    setattr(parent, name, nn.ModuleList([stack[index] for index in layers]))
    config.num_hidden_layers = len(layers)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in layers]


def check_layers(layers: list[int], count: int) -> None:
    """Refuse layers that a model with `count` layers does not have, and one named twice."""
    wrong = [index for index in layers if not 0 <= index < count]
    if wrong or not layers or len(set(layers)) < len(layers):
        raise InputError(
            f"the student cannot keep layers {layers} of a model with {count} layers",
            remedy=f"choose from 0 to {count - 1}, each once",
        )


def transformer_of(model: Any) -> Any:
    """Return the transformer that a model begins with."""
    transformer = getattr(model[0], "auto_model", None)
    if transformer is None:
        raise InputError(
            f"this model begins with a {type(model[0]).__name__}: it has no transformer layers",
            remedy="leave the layers out, or give a model with a transformer",
        )
    return transformer


def check_survives_saving(model: Any, layers: list[int]) -> None:
    """Refuse layers with which a saved model loads other weights.

    Some architectures build their first layer differently, so weights would be dropped on loading.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder, safe_serialization=True)
        loaded = type(model)(folder, device="cpu", model_kwargs={"dtype": torch.float32})
    if weights_digest(loaded) != weights_digest(model):
        raise InputError(
            f"with layers {layers} this architecture does not load as it was saved",
            remedy="keep its first layer too",
        )


def layer_stack(model: Any) -> tuple[nn.Module, str]:
    """Find the list of the transformer's layers. Returns its parent module and its name there."""
    transformer = transformer_of(model)
    count = transformer.config.num_hidden_layers
    stacks = [
        (parent, name)
        for parent in transformer.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if len(stacks) != 1:
        raise InputError(
            f"found {len(stacks)} stacks of {count} layers in {type(transformer).__name__}",
            remedy="make the student by hand, save it, and give its folder without `layers`",
        )
    return stacks[0]


def weights_digest(model: nn.Module) -> str:
    """Digest a model's weights in memory and their names, as 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        state.update(name.encode())
        state.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return state.hexdigest()
