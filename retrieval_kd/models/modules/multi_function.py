"""The heads of the multi-function student: lexical weights and a vector per token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor, nn

from retrieval_kd.models.modules.headed import HeadedEncoder, OwnModule
from retrieval_kd.models.modules.lexical_weights import LexicalWeights

TOKENS = "token_embeddings"


class MultiFunctionHeads(OwnModule):
    """Two sequences of modules on the encoder's token states.

    Behind the encoder's transformer each is a model of its own: `sparse` a SparseEncoder, `multi` a
    MultiVectorEncoder.

    Args:
        width: width of a token's state.
        dimensions: width of a token's vector in `multi`.
        lexical: "own": weights of the text's own tokens (M3). "vocabulary": weights of all words,
            log(1 + ReLU(·)) and the maximum over tokens (SPLADE).
        vocabulary: number of tokens in the vocabulary.
        ignored: IDs of tokens without a weight.
        skipped: words without a vector.
        weights: weights of the parts in the integrated score.
        main: the part that is the student's score: "dense" or "integrated".
    """

    config_keys: list[str] = [  # noqa: RUF012
        "width",
        "dimensions",
        "lexical",
        "vocabulary",
        "ignored",
        "skipped",
        "weights",
        "main",
    ]

    def __init__(
        self,
        width: int,
        dimensions: int,
        lexical: str,
        vocabulary: int,
        ignored: Sequence[int],
        skipped: Sequence[str],
        weights: Mapping[str, float],
        main: str,
    ) -> None:
        super().__init__()
        self.width, self.dimensions, self.lexical = width, dimensions, lexical
        self.vocabulary, self.ignored, self.skipped = vocabulary, list(ignored), list(skipped)
        self.weights, self.main = dict(weights), main
        sparse: list[nn.Module] = (
            [LexicalWeights(width, vocabulary, ignored)]
            if lexical == "own"
            else [
                Dense(width, vocabulary, activation_function=None, module_input_name=TOKENS),
                SpladePooling("max", embedding_dimension=vocabulary),
            ]
        )
        self.sparse = nn.ModuleList(sparse)
        self.multi = nn.ModuleList(
            [
                Dense(width, dimensions, False, None, module_input_name=TOKENS),
                MultiVectorMask(self.skipped, skiplist_tasks=["query", "document"]),
                Normalize(module_input_name=TOKENS),
            ]
        )

    def on_model_ready(self, model: Any) -> None:
        for module in [*self.sparse, *self.multi]:
            module.on_model_ready(model)  # type: ignore[operator]

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Unchanged: the encoder's embeddings do not pass through the heads."""
        return features

    def read(self, line: str, features: dict[str, Tensor], side: str) -> dict[str, Tensor]:
        """Pass states, IDs and mask of a "query" or "document" through `sparse` or `multi`."""
        state = dict(features)
        for module in getattr(self, line):
            task = {"task": side} if "task" in module.forward_kwargs else {}
            state = module(state, **task)
        return state


class MultiFunctionEncoder(HeadedEncoder):
    """A dense encoder with `MultiFunctionHeads`."""

    student: ClassVar[str] = "multi_function"
    heads_class = MultiFunctionHeads
    heads: MultiFunctionHeads
