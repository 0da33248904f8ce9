"""Live teachers: models that score a batch during the training step, frozen or trained along.

An encoder (dense, sparse or multi-vector) scores every query with every document of the batch, as
TCT-ColBERT's teacher does (https://arxiv.org/abs/2010.11386); a cross-encoder scores each query's
own slate, as RocketQAv2's re-ranker (https://arxiv.org/abs/2110.07367). Texts are tokenised here:
a teacher's vocabulary may differ from the student's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn

from retrieval_kd.models.layers import keep_layers
from retrieval_kd.models.load import load_cross_encoder, load_multi_vector, load_retriever
from retrieval_kd.students.dense import prompts_of
from retrieval_kd.students.student import student_of

GROUP = 32  # texts or pairs scored together, sorted by length


class LiveModel(nn.Module):
    """A model that scores a batch; unless it `trains`, it is frozen, in evaluation mode."""

    def __init__(self, model: Any, *, trains: bool = False) -> None:
        super().__init__()
        self.model, self.trains = model, trains
        model.requires_grad_(trains)
        self.train()

    def train(self, mode: bool = True) -> LiveModel:
        return super().train(mode and self.trains)


class LiveEncoder(LiveModel):
    """A SentenceTransformer, SparseEncoder or MultiVectorEncoder as a live teacher."""

    def __init__(self, model: Any, *, trains: bool = False) -> None:
        super().__init__(model, trains=trains)
        self.kind = student_of(model)

    def forward(self, texts: Mapping[str, list[str]], labels: Mapping[str, Tensor]) -> Scores:
        """Return score matrices (B, M) by name, for B queries and M documents."""
        with nullcontext() if self.trains else torch.no_grad():
            queries, places = self._represent(texts["queries"], "query")
            documents, at = self._represent(texts["documents"], "document")
            rows = [[self.kind.scores(q, d) for d in documents] for q in queries]
        matrices = {}
        for name in rows[0][0]:
            joined = torch.cat([torch.cat([part[name] for part in row], 1) for row in rows])
            matrices[name] = joined[places][:, at]  # (B, M)
        return matrices

    def _represent(self, texts: Sequence[str], side: str) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Encode texts in groups of similar length; also return each text's place among them."""
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        device = next(self.model.parameters()).device
        groups = []
        for start in range(0, len(order), GROUP):
            chosen = [texts[i] for i in order[start : start + GROUP]]
            prompt = prompts_by_column(self.model).get(side)
            features = self.model.preprocess(chosen, task=side, prompt=prompt)
            groups.append(self.kind.represent(_to(features, device), side))
        places = torch.empty(len(order), dtype=torch.long, device=device)
        places[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
        return groups, places


class LiveCrossEncoder(LiveModel):
    """A CrossEncoder with one label as a live teacher: (B, M) with NaN outside a query's slate."""

    def forward(self, texts: Mapping[str, list[str]], labels: Mapping[str, Tensor]) -> Scores:
        """Return `score (B, M)`, differentiable if the model trains."""
        rows, places, groups = slate_pairs(self.model, texts, labels)
        with nullcontext() if self.trains else torch.no_grad():
            logits = [self.model(group)["scores"].float().reshape(-1) for group in groups]
        shape = (len(texts["queries"]), len(texts["documents"]))
        empty = torch.full(shape, float("nan"), device=next(self.model.parameters()).device)
        at = labels["columns"][rows, places]
        return {"score": empty.index_put((rows, at), torch.cat(logits))}  # (B, M)


Scores = dict[str, Tensor]


def open_live(
    model_spec: str,
    kind: Literal["encoder", "multi_vector", "cross_encoder"],
    *,
    layers: Sequence[int] | None = None,
    trains: bool = False,
    max_length: int | None = None,
    seed: int = 0,
) -> LiveModel:
    """Open a live teacher: in float32 if it is trained, otherwise in the machine's fast type.

    Args:
        layers: layers to keep; by default all.
        max_length: maximum number of tokens of a text (of a pair for a cross-encoder).
        seed: seed of weights that the model does not have: the new head of a cross-encoder that
            `trains`, or a dense encoder's projection of tokens.
    """
    torch.manual_seed(seed)
    dtype = torch.float32 if trains else None
    if kind == "cross_encoder":
        model: Any = load_cross_encoder(
            model_spec, max_length=max_length, dtype=dtype, new_head=trains
        )
    elif kind == "multi_vector":
        model = load_multi_vector(model_spec, max_length=max_length, dtype=dtype, seed=seed)
    else:
        model = load_retriever(model_spec, max_length=max_length, dtype=dtype)
    if layers is not None:
        keep_layers(model, list(layers))
    wrapper = LiveCrossEncoder if kind == "cross_encoder" else LiveEncoder
    return wrapper(model, trains=trains)


def slate_pairs(
    model: CrossEncoder, texts: Mapping[str, list[str]], labels: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Iterator[dict[str, Any]]]:
    """Tokenise every query with each of its own candidates, in groups of similar length.

    Returns:
        Rows and places (P,) of the pairs in the slates, and the tokenised groups in that order.
    """
    columns, mask = labels["columns"], labels["mask"]  # (B, N)
    rows, places = mask.nonzero(as_tuple=True)  # (P,)
    at = columns[rows, places]
    pairs = [
        [texts["queries"][q], texts["documents"][d]]
        for q, d in zip(rows.tolist(), at.tolist(), strict=True)
    ]
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
    device = next(model.parameters()).device
    groups = (
        _to(model.preprocess([pairs[i] for i in order[start : start + GROUP]]), device)
        for start in range(0, len(order), GROUP)
    )
    chosen = torch.tensor(order, device=rows.device)
    return rows[chosen], places[chosen], groups


def prompts_by_column(model: Any) -> dict[str, str]:
    """The prompts that `encode_query` and `encode_document` would use, by column."""
    prompts = prompts_of(model)
    default = prompts.get(model.default_prompt_name or "", "")
    names = {"query": ("query",), "document": ("document", "passage", "corpus")}
    chosen = {
        column: next((prompts[name] for name in candidates if name in prompts), default)
        for column, candidates in names.items()
    }
    return {column: prompt for column, prompt in chosen.items() if prompt}


def _to(features: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in features.items()}
