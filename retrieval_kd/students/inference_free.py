"""The query side of an inference-free sparse student: a weight per word, and no transformer.

A query is the sum of the IDF of its distinct tokens, as in BM25; SPLADE weighs the words of
documents, and adds words that they lack (https://arxiv.org/abs/2411.04403). The authors' released
code (opensearch-sparse-model-tuning-sample) has the same IDF, no weight for special tokens, and
does not train the weights unless asked; here they are never trained.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.models.load import declared
from retrieval_kd.models.modules.token_table import TokenBags
from retrieval_kd.students.asymmetric import DOCUMENT
from retrieval_kd.students.dense import prompts_of
from retrieval_kd.students.static import inverse_frequencies, tokenizer_of


def has_query_table(model_spec: str) -> bool:
    """Whether a saved model's queries are a table of word weights, by its files alone."""
    router = declared(model_spec, "router_config.json")
    names = router.get("structure", {}).get("query", [])
    kinds = [str(router.get("types", {}).get(name)).rpartition(".")[2] for name in names]
    return kinds == [SparseStaticEmbedding.__name__]


def query_table(model: SparseEncoder) -> SparseStaticEmbedding | None:
    """Return a model's table of word weights; None if a transformer reads its queries."""
    routes: Any = model[0].sub_modules if isinstance(model[0], Router) else {}
    first = routes["query"][0] if "query" in routes else None
    return first if isinstance(first, SparseStaticEmbedding) else None


def idf_table(model: SparseEncoder, model_spec: str, documents: Texts) -> SparseStaticEmbedding:
    """Make the table of a model's tokens: their IDF in the documents, 0 for special tokens.

    IDF is BM25's, log(1 + (N − n + 0.5) / (n + 0.5)), over whole texts. A model with more words
    than its tokenizer, as some are padded, loses those.

    Raises:
        InputError: the model is no transformer with SPLADE's pooling, its tokenizer is not a fast
            one, or it has fewer words than its tokenizer.
    """
    tokenizer = tokenizer_of(model, model_spec)  # type: ignore[arg-type]
    _fit_vocabulary(model, model_spec)
    bags = TokenBags.of_texts(tokenizer, (document.full for document in documents.iterate()))
    weights = torch.from_numpy(inverse_frequencies(bags, len(model.tokenizer.get_vocab())))  # (V,)
    weights[model.tokenizer.all_special_ids] = 0.0
    # A copy: the limit of documents' tokens is not that of queries.
    return SparseStaticEmbedding(deepcopy(model.tokenizer), weights, frozen=True)


def with_query_table(model: SparseEncoder, table: SparseStaticEmbedding) -> SparseEncoder:
    """Put a table for queries before a model, which reads documents only from now on."""
    prompts = prompts_of(model)  # type: ignore[arg-type]
    default = prompts.get(model.default_prompt_name or "", "")
    document = next((prompts[name] for name in DOCUMENT if name in prompts), default)
    table.frozen = True
    table.weight.requires_grad_(False)
    table.max_seq_length = None  # it reads whole queries: the router's length is the documents'
    modules: list[Any] = list(model.children())
    return SparseEncoder(
        modules=[Router.for_query_document(query_modules=[table], document_modules=modules)],
        device=str(model.device),
        prompts={"query": "", "document": document},  # a prompt's words would be the query's
        similarity_fn_name="dot",
        max_active_dims=model.max_active_dims,
    ).eval()


def without_query_table(model: SparseEncoder) -> SparseEncoder:
    """Return the model of the documents' side alone."""
    router: Any = model[0]
    return SparseEncoder(
        modules=list(router.sub_modules["document"]),
        device=str(model.device),
        prompts=prompts_of(model),  # type: ignore[arg-type]
        similarity_fn_name="dot",
        max_active_dims=model.max_active_dims,
    ).eval()


def splade_modules(model: SparseEncoder, model_spec: str) -> tuple[Any, SpladePooling]:
    """Return the transformer and the pooling that a SPLADE model consists of."""
    modules: list[Any] = list(model.children())
    if len(modules) != 2 or not all(map(isinstance, modules, (Transformer, SpladePooling))):
        raise InputError(
            f"this sparse model is {', '.join(type(module).__name__ for module in modules)}, not a "
            "transformer with SPLADE's pooling",
            id=model_spec,
            remedy="start from a SPLADE model, or from an encoder",
        )
    return modules[0], modules[1]


def _fit_vocabulary(model: SparseEncoder, model_spec: str) -> None:
    """Give a model the words of its tokenizer: a saved table has exactly those."""
    transformer, pooling = splade_modules(model, model_spec)
    vocabulary = model.tokenizer.get_vocab()
    words, rows = len(vocabulary), transformer.auto_model.config.vocab_size
    if max(vocabulary.values()) >= words or rows < words:
        raise InputError(
            f"its tokenizer has {words:,} words up to number {max(vocabulary.values()):,}, and its "
            f"model {rows:,}: a table of query words would not fit",
            id=model_spec,
            remedy="make a sparse student without `query`, or start from another model",
        )
    if rows > words:
        transformer.auto_model.resize_token_embeddings(words)
        pooling.embedding_dimension = words
