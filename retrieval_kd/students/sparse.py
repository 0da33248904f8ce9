"""The sparse student: one weight per word of the vocabulary (SPLADE, https://arxiv.org/abs/2107.05720)."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from sentence_transformers.util import load_file_path, select_max_active_dims
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM
from transformers.utils import logging

from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json
from retrieval_kd.models.layers import check_survives_saving, keep_layers
from retrieval_kd.models.load import ModelRef, load_encoder, resolve_model
from retrieval_kd.students.dense import Representations, prompts_of
from retrieval_kd.students.inference_free import query_table

SHIFT = 4.0  # GELU(h + 4) = h + 4 within 0.05 for h > −2
ACTIVE = 3  # words that a token activates at the start
SAMPLE = 256  # words of the vocabulary that the start is fitted to


def make_sparse(
    model_spec: str, layers: Sequence[int] | None = None, *, max_length: int | None = None
) -> SparseEncoder:
    """Make a float32 SPLADE student: an encoder with a masked language model's head, max-pooled.

    An encoder without such a head gets one tied to its input embeddings, see `start_head`.

    Raises:
        InputError: the architecture has no masked language model.
    """
    encoder = load_encoder(model_spec, max_length=max_length, dtype=torch.float32)
    ref = resolve_model(model_spec)
    try:
        with _quiet():
            mlm, info = AutoModelForMaskedLM.from_pretrained(
                ref.location,
                revision=ref.revision,
                subfolder=_folder_of_transformer(ref),
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError) as error:
        raise InputError(
            f"no masked language model can be made from {model_spec}: {error}",
            remedy="make a dense or multi_vector student from it",
        ) from error
    transformer = _as_module(mlm, encoder.tokenizer)
    if layers is not None:
        keep_layers([transformer], list(layers))
    if info["missing_keys"]:
        start_head(transformer.auto_model, info["missing_keys"])
        fit_threshold(transformer)
    transformer.max_seq_length = encoder.max_seq_length
    made = SparseEncoder(
        modules=[transformer, SpladePooling("max", embedding_dimension=mlm.config.vocab_size)],
        device=str(encoder.device),
        prompts=prompts_of(encoder),
        similarity_fn_name="dot",
    ).eval()
    if layers is not None:
        check_survives_saving(made, list(layers))
    return made


def start_head(mlm: Any, missing: Collection[str]) -> None:
    """Initialise the head's missing weights so that a token's state predicts its own word.

    The linear map becomes the identity, the normalisation plain, the decoder the input embeddings.
    A random map would throw away what the encoder's states share with the embeddings, to which they
    add residuals. The bias of the linear map shifts states to where the activation behind it is
    nearly linear, and the normalisation removes the shift again: without it half of every state
    would be cut off at zero.
    """
    for name in sorted({key.rpartition(".")[0] for key in missing}):
        module = mlm.get_submodule(name)
        if isinstance(module, nn.Linear) and module.in_features == module.out_features:
            nn.init.eye_(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, SHIFT)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    mlm.config.tie_word_embeddings = True
    mlm.tie_weights()
    bias = mlm.get_output_embeddings().bias
    if bias is not None:
        nn.init.zeros_(bias)


@torch.no_grad()
def fit_threshold(transformer: Any) -> None:
    """Lower the decoder's bias until a token activates `ACTIVE` words on average.

    Products of states and embeddings are rarely far below zero: without a threshold every text
    starts with nearly every word, and the few that distinguish texts are lost among them. The bias
    is fitted to words of the vocabulary, each encoded alone.
    """
    decoder = transformer.auto_model.get_output_embeddings()
    if decoder.bias is None:
        return
    tokenizer = transformer.tokenizer
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 2)
    chosen = words[:: max(1, len(words) // SAMPLE)][:SAMPLE]
    features = tokenizer(chosen, padding=True, return_tensors="pt")
    special = set(tokenizer.all_special_ids)
    own = torch.tensor([[int(i) not in special for i in row] for row in features["input_ids"]])
    device = transformer.auto_model.device
    logits = transformer.auto_model.eval()(**features.to(device)).logits  # (n, L, V)
    best = logits[own.to(device)].topk(ACTIVE + 1, dim=-1).values  # (tokens, k)
    nn.init.constant_(decoder.bias, -float(best[:, -1].mean()))


def _as_module(mlm: Any, tokenizer: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        mlm.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return Transformer(
            folder, transformer_task="fill-mask", model_kwargs={"dtype": torch.float32}
        )


def _folder_of_transformer(ref: ModelRef) -> str:
    modules = load_file_path(ref.location, "modules.json", revision=ref.revision)
    path = read_json(modules, kind=list)[0]["path"] if modules else ""
    return str(PurePosixPath(path)) if path else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the loader's report of a missing head, which is made here."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


class SparseStudent:
    """Scores are dot products of vectors over the vocabulary.

    A text keeps its `max_active_dims` heaviest words, in training as in `encode`: the top-k
    activation of the vocabulary disentangled retriever (VDR).

    Queries of an inference-free student are a table's, which is not trained: see
    `inference_free.py`. They are not regularised.
    """

    temperature = 1.0

    def __init__(self, model: SparseEncoder) -> None:
        self.model = model
        table = query_table(model) is not None
        self.regularised = ("documents",) if table else ("queries", "documents")

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """`vector (n, V)`, as a dense tensor: training needs its gradient everywhere."""
        vector = self.model(dict(features), task=side)["sentence_embedding"].float()  # (n, V)
        vector = vector.to_dense() if vector.is_sparse else vector
        vector = select_max_active_dims(vector, self.model.max_active_dims)
        if torch.is_grad_enabled() and not vector.requires_grad:
            vector.requires_grad_()  # of a table: a cached gradient must end somewhere
        return {"vector": vector}

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """`score (B, M)`."""
        if dimensions is not None:
            raise InputError(
                "a sparse student's dimensions are vocabulary words and cannot be truncated",
                remedy="leave `dimensions` out, or make the student dense",
            )
        return {"score": queries["vector"] @ documents["vector"].T}  # (B, M)
