"""Batches by tokens: tokenise each distinct text once, sort by length, pad no more than needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer

Features = dict[str, np.ndarray]  # input name → (n,) of one text, or (B, L) of a batch
PADDING = 8  # lengths are multiples of it, so that a compiled graph meets few shapes


class PairTokenizer:
    """Tokenises pairs as a cross-encoder does, each distinct text once.

    The longer text of a pair is cut until both fit (`longest_first`), by the tokenizer's own
    truncation and template; only the splitting of texts into tokens is not repeated.

    Args:
        model: a cross-encoder of Sentence Transformers. If what it makes of a pair is not what its
            tokenizer's backend does, as with a chat template, `is_fast` is False and every pair is
            tokenised as a whole.
        max_length: tokens of a pair, special ones included.
    """

    def __init__(self, model: Any, max_length: int) -> None:
        self.model = model
        self.names = list(model.tokenizer.model_input_names)
        backend = getattr(model.tokenizer, "backend_tokenizer", None)
        self.is_fast = False
        if backend is not None:
            self._fast = Tokenizer.from_str(backend.to_str())  # transformers changes its own
            self._fast.no_padding()
            side = model.tokenizer.truncation_side
            self._fast.enable_truncation(max_length, strategy="longest_first", direction=side)
            probe = "a text of seven words, and more,,", "one"
            self.is_fast = _equal(self._encode_fast(*([t] for t in probe))[0], self._whole(*probe))

    def encode(self, queries: Sequence[str], documents: Sequence[str]) -> list[Features]:
        """Inputs of each pair by name, (n,) int64, without padding."""
        if self.is_fast:
            return self._encode_fast(queries, documents)
        return [self._whole(q, d) for q, d in zip(queries, documents, strict=True)]

    def _encode_fast(self, queries: Sequence[str], documents: Sequence[str]) -> list[Features]:
        texts = list(dict.fromkeys([*queries, *documents]))
        encoded = self._fast.encode_batch(texts, add_special_tokens=False)
        of = dict(zip(texts, encoded, strict=True))
        return [
            self._features(self._fast.post_process(of[q], of[d]))
            for q, d in zip(queries, documents, strict=True)
        ]

    def _whole(self, query: str, document: str) -> Features:
        return single(self.model.preprocess([[query, document]]))

    def _features(self, encoding: Encoding) -> Features:
        fields = {
            "input_ids": encoding.ids,
            "token_type_ids": encoding.type_ids,
            "attention_mask": encoding.attention_mask,
        }
        return {name: np.array(fields[name], np.int64) for name in self.names if name in fields}


def single(features: dict[str, Any]) -> Features:
    """What a model's `preprocess` made of one text: its inputs by token, without the rest."""
    width = features["input_ids"].shape
    return {
        name: values[0].cpu().numpy()
        for name, values in features.items()
        if isinstance(values, torch.Tensor) and values.shape == width
    }


def _equal(left: Features, right: Features) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def budgeted(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Rows of each batch, longest texts first: as many as `tokens` hold after padding, at least 1.

    Example:
        >>> [rows.tolist() for rows in budgeted(np.array([3, 16, 5, 1]), 16)]
        [[1], [2, 0], [3]]
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // padded_length(int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def padded_length(length: int) -> int:
    return -(-max(length, 1) // PADDING) * PADDING  # a text may have no token


def pad(rows: Sequence[Features], tokenizer: Any, longest: int | None = None) -> Features:
    """Stack the inputs of some texts, (B, L), padded on the tokenizer's side.

    Args:
        longest: most tokens that the model has positions for.
    """
    length = max(len(row["input_ids"]) for row in rows)
    width = max(length, min(padded_length(length), longest or length))
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    left = tokenizer.padding_side == "left"
    batch = {}
    for name in rows[0]:
        values = np.full((len(rows), width), fill.get(name, 0), np.int64)
        for row, features in enumerate(rows):
            own = features[name]
            values[row, width - len(own) if left else 0 :][: len(own)] = own
        batch[name] = values
    return batch


def to_tensors(batch: Features) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in batch.items()}
