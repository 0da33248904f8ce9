"""Training on several devices (`torchrun`): whose documents a query sees, whose gradients count.

Each process encodes its own share of a batch. Representations of documents are then gathered with
their gradient, so that an objective over the batch sees every device's documents, as on one device.
Gradients are averaged here rather than by `DistributedDataParallel`, which knows the student alone:
projections and live teachers are trained by the same step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn
from accelerate import PartialState
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.students.student import Representations


def processes() -> int:
    """How many processes train together; one without `torchrun`, whose group is joined here."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=not torch.cuda.is_available())
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return processes() == 1 or dist.get_rank() == 0


def wait_for_all() -> None:
    """Go on when every process is here."""
    if processes() > 1:
        dist.barrier()


def share_of(batch: int) -> int:
    """Each process's part of a batch, so that one configuration is one training anywhere.

    Raises:
        InputError: the batch cannot be divided evenly.
    """
    if batch % processes():
        raise InputError(
            f"{batch} queries cannot be shared evenly by {processes()} processes",
            remedy=f"make train.batch_queries a multiple of {processes()}",
        )
    return batch // processes()


class SharedTrainer:
    """Sentence Transformers' trainer with our own synchronisation; its loss keeps its models.

    The model card is left empty: a training's rows are pool numbers, not texts.
    """

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        return None

    def override_model_in_loss(self, loss: nn.Module, model: nn.Module) -> nn.Module:
        return loss  # else a live teacher, too, would be replaced by the wrapped student

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        value: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        average_gradients(self.loss)  # type: ignore[attr-defined]
        return value


def average_gradients(loss: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, in one exchange."""
    if processes() == 1:
        return
    trained = [p for p in loss.parameters() if p.requires_grad]
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float() for p in trained]
    )
    dist.all_reduce(flat)
    flat /= processes()
    parts = flat.split([p.numel() for p in trained])
    for parameter, mean in zip(trained, parts, strict=True):
        parameter.grad = mean.reshape(parameter.shape).to(parameter.dtype)


@dataclass(frozen=True)
class Gathered:
    """The batch of all processes as this one sees it: its own queries, everybody's documents."""

    groups: list[Representations]  # its own first
    labels: dict[str, Any]


def gather(groups: Sequence[Representations], labels: Mapping[str, Any]) -> Gathered:
    """Add the other processes' documents to this one's.

    Their targets are looked up in the queries' pools. A document that several processes brought
    counts once.
    """
    shapes: list[Any] = [None] * processes()
    told = [
        {name: (tuple(value.shape), value.dtype) for name, value in group.items()}
        for group in groups
    ]
    dist.all_gather_object(shapes, told)
    others: list[list[Representations]] = [
        [{} for _ in shapes[rank]] if rank != dist.get_rank() else [] for rank in range(len(shapes))
    ]
    for number in range(max(map(len, shapes))):
        for name in shapes[0][0]:
            wanted = [rank[number][name] if number < len(rank) else None for rank in shapes]
            mine = groups[number][name] if number < len(groups) else None
            for rank, value in enumerate(_exchange(mine, wanted)):
                if rank != dist.get_rank() and value is not None:
                    others[rank][number][name] = value

    listed: list[Any] = [None] * processes()
    texts = labels.get("texts", {}).get("documents")
    own = labels["positions"].cpu()
    dist.all_gather_object(listed, (own.tolist(), texts))
    there = [entry for rank, entry in enumerate(listed) if rank != dist.get_rank()]
    positions = torch.cat([own, *(torch.tensor(at, dtype=own.dtype) for at, _ in there)])  # (M,)
    known = labels["known"].targets(positions.numpy())
    known["batch_mask"] &= first_of_each(positions)  # (B, M)
    device = labels["columns"].device
    merged = {**labels, **{name: value.to(device) for name, value in known.items()}}
    if texts is not None:
        documents = [text for _, more in there for text in more]
        merged["texts"] = {**labels["texts"], "documents": [*texts, *documents]}
    return Gathered([*groups, *(group for rank in others for group in rank)], merged)


def first_of_each(positions: Tensor) -> Tensor:
    """Which entries (M,) are the first of their value.

    Example:
        >>> first_of_each(torch.tensor([5, 7, 5])).tolist()
        [True, True, False]
    """
    distinct, inverse = torch.unique(positions, return_inverse=True)
    order = torch.arange(len(positions))
    first = torch.full((len(distinct),), len(positions)).scatter_reduce(0, inverse, order, "amin")
    return first[inverse] == order


def _exchange(mine: Tensor | None, wanted: Sequence[Any]) -> list[Tensor | None]:
    """Every process's tensor, of whatever shape; floats with their gradient."""
    sizes = [torch.Size(entry[0]).numel() if entry else 0 for entry in wanted]
    dtype = next(entry[1] for entry in wanted if entry)
    if dtype == torch.bool:  # which not every backend exchanges
        numbers = None if mine is None else mine.to(torch.uint8)
        as_numbers = [(entry[0], torch.uint8) if entry else None for entry in wanted]
        return [None if part is None else part.bool() for part in _exchange(numbers, as_numbers)]
    flat = torch.zeros(max(sizes), dtype=dtype) if mine is None else mine.reshape(-1)
    device = _device()
    flat = nn.functional.pad(flat.to(device), (0, max(sizes) - flat.numel()))  # (largest,)
    if dtype.is_floating_point:
        flat = flat if flat.requires_grad or not torch.is_grad_enabled() else flat.requires_grad_()
        found = list(torch.distributed.nn.functional.all_gather(flat))
    else:
        found = [torch.empty_like(flat) for _ in wanted]
        dist.all_gather(found, flat)
    return [
        part[:size].reshape(entry[0]) if entry else None
        for part, size, entry in zip(found, sizes, wanted, strict=True)
    ]


def _device() -> torch.device:
    """Where this process's tensors are exchanged."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
