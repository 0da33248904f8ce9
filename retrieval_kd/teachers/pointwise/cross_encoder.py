"""A cross-encoder as teacher: one raw logit per (query, document) pair, in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text, read_json
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.models.batches import Features, PairTokenizer, budgeted, pad, to_tensors
from retrieval_kd.models.graphs import Graph, calibration_texts, chosen_backend, precision
from retrieval_kd.models.layers import check_exit, keep_layers
from retrieval_kd.models.load import (
    SENTENCE_CONFIG,
    declared,
    load_cross_encoder,
    model_digest,
    pair_length,
    resolve_model,
)
from retrieval_kd.store.key import TeacherKey


class CrossEncoderTeacher:
    """Scores pairs with any one-logit sequence classifier, in batches of similar length.

    The raw logit is stored. The checkpoint's activation (a sigmoid, by Sentence Transformers'
    default) is noted in the key and never applied: it would limit all margins to 1. The model is
    loaded at the first call, so nothing is loaded where all pairs are stored.

    Args:
        max_length: tokens of query and document together, 256 by default; in a longer pair the
            longer text is cut.
        batch_tokens: padded tokens in a batch. Larger is not faster on a CPU.
        backend: "torch", or OpenVINO's graph on a CPU: "openvino" or "openvino-int8".
        layers: score from this layer, counted from 1, with the classifier that reads the last one;
            for models trained for early exit. The layers above are not computed.
    """

    def __init__(
        self,
        model_spec: str,
        *,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        dtype: torch.dtype | None = None,
        prompt: str = "",
        layers: int | None = None,
        backend: str | None = None,
    ) -> None:
        self.model_spec, self.prompt, self.layers = model_spec, prompt, layers
        self.backend = chosen_backend(backend)
        self.max_length = pair_length(model_spec, max_length)
        self.dtype = dtype or fast_dtype()
        self.batch_tokens = batch_tokens or (262_144 if torch.cuda.is_available() else 4_096)
        check_has_head(model_spec)
        digest = model_digest(model_spec)
        self._digest = digest if layers is None else digest_text(digest, f"layers {layers}")
        self._model: CrossEncoder | None = None
        self._tokenizer: PairTokenizer | None = None
        self._graph: Graph | None = None

    @property
    def key(self) -> TeacherKey:
        """Everything that changes a score."""
        return TeacherKey(
            kind="pointwise",
            model=self.model_spec,
            digest=self._digest,
            prompt=self.prompt,
            max_length=self.max_length,
            dtype=precision(self.backend, self.dtype),
            activation=declared_activation(self.model_spec),
        )

    @property
    def model(self) -> CrossEncoder:
        if self._model is None:
            dtype = self.dtype if self.backend == "torch" else torch.float32
            self._model = load_cross_encoder(
                self.model_spec, max_length=self.max_length, dtype=dtype
            )
            classifier: Any = self._model[0].auto_model
            if self.layers is not None:
                depth = classifier.config.num_hidden_layers
                check_exit(self.layers, depth, self.model_spec)
                keep_layers(self._model, list(range(self.layers)))
            shorten_last_layer(classifier)
        return self._model

    @property
    def tokenizer(self) -> PairTokenizer:
        if self._tokenizer is None:
            self._tokenizer = PairTokenizer(self.model, self.max_length)
        return self._tokenizer

    def score(self, queries: Sequence[str], documents: Sequence[Document]) -> np.ndarray:
        """Raw logits (n,) float32 of n pairs, in their order."""
        if not queries:
            return np.zeros(0, dtype=np.float32)
        left, right = [self.prompt + q for q in queries], [d.full for d in documents]
        pairs = self.tokenizer.encode(left, right)
        lengths = np.array([len(pair["input_ids"]) for pair in pairs])
        batches = budgeted(lengths, self.batch_tokens)
        scores = np.empty(len(pairs), dtype=np.float32)
        if self.backend != "torch":
            padded = ((rows, self._pad([pairs[row] for row in rows])) for rows in batches)
            return self.graph.run(padded, scores)
        with torch.inference_mode():
            for rows in batches:
                if self.tokenizer.is_fast:
                    inputs: Any = to_tensors(self._pad([pairs[row] for row in rows]))
                else:
                    inputs = self.model.preprocess([[left[row], right[row]] for row in rows])
                logits = self.model(batch_to_device(inputs, self.model.device))["scores"]
                scores[rows] = logits.float().reshape(-1).cpu().numpy()  # (rows,)
        return scores

    def _pad(self, pairs: Sequence[Features]) -> Features:
        return pad(pairs, self.model.tokenizer, self.max_length)

    @property
    def graph(self) -> Graph:
        """The model in OpenVINO, exported at the first call."""
        if self._graph is None:
            if not self.tokenizer.is_fast:
                raise InputError(
                    f"the backend {self.backend} does not run this model: its inputs are not those "
                    "of its tokenizer alone",
                    file=self.model_spec,
                    remedy="score with ?backend=torch",
                )
            digest = self._digest
            if self.backend == "openvino-int8":  # its ranges are those of pairs of this length
                digest = digest_text(digest, str(self.max_length))
            self._graph = Graph(
                lambda: self.model,
                "scores",
                digest=digest,
                backend=self.backend,
                dtype=self.dtype,
                samples=self._samples,
            )
        return self._graph

    def _samples(self) -> list[Features]:
        """Pairs to find the ranges of int8 with; to trace a model, one is enough."""
        if self.backend == "openvino-int8":
            return self.tokenizer.encode(*calibration_texts())
        return self.tokenizer.encode(["which birds nest here"], ["sparrows and swallows nest"])


def check_has_head(model_spec: str) -> None:
    """Refuse an encoder without a head, before it is loaded."""
    config = declared(model_spec)
    if not config:
        return
    architectures = config.get("architectures") or []
    kind = declared(model_spec, SENTENCE_CONFIG).get("model_type")
    if kind != "CrossEncoder" and not any(
        "SequenceClassification" in name for name in architectures
    ):
        language = any(
            "CausalLM" in name or "ConditionalGeneration" in name for name in architectures
        )
        raise InputError(
            f"this is not a cross-encoder but {', '.join(architectures) or 'something else'}",
            file=model_spec,
            remedy="ask it as yesno:MODEL, pairwise:MODEL or listwise:MODEL"
            if language
            else "make one of it with `rkd fit-teacher`, or score with dense:MODEL",
        )
    labels = len(config.get("id2label") or "ab")  # transformers writes no names of two labels
    labels = int(config.get("num_labels") or labels)
    if labels > 1 and "SequenceClassification" in str(architectures):
        raise InputError(
            f"a teacher returns one logit per pair, but this classifier has {labels} labels",
            file=model_spec,
            remedy="give a cross-encoder with one label, or make one with `rkd fit-teacher`",
        )


def declared_activation(model_spec: str) -> str:
    """The activation that a local checkpoint declares: by default a sigmoid, as in Sentence
    Transformers. Empty for a model on the hub, whose files are not here yet."""
    ref = resolve_model(model_spec)
    if not ref.is_local:
        return ""
    config = Path(ref.location) / "config.json"
    declared = read_json(config) if config.exists() else {}
    activation = declared.get("sentence_transformers", {}).get("activation_fn")
    return str(activation or declared.get("sbert_ce_default_activation_function") or "Sigmoid")


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
