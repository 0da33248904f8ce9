"""The layers of the interaction student: a small network on two vectors, pooling by attention."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from retrieval_kd.models.modules.headed import HeadedEncoder, OwnModule

CHUNK = 2**24  # numbers in a tensor of pairs, (b, M, D): 64 MB


class InteractionHead(OwnModule):
    r"""One logit from a query's and a document's vector, which are computed independently.

    - "dse": w · ReLU(W [u; v; u ⊙ v; |u − v|] + b) + c. Distilled Sentence Embedding, Barkan et al.
      2019, https://arxiv.org/abs/1908.05161.
    - "iem": w · z + c with z = ReLU(V ReLU(W [u; v] + b) + d). Interaction emulation module of
      D2LLM, Liao et al. 2024, https://arxiv.org/abs/2406.17262, for one task.

    Args:
        width: D, width of a vector.
        hidden: K, width of the hidden layers.
        form: "dse" or "iem".
    """

    config_keys: list[str] = ["width", "hidden", "form"]  # noqa: RUF012

    def __init__(self, width: int, hidden: int, form: str) -> None:
        super().__init__()
        self.width, self.hidden, self.form = width, hidden, form
        self.inner = nn.Linear((4 if form == "dse" else 2) * width, hidden)
        self.middle = nn.Linear(hidden, hidden) if form == "iem" else None
        self.outer = nn.Linear(hidden, 1)

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Unchanged: the head scores pairs, which a batch of texts is not."""
        return features

    def score(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Return the logits (B, M) of vectors (B, D) and (M, D), a few queries at a time."""
        rows = max(1, CHUNK // max(1, len(documents) * self.width))
        some = queries.split(rows)
        if len(some) == 1 or not torch.is_grad_enabled():
            return torch.cat([self._logits(part, documents) for part in some])
        # Each chunk's activations are recomputed for its gradient: memory stays that of one chunk.
        again: list[Tensor] = [
            checkpoint(self._logits, part, documents, use_reentrant=False) for part in some
        ]
        return torch.cat(again)

    def features(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the last hidden layer (…, K) for queries' and documents' vectors (…, D)."""
        # W [u; v; …] = W_u u + W_v v + …: the first two need no tensor of pairs.
        maps = self.inner.weight.split(self.width, dim=1)  # each (K, D)
        state = u @ maps[0].T + v @ maps[1].T + self.inner.bias  # (…, K)
        if self.form == "dse":
            state = state + (u * v) @ maps[2].T + (u - v).abs() @ maps[3].T
        state = state.relu()
        return state if self.middle is None else self.middle(state).relu()

    def _logits(self, queries: Tensor, documents: Tensor) -> Tensor:
        state = self.features(queries[:, None], documents[None])  # (b, M, K)
        return self.outer(state).squeeze(-1).float()  # (b, M)


class AttentionPooling(OwnModule):
    r"""LN(h + ReLU(W h + b)), h = LN(q + Attention(q, Y, Y)), of token states Y, with a learnt q.

    Pooling by multihead attention (Set Transformer, Lee et al. 2019,
    https://arxiv.org/abs/1810.00825) as in D2LLM, https://arxiv.org/abs/2406.17262.

    It starts as the layer-normalised mean of the tokens: q is zero, so that all get the same
    attention, and the value and output maps are the identity. A random start would throw away the
    quality of the encoder's vectors.
    """

    config_keys: list[str] = ["embedding_dimension", "attention_heads"]  # noqa: RUF012

    def __init__(self, embedding_dimension: int, attention_heads: int = 8) -> None:
        super().__init__()
        self.embedding_dimension, self.attention_heads = embedding_dimension, attention_heads
        width = embedding_dimension
        self.question = nn.Parameter(torch.zeros(1, 1, width))
        self.attention = nn.MultiheadAttention(width, attention_heads, batch_first=True)
        self.linear = nn.Linear(width, width)
        self.first, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        with torch.no_grad():
            self.attention.in_proj_weight[2 * width :] = torch.eye(width)
            nn.init.eye_(self.attention.out_proj.weight)
            nn.init.normal_(self.linear.weight, std=0.02)  # at zero, ReLU would stay there
            nn.init.zeros_(self.linear.bias)

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        states = features["token_embeddings"]  # (n, L, D)
        question = self.question.expand(len(states), -1, -1)  # (n, 1, D)
        absent = ~features["attention_mask"].bool()  # (n, L)
        read, _w = self.attention(
            question, states, states, key_padding_mask=absent, need_weights=False
        )
        state = self.first(question + read).squeeze(1)  # (n, D)
        features["sentence_embedding"] = self.last(state + self.linear(state).relu())
        return features

    def get_embedding_dimension(self) -> int:
        return self.embedding_dimension


class InteractionEncoder(HeadedEncoder):
    """A dense encoder with an `InteractionHead`, and perhaps `AttentionPooling`.

    With the latter its folder needs this package to load; plain `SentenceTransformer` refuses it.
    """

    student: ClassVar[str] = "interaction"
    heads_class = InteractionHead
    own_modules = (AttentionPooling,)
    heads: InteractionHead
