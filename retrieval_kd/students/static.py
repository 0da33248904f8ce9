"""The static student: a text is the weighted mean of its tokens' vectors, and no transformer runs.

StaticEmbedding of Sentence Transformers (https://huggingface.co/blog/static-embeddings) and
model2vec (https://github.com/MinishLab/model2vec) have the idea. A saved student loads in plain
`SentenceTransformer`, unless it weighs a document's words as BM25 does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from torch import Tensor, nn

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import cache_dir, digest_json
from retrieval_kd.models.encode import (
    document_vectors,
    finish,
    is_encoded,
    normalises,
    save_array,
)
from retrieval_kd.models.load import load_encoder, model_digest
from retrieval_kd.models.modules.saturated import SaturatedEncoder
from retrieval_kd.models.modules.token_table import SaturatedEmbedding, TokenBags, TokenTable
from retrieval_kd.progress import bar
from retrieval_kd.students.dense import Representations, score_matrix
from retrieval_kd.students.fit_tokens import B, K, drawn, fit_tokens

CHUNK = 512  # tokens encoded at a time
DIMENSIONS = 1024
LEXICAL = 1 / 3  # share of a document's squared length that tells its words from all others
BATCH = 256  # documents encoded at a time


def make_static(
    model_spec: str,
    documents: Texts,
    *,
    dimensions: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
    saturate: bool = False,
) -> SentenceTransformer:
    """Make a table of token vectors from an encoder, or load a static model.

    A token's vector has two parts. One is fitted so that the sum over a document's tokens is close
    to the encoder's vector of the document (`fit_tokens`). The other is random and tells the token
    from every other one, with weight √idf(t), idf(t) = ln(1 + (N − n_t + ½) / (n_t + ½)).

    Args:
        model_spec: a dense encoder with a fast tokenizer, whose vocabulary the student gets, or a
            saved static model.
        documents: the N texts in which tokens are counted; the encoder reads 30,000 at most.
        dimensions: of the vectors, at least the encoder's; by default 1,024.
        max_length: tokens of a document that the encoder reads; None: its own limit.
        seed: for the random parts, and for which documents are fitted.
        saturate: weigh a document's tokens by BM25's saturated counts, which a mean cannot do: the
            student is a `SaturatedEncoder`. A saved one stays one.

    Raises:
        InputError: fewer dimensions than the encoder has, or a tokenizer that is not fast.
    """
    encoder = load_encoder(model_spec, dtype=torch.float32)
    if isinstance(encoder, SaturatedEncoder):
        return encoder
    if isinstance(encoder[0], StaticEmbedding):
        encoder.similarity_fn_name = "cosine"  # which it is trained by
        if not saturate:
            return encoder
        bags = _bags(encoder[0].tokenizer, documents)
        return _saturated(encoder[0].tokenizer, encoder[0].embedding.weight.detach(), bags)
    tokenizer = tokenizer_of(encoder, model_spec)
    start = token_vectors(encoder, model_spec)  # (V, D')
    width = (dimensions or max(DIMENSIONS, start.shape[1])) - start.shape[1]
    if width < 0:
        raise InputError(
            f"{dimensions} dimensions are fewer than the {start.shape[1]} of {model_spec}",
            remedy=f"give at least {start.shape[1]}",
        )
    bags = _bags(tokenizer, documents)
    idf, at = inverse_frequencies(bags, len(start)), drawn(len(bags), seed)
    vectors = _vectors_of(model_spec, documents, at, max_length)
    parts = [fit_tokens(start, idf, bags, at, vectors) * idf[:, None]]
    if width:
        parts.append(random_vectors(len(start), width, seed) * np.sqrt(idf)[:, None])
    shares = [1 - LEXICAL, LEXICAL] if width else [1.0]
    weighed = bags.saturated(K, B, float(bags.lengths.mean())) if saturate else bags
    sample = weighed.take(at)
    lengths = [usual_length(part, sample) for part in parts]
    table = np.concatenate(
        [part * (np.sqrt(s) / n) for part, s, n in zip(parts, shares, lengths, strict=True)], axis=1
    )  # (V, D)
    if saturate:
        return _saturated(tokenizer, torch.from_numpy(table), bags)
    module = StaticEmbedding(tokenizer, embedding_weights=table.astype(np.float32))
    return SentenceTransformer(modules=[module], similarity_fn_name="cosine", device="cpu").eval()


def _bags(tokenizer: Tokenizer, documents: Texts) -> TokenBags:
    return TokenBags.of_texts(tokenizer, (document.full for document in documents.iterate()))


def _saturated(tokenizer: Tokenizer, rows: Tensor, bags: TokenBags) -> SaturatedEncoder:
    """Make a student of the rows (V, D) of a table, and of the documents' bags."""
    mean_length = float(bags.lengths.mean())
    module = SaturatedEmbedding(tokenizer, split_rows(rows.float()), K, B, mean_length)
    return SaturatedEncoder(modules=[module], similarity_fn_name="cosine", device="cpu").eval()


def _vectors_of(
    model_spec: str, documents: Texts, at: np.ndarray, max_length: int | None
) -> np.ndarray:
    """Return the encoder's vectors (n, D') of some documents, from the cache if all are there."""
    if len(at) == len(documents) or is_encoded(model_spec, documents, max_length=max_length):
        return document_vectors(model_spec, documents, max_length=max_length)[at]
    encoder = load_encoder(model_spec, max_length=max_length)
    parts = []
    with bar("encoding a sample of the documents", len(at)) as progress:
        for first in range(0, len(at), BATCH):
            texts = [documents.at(int(k)).full for k in at[first : first + BATCH]]
            vectors = encoder.encode_document(texts, show_progress_bar=False)
            parts.append(finish(vectors, normalises(encoder)))
            progress.advance(len(texts))
    return np.concatenate(parts)


def usual_length(rows: np.ndarray, bags: TokenBags) -> float:
    """Return the mean length of the sums of the rows (V, D) over texts."""
    table = TokenTable(torch.from_numpy(rows.astype(np.float32)), torch.ones(len(rows)))
    with torch.inference_mode():
        sums = table(bags.features())  # (n, D)
    return max(sums.norm(dim=1).mean().item(), 1e-6)


def tokenizer_of(encoder: SentenceTransformer, model_spec: str) -> Tokenizer:
    """Return a copy of an encoder's tokenizer that neither cuts nor pads."""
    fast = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise InputError(
            "this encoder's tokenizer is not a fast one, whose vocabulary a table could use",
            id=model_spec,
            remedy="start from an encoder of another kind, such as BERT for CANINE",
        )
    tokenizer = Tokenizer.from_str(fast.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def inverse_frequencies(bags: TokenBags, vocabulary: int) -> np.ndarray:
    """Return idf (V,) of every token in texts, see `make_static`."""
    with_token = np.bincount(bags.tokens, minlength=vocabulary)  # (V,)
    idf = np.log1p((len(bags) - with_token + 0.5) / (with_token + 0.5))
    return np.maximum(idf, 1e-3).astype(np.float32)


def random_vectors(count: int, dimensions: int, seed: int) -> np.ndarray:
    """Return (count, dimensions) random signs / √dimensions: unit vectors, nearly orthogonal.

    Achlioptas 2003, https://doi.org/10.1016/S0022-0000(03)00025-4.
    """
    signs = np.random.default_rng(seed).integers(0, 2, (count, dimensions), dtype=np.int8) * 2 - 1
    return signs.astype(np.float32) / np.float32(np.sqrt(dimensions))


def token_vectors(
    encoder: SentenceTransformer, model_spec: str, *, digest: str | None = None, prompt: str = ""
) -> np.ndarray:
    """Encode every token of the vocabulary alone: (V, D'), centred, of unit length. Cached.

    A token that the tokenizer has and the encoder does not, as some have, gets zeros.

    Args:
        digest: identifies the encoder in the cache; by default its `model_digest`.
        prompt: put before every token.
    """
    path = vocabulary_file(model_spec, digest=digest, prompt=prompt)
    vocabulary = 1 + max(encoder.tokenizer.get_vocab().values())
    if not path.exists():
        transformer: Any = encoder[0]
        known = min(vocabulary, len(transformer.auto_model.get_input_embeddings().weight))
        parts = []
        with bar("encoding the vocabulary", known) as progress:
            for start in range(0, known, CHUNK):
                tokens = torch.arange(start, min(start + CHUNK, known))
                parts.append(encode_tokens(encoder, tokens, prompt))
                progress.advance(len(tokens))
        save_array(path, np.concatenate(parts))
    vectors = np.load(path, allow_pickle=False)
    vectors = vectors - vectors.mean(0)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return np.pad(vectors, ((0, vocabulary - len(vectors)), (0, 0)))


def vocabulary_file(model_spec: str, *, digest: str | None = None, prompt: str = "") -> Path:
    """The file of the cache that `token_vectors` keeps an encoder's vectors in, or will."""
    key = [1, digest or model_digest(model_spec), *([prompt] if prompt else [])]
    return cache_dir() / "token-vectors" / f"{digest_json(key)}.npy"


@torch.inference_mode()
def encode_tokens(encoder: SentenceTransformer, tokens: Tensor, prompt: str = "") -> np.ndarray:
    """Encode texts of a single token each: vectors (n, D') of the tokens (n,)."""
    whole = encoder.tokenizer(f"{prompt}a")["input_ids"]
    [plain] = encoder.tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
    at = len(whole) - 1 - whole[::-1].index(plain)
    rows = torch.tensor([whole]).repeat(len(tokens), 1)  # (n, 3)
    rows[:, at] = tokens
    features = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    features = {name: tensor.to(encoder.device) for name, tensor in features.items()}
    vectors: np.ndarray = encoder(features)["sentence_embedding"].float().cpu().numpy()
    return vectors


def split_rows(rows: Tensor) -> TokenTable:
    """Split the rows (V, D) of a table into unit vectors and weights, which are trained apart."""
    lengths = rows.norm(dim=1).clamp_min(1e-6)  # (V,)
    return TokenTable(rows / lengths[:, None], lengths)


class StaticStudent:
    """Scores are cosines of the sums of token vectors; weights are trained apart from vectors."""

    temperature = 0.05
    frozen = halves = None

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        module: Any = model[0]
        self.module: StaticEmbedding | SaturatedEmbedding = module
        if isinstance(module, SaturatedEmbedding):
            self.table = module.table
        else:
            self.table = split_rows(module.embedding.weight.detach().float())

    @property
    def vectors(self) -> list[nn.Parameter]:
        """The parameters trained with the common learning rate."""
        return [self.table.vectors]

    @property
    def weights(self) -> list[nn.Parameter]:
        """The parameters trained with the learning rate of heads."""
        return [self.table.log_weights]

    def bags(self, texts: Any, side: str) -> TokenBags:
        """Return the tokens of texts."""
        if isinstance(self.module, SaturatedEmbedding):
            return self.module.bags(texts, side)
        return TokenBags.of_texts(self.module.tokenizer, texts)

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """`vector (n, D)`."""
        return {"vector": self.table(features)}

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """`score (B, M)`."""
        left, right = queries["vector"][:, :dimensions], documents["vector"][:, :dimensions]
        return {"score": score_matrix(left, right, "cosine")}

    def settle(self) -> None:
        """Write the trained vectors, times their weights, into a model that has no weights."""
        if isinstance(self.module, StaticEmbedding):
            self.module.embedding.weight.data = self.table.folded()
