"""Parameters, operations and memory of a transformer, by its configuration alone.

    layer parameters   (2 + 2k)·h² + m·h·f
    forward            2·(layer parameters)·T + 4·layers·h·l·T + 2·v·h·T
    training           3 × forward

with hidden size h, inner size f, share of key heads k (1, or less with grouped queries), m = 2
matrices in the inner part (3 if it is gated), T tokens in texts of l tokens, and v words where a
word head reads every token (sparse models), else none. Two operations a parameter and token, and a
backward pass of twice the forward one: Kaplan et al. 2020, https://arxiv.org/abs/2001.08361,
section 2.1; their attention is causal, ours sees l tokens on both sides. Normalisations,
embeddings, softmax and the optimizer are left out: a few per cent.

Memory of a training in bytes: 16 a parameter (weights, gradients and AdamW's two moments in
float32) and 34·h·layers a token and byte of two (activations with fused attention: Korthikanti et
al. 2022, https://arxiv.org/abs/2205.05198, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from retrieval_kd.models.load import SENTENCE_CONFIG, config_of, declared

GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "modernbert",
         "olmo2", "nomic_bert", "smollm3")  # fmt: skip
STATE_BYTES = 16  # of a trained parameter
ACTIVATION_BYTES = 34  # of a token, for each layer and dimension, in 16 bits


@dataclass(frozen=True)
class Shape:
    """The sizes of a transformer that decide what it costs.

    Example:
        >>> minilm = Shape(layers=6, hidden=384, inner=1536, vocabulary=30522)
        >>> minilm.parameters, minilm.forward(tokens=1000, length=100) / 1e9
        (22337280, 22.155264)
    """

    layers: int
    hidden: int
    inner: int
    vocabulary: int
    gated: bool = False
    key_share: float = 1.0
    word_head: bool = False

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers, without embeddings."""
        attention = (2 + 2 * self.key_share) * self.hidden**2
        return round(self.layers * (attention + (2 + self.gated) * self.hidden * self.inner))

    @property
    def parameters(self) -> int:
        """Parameters of the layers and of the word embeddings."""
        return self.layer_parameters + self.vocabulary * self.hidden

    def forward(self, tokens: float, length: float) -> float:
        """Floating-point operations to read `tokens` tokens in texts of `length` tokens each."""
        of_attention = 4 * self.layers * self.hidden * length
        of_words = 2 * self.vocabulary * self.hidden if self.word_head else 0
        return (2 * self.layer_parameters + of_attention + of_words) * tokens

    def training(self, tokens: float, length: float) -> float:
        """Floating-point operations to learn from `tokens` tokens."""
        return 3 * self.forward(tokens, length)

    def training_bytes(self, tokens: float, *, bytes_per_value: int) -> float:
        """Most memory (bytes) of a training step on `tokens` tokens at once."""
        activations = ACTIVATION_BYTES / 2 * bytes_per_value * self.hidden * self.layers * tokens
        return STATE_BYTES * self.parameters + activations

    def reading_bytes(self, tokens: float, *, bytes_per_value: int) -> float:
        """Most memory (bytes) to read a batch of `tokens` tokens: weights, and one layer's work."""
        one_layer = ACTIVATION_BYTES / 2 * bytes_per_value * self.hidden * tokens
        return bytes_per_value * self.parameters + one_layer

    def keeping(self, layers: int | None) -> Shape:
        """The same with so many of its layers; None: all."""
        return self if layers is None else replace(self, layers=min(layers, self.layers))


def shape_of(model_spec: str, *, sparse: bool = False) -> Shape | None:
    """Read a model's sizes from its configuration; None for one without a transformer.

    Args:
        sparse: a word head reads every token; by default where the model was saved as sparse.
    """
    config = config_of(model_spec)
    hidden = getattr(config, "hidden_size", None)
    layers = getattr(config, "num_hidden_layers", None)
    if not hidden or not layers:
        return None
    inner = next(
        (v for n in ("intermediate_size", "hidden_dim", "d_ff") if (v := getattr(config, n, None))),
        4 * hidden,
    )
    heads = getattr(config, "num_attention_heads", None) or 1
    keys = getattr(config, "num_key_value_heads", None) or heads
    saved = declared(model_spec, SENTENCE_CONFIG).get("model_type")
    return Shape(
        layers=layers,
        hidden=hidden,
        inner=inner,
        vocabulary=getattr(config, "vocab_size", 0) or 0,
        gated=getattr(config, "model_type", "") in GATED,
        key_share=keys / heads,
        word_head=sparse or saved == "SparseEncoder",
    )
