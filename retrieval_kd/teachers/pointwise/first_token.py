"""A cross-encoder's last layer computed for the first token alone, the only one the head reads.

In the last layer every token must still be attended to, but only the first token's output is used,
so the queries, the output projection and the feed-forward part are not computed for the others: 10
of 12 hidden × hidden products of one layer. The logits stay the same up to rounding.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

# Their classification heads read position 0, and their layers have the structure of BERT's.
FAMILIES = ("Bert", "Roberta", "XLMRoberta", "Electra", "Camembert")


def shorten_last_layer(classifier: nn.Module) -> bool:
    """Make the last layer compute the first token only; return whether the model allows it.

    Changes the model in place, for inference only: attention dropout is not applied.
    """
    layer = _last_layer(classifier)
    if layer is None:
        return False
    layer.attention = FirstTokenAttention(layer.attention)
    return True


class FirstTokenAttention(nn.Module):
    """BERT's attention block with one query per text, position 0."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.self, self.output = attention.self, attention.output

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """Hidden states (B, L, H) → (B, 1, H)."""
        first = hidden_states[:, :1]  # (B, 1, H)
        query = self._heads(self.self.query(first))  # (B, h, 1, H/h)
        key = self._heads(self.self.key(hidden_states))  # (B, h, L, H/h)
        value = self._heads(self.self.value(hidden_states))  # (B, h, L, H/h)
        mask = None if attention_mask is None else attention_mask[:, :, :1]  # (B, 1, 1, L)
        seen = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(seen.transpose(1, 2).flatten(2), first), None

    def _heads(self, states: Tensor) -> Tensor:
        shape = (*states.shape[:-1], -1, self.self.attention_head_size)
        return states.view(shape).transpose(1, 2)


def _last_layer(classifier: nn.Module) -> Any:
    """The last layer of a classifier of one of the `FAMILIES`, if it has the expected structure."""
    name = type(classifier).__name__
    if name not in {f"{family}ForSequenceClassification" for family in FAMILIES}:
        return None
    config: Any = classifier.config
    body = getattr(classifier, str(classifier.base_model_prefix), None)
    encoder = getattr(body, "encoder", None)
    layers = getattr(encoder, "layer", None)
    absolute = getattr(config, "position_embedding_type", None) in (None, "absolute")
    # masks of other attention implementations are not tensors (B, 1, ·, L)
    plain = str(config._attn_implementation) in ("sdpa", "eager")
    if not layers or config.is_decoder or not absolute or not plain:
        return None
    parts = getattr(layers[-1].attention, "self", None)
    fits = all(isinstance(getattr(parts, n, None), nn.Linear) for n in ("query", "key", "value"))
    return layers[-1] if fits else None
