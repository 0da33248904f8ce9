"""A weight for each of a text's own tokens (M3), as a vector over the vocabulary.

This file is copied beside a saved model, which then loads without the package that made it: keep it
free of imports other than torch and Sentence Transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn

START = 0.3  # weight of every token at first; a dozen shared words then score about 1


class LexicalWeights(Module):
    r"""w_t = max over the places i of token t of ReLU(w · h_i + b); all other words are 0.

    M3-Embedding, Chen et al. 2024, https://arxiv.org/abs/2402.03216, "Lexical Retrieval". A text
    has only its own words, so this costs nearly nothing beside the encoder. At first all tokens
    have the same weight: the score is the number of words that both texts share, times 0.09.

    Args:
        width: width of a token's state.
        vocabulary: number of tokens in the vocabulary.
        ignored: IDs of tokens without a weight: the tokenizer's special ones.
    """

    config_keys: list[str] = ["width", "vocabulary", "ignored"]  # noqa: RUF012

    def __init__(self, width: int, vocabulary: int, ignored: Sequence[int] = ()) -> None:
        super().__init__()
        self.width, self.vocabulary, self.ignored = width, vocabulary, list(ignored)
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, START)

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add `sentence_embedding (n, V)` to `token_embeddings`, `input_ids`, `attention_mask`."""
        ids = features["input_ids"]  # (n, L)
        weights = self.linear(features["token_embeddings"]).squeeze(-1).relu().float()  # (n, L)
        special = torch.isin(ids, torch.tensor(self.ignored, dtype=ids.dtype, device=ids.device))
        weights = weights * (features["attention_mask"].bool() & ~special)
        none = weights.new_zeros(len(ids), self.vocabulary)
        features["sentence_embedding"] = none.scatter_reduce(1, ids, weights, "amax")  # (n, V)
        return features

    def get_embedding_dimension(self) -> int:
        return self.vocabulary

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **_: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **more: Any) -> Any:
        names = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        where = {name: more[name] for name in names if name in more}
        config = cls.load_config(model_name_or_path, **where)
        return cls.load_torch_weights(model_name_or_path, model=cls(**config), **where)
