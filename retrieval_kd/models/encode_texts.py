"""Encodes documents with a dense model: tokenised once, in batches by tokens, on either backend.

Models that are more than a transformer with its tokenizer, such as routers and tables of token
vectors, are left to Sentence Transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from sentence_transformers.util import batch_to_device

from retrieval_kd.errors import InputError, log
from retrieval_kd.files import digest_text
from retrieval_kd.hardware import dtype_name
from retrieval_kd.models.batches import Features, budgeted, pad, single, to_tensors
from retrieval_kd.models.graphs import Graph, calibration_texts, chosen_backend

BATCH_TOKENS = 4_096  # on a CPU: of 1,024 to 16,384, larger is slower and smaller no faster
PLAIN = (Transformer, Pooling, Dense, Normalize)  # modules that read nothing but tokens
SENTENCE = "sentence_embedding"

# None where OpenVINO does not run the model
_GRAPHS: WeakKeyDictionary[SentenceTransformer, dict[str, Graph | None]] = WeakKeyDictionary()
_SAID: WeakSet[SentenceTransformer] = WeakSet()


def encode_document_texts(
    model: SentenceTransformer, texts: Sequence[str], prompt: str | None, digest: str | None = None
) -> np.ndarray:
    """Vectors `(len(texts), D)` as `model.encode_document` has them, in float32.

    Args:
        prompt: put before every text; by default the model's own document prompt.
        digest: identifies the model; its graph is kept under it. Without it, torch computes.

    A model that `$RETRIEVAL_KD_BACKEND` does not run is computed by torch, with a notice: the
    variable is for all models of a command, and a student may be one that needs no graph.
    """
    backend = chosen_backend() if digest else "torch"
    if prompt is None:
        prompt = document_prompt(model)
    if not _is_plain(model, prompt):
        if backend != "torch":
            _say_torch(model, backend, "it is more than a transformer, pooling and dense layers")
        size = 256 if torch.cuda.is_available() else 32
        return model.encode_document(
            list(texts), prompt=prompt, batch_size=size, show_progress_bar=False
        )
    rows = _tokenise(model, texts, prompt)
    lengths = np.array([len(row["input_ids"]) for row in rows])
    budget = 262_144 if torch.cuda.is_available() else BATCH_TOKENS
    longest = _longest(model)

    def batches(some: np.ndarray) -> Iterator[tuple[np.ndarray, Features]]:
        for own in budgeted(lengths[some], budget):
            chosen = some[own]
            yield chosen, pad([rows[row] for row in chosen], model.tokenizer, longest)

    out = np.empty((len(rows), model.get_embedding_dimension() or 0), np.float32)
    graph = _graph(model, backend, digest) if digest and backend != "torch" else None
    rest = np.arange(len(rows))
    if graph is not None:
        graph.run(batches(np.flatnonzero(lengths)), out)
        rest = np.flatnonzero(lengths == 0)  # attention to no token is NaN in OpenVINO
    with torch.inference_mode():
        for chosen, batch in batches(rest):
            vectors = model(batch_to_device(to_tensors(batch), model.device))[SENTENCE]
            out[chosen] = vectors.float().cpu().numpy()  # (rows, D)
    return out


def document_prompt(model: SentenceTransformer) -> str:
    """The prompt that `encode_document` uses by default; "" for none."""
    prompts: Any = model.prompts
    named = next((n for n in ("document", "passage", "corpus") if n in prompts), None)
    return prompts.get(named or model.default_prompt_name or "") or ""


def _say_torch(model: SentenceTransformer, backend: str, reason: str) -> None:
    """Say once that torch encodes a model's documents."""
    if model not in _SAID:
        _SAID.add(model)
        log.warning("torch encodes these documents, not the backend %s: %s", backend, reason)


def _is_plain(model: SentenceTransformer, prompt: str) -> bool:
    modules = list(model)
    if type(model) is not SentenceTransformer or not isinstance(modules[0], Transformer):
        return False
    if model.truncate_dim is not None or not all(type(m) in PLAIN for m in modules):
        return False
    if modules[0].processing_kwargs:  # such as a length of its own
        return False
    skips = any(isinstance(m, Pooling) and not m.include_prompt for m in modules)
    if (skips and prompt) or not getattr(model.tokenizer, "is_fast", False):
        return False
    probe = "a text of seven words, and more,,"
    theirs = single(model.preprocess([probe], prompt=prompt or None, task="document"))
    ours = _tokenise(model, [probe], prompt)[0]
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[k], theirs[k]) for k in ours)


def _longest(model: SentenceTransformer) -> int | None:
    length = model[0].document_length or model.max_seq_length  # type: ignore[union-attr]
    return None if length is None or length == float("inf") else int(length)  # type: ignore[arg-type]


def _tokenise(model: SentenceTransformer, texts: Sequence[str], prompt: str) -> list[Features]:
    """Inputs of each text by name, (n,) int64, without padding."""
    tokenizer: Any = model.tokenizer
    longest = _longest(model)
    encoded = tokenizer(
        [prompt + text for text in texts],
        truncation="longest_first" if longest else False,
        max_length=longest,
    )
    names = [name for name in tokenizer.model_input_names if name in encoded]
    return [
        {name: np.array(encoded[name][row], np.int64) for name in names}
        for row in range(len(texts))
    ]


def _graph(model: SentenceTransformer, backend: str, digest: str) -> Graph | None:
    """A model's graph, or None; opened once for each digest, as a model may be trained further."""
    dtype = next(model.parameters()).dtype  # which the weights are rounded to already
    parts = [digest, dtype_name(dtype)]
    if backend == "openvino-int8":  # its ranges are those of texts of this length
        parts += [str(_longest(model)), document_prompt(model)]
    key = digest_text(*parts)
    graphs = _GRAPHS.setdefault(model, {})
    if key + backend not in graphs:

        def samples() -> list[Features]:
            texts = calibration_texts()[1] if backend == "openvino-int8" else ["sparrows nest here"]
            return _tokenise(model, texts, document_prompt(model))

        try:
            graphs[key + backend] = Graph(
                lambda: copy.deepcopy(model).float(),
                SENTENCE,
                digest=key,
                backend=backend,
                dtype=dtype,
                samples=samples,
            )
        except InputError as error:
            graphs[key + backend] = None
            _say_torch(model, backend, error.problem)
    return graphs[key + backend]
