"""Training on several devices (`torchrun`): sharing documents, and averaging gradients.

Each process encodes its own share of a batch. Representations of documents are then gathered with
their gradient, so that an objective over the batch sees every device's documents, as on one device.
Gradients are averaged here rather than by `DistributedDataParallel`, which knows the student alone:
projections and live teachers are trained by the same step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn
from accelerate import PartialState
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.students.dense import Representations


def processes() -> int:
    """Number of processes that train together: 1 without `torchrun`, whose group is joined here."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=not torch.cuda.is_available())
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes the files that are written once."""
    return processes() == 1 or dist.get_rank() == 0


def wait_for_all() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        dist.barrier()


def share_of(batch: int) -> int:
    """Number of a batch's queries per process; one configuration is the same training anywhere."""
    if batch % processes():
        raise InputError(
            f"{batch} queries cannot be shared evenly by {processes()} processes",
            remedy=f"make train.batch_queries a multiple of {processes()}",
        )
    return batch // processes()


class SharedTrainer:
    """A mixin for Sentence Transformers' trainers that synchronises gradients itself.

    The trainer's own model card is left out, because the rows are pool numbers and not texts.
    """

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        return None

    def override_model_in_loss(self, loss: nn.Module, model: nn.Module) -> nn.Module:
        return loss  # otherwise live teachers too would be replaced by the wrapped student

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        value: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        average_gradients(self.loss)  # type: ignore[attr-defined]
        return value


def average_gradients(loss: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, in one exchange.

    A parameter without a gradient in all processes keeps none, so that the optimizer does not
    change it, by weight decay either.
    """
    if processes() == 1:
        return
    trained = [p for p in loss.parameters() if p.requires_grad]
    reached = torch.tensor([p.grad is not None for p in trained]).to(trained[0])
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float() for p in trained]
        + [reached.float()]
    )
    dist.all_reduce(flat)
    *means, counts = (flat / processes()).split([*(p.numel() for p in trained), len(trained)])
    for parameter, mean, count in zip(trained, means, counts.tolist(), strict=True):
        if count:
            parameter.grad = mean.reshape(parameter.shape).to(parameter.dtype)


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean over the processes, without gradient. All must call it at the same time."""
    if processes() == 1:
        return values
    total = values.detach().to(_device(), torch.float32, copy=True)
    dist.all_reduce(total)
    return (total / processes()).to(values)


def gather(
    groups: Sequence[Representations], labels: Mapping[str, Any]
) -> tuple[list[Representations], dict[str, Any]]:
    """Add the other processes' documents to those of this process, which stay first.

    Their targets are looked up in the queries' pools. A document that several processes have counts
    once.
    """
    shapes: list[Any] = [None] * processes()
    own_shapes = [
        {name: (tuple(value.shape), value.dtype) for name, value in group.items()}
        for group in groups
    ]
    dist.all_gather_object(shapes, own_shapes)
    others: list[list[Representations]] = [[{} for _ in rank] for rank in shapes]
    for dtype in sorted({dtype for _, dtype in own_shapes[0].values()}, key=str):
        # All groups are exchanged at once. With one exchange per group, a process with more groups
        # than the others would not use the result of the last one and miss its backward pass.
        own = [v.reshape(-1) for group in groups for v in group.values() if v.dtype == dtype]
        places = [
            [
                (number, name, torch.Size(shape))
                for number, group in enumerate(rank)
                for name, (shape, kind) in group.items()
                if kind == dtype
            ]
            for rank in shapes
        ]
        sizes = [[shape.numel() for *_, shape in rank] for rank in places]
        flats = _exchange(torch.cat(own), [sum(rank) for rank in sizes])
        for rank, flat in enumerate(flats):
            parts = flat.split(sizes[rank])
            for (number, name, shape), part in zip(places[rank], parts, strict=True):
                others[rank][number][name] = part.reshape(shape)
    del others[dist.get_rank()]

    listed: list[Any] = [None] * processes()
    texts = labels.get("texts", {}).get("documents")
    mine = labels["positions"].cpu()
    dist.all_gather_object(listed, (mine.tolist(), texts))
    there = [entry for rank, entry in enumerate(listed) if rank != dist.get_rank()]
    positions = torch.cat([mine, *(torch.tensor(at, dtype=mine.dtype) for at, _ in there)])  # (M,)
    targets = labels["pool_targets"].of(positions.numpy())
    first = torch.zeros(len(positions), dtype=torch.bool)  # whether it is the first of its value
    first[np.unique(positions.numpy(), return_index=True)[1]] = True
    targets["batch_mask"] &= first  # (B, M)
    device = labels["columns"].device
    merged = {**labels, **{name: value.to(device) for name, value in targets.items()}}
    if texts is not None:
        documents = [text for _, more in there for text in more]
        merged["texts"] = {**labels["texts"], "documents": [*texts, *documents]}
    return [*groups, *(group for rank in others for group in rank)], merged


def _exchange(mine: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Gather each process's numbers (n,), with its own n; floats keep their gradient."""
    if mine.dtype == torch.bool:  # not every backend exchanges booleans
        return [part.bool() for part in _exchange(mine.to(torch.uint8), sizes)]
    flat = nn.functional.pad(mine.to(_device()), (0, max(sizes) - mine.numel()))  # (largest,)
    if flat.dtype.is_floating_point:
        parts = list(torch.distributed.nn.functional.all_gather(flat))
    else:
        parts = [torch.empty_like(flat) for _ in sizes]
        dist.all_gather(parts, flat)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def _device() -> torch.device:
    """The device that this process's tensors are exchanged on."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
