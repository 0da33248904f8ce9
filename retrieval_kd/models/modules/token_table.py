"""Tables of token vectors, alone or beside a frozen encoder: for static and residual students.

This file is copied beside a saved model, which then loads without the package that made
it: keep it free of imports other than numpy, scipy, torch, tokenizers and Sentence Transformers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from sentence_transformers.util import load_dir_path
from tokenizers import Tokenizer
from torch import Tensor, nn

BATCH = 4096  # texts tokenised at a time
ENCODER, TABLE, TOKENIZER = "encoder", "table.safetensors", "table_tokenizer.json"
OWN = "bag_"  # prefix of the table's features, beside those of the encoder
WHERE = ("token", "cache_folder", "revision", "local_files_only")  # arguments of loading


@dataclass(frozen=True)
class TokenBags:
    """The distinct tokens of n texts, text after text: T tokens in all.

    Args:
        tokens: (T,) token IDs.
        counts: (T,) how often the text has each token, or a weight in place of that.
        starts: (n + 1,) where each text starts among the tokens, and where the last one ends.

    Example:
        >>> bags = TokenBags.of([[7, 8, 7], [], [9]], vocabulary=10)
        >>> bags.tokens.tolist(), bags.counts.tolist(), bags.starts.tolist()
        ([7, 8, 9], [2.0, 1.0, 1.0], [0, 2, 2, 3])
        >>> bags.lengths.tolist()
        [3.0, 0.0, 1.0]
    """

    tokens: np.ndarray
    counts: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]], vocabulary: int) -> TokenBags:
        """Count the token IDs of each text."""
        starts = np.cumsum([0, *map(len, ids)])
        flat = np.fromiter((token for row in ids for token in row), np.int64, starts[-1])
        shape = (len(ids), vocabulary)
        rows = csr_matrix((np.ones(len(flat), np.float32), flat, starts), shape=shape)
        rows.sum_duplicates()
        return cls(rows.indices.astype(np.int64), rows.data, rows.indptr.astype(np.int64))

    @classmethod
    def of_texts(cls, tokenizer: Tokenizer, texts: Iterable[str]) -> TokenBags:
        """Tokenise texts at full length, without special tokens."""
        parts, rest = [cls.of([], 1)], iter(texts)
        while batch := list(islice(rest, BATCH)):
            encoded = tokenizer.encode_batch(batch, add_special_tokens=False)
            ids = [one.ids for one in encoded]
            parts.append(cls.of(ids, 1 + max((max(row, default=0) for row in ids), default=0)))
        return cls.joined(parts)

    @classmethod
    def joined(cls, parts: Sequence[TokenBags]) -> TokenBags:
        """Put the texts of several bags one after the other."""
        sizes = np.concatenate([np.diff(part.starts) for part in parts])
        return cls(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.counts for part in parts]),
            np.concatenate([[0], np.cumsum(sizes)]),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(n,) number of tokens of each text, repetitions included."""
        sums = np.add.reduceat(np.append(self.counts, 0), self.starts[:-1])
        return sums * (np.diff(self.starts) > 0)

    def take(self, rows: np.ndarray) -> TokenBags:
        """Return the texts at positions `rows`."""
        sizes = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        at = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], sizes)
        return TokenBags(self.tokens[at], self.counts[at], starts)

    def saturated(self, k: float, b: float, mean_length: float) -> TokenBags:
        """Weigh each token as BM25 does: n (k + 1) / (n + k (1 − b + b · length / mean length))."""
        norms = k * (1 - b + b * self.lengths / max(mean_length, 1.0))  # (n,)
        norms = np.repeat(norms, np.diff(self.starts))  # (T,)
        weights = self.counts * (k + 1) / (self.counts + norms)
        return TokenBags(self.tokens, weights.astype(np.float32), self.starts)

    def features(self) -> dict[str, Tensor]:
        """Return the tensors that `TokenTable` reads."""
        return {
            f"{OWN}tokens": torch.from_numpy(self.tokens),
            f"{OWN}counts": torch.from_numpy(self.counts),
            f"{OWN}starts": torch.from_numpy(np.ascontiguousarray(self.starts[:-1])),
        }


def words_of(tokenizer: Tokenizer) -> int:
    """Return the number of rows that a tokenizer's IDs need: some tokenizers leave IDs out."""
    return 1 + max(tokenizer.get_vocab().values())


class TokenTable(nn.Module):
    """A vector E_t and a weight w_t for every token; a text is Σ_t n_t w_t E_t.

    Args:
        vectors: (V, D) E.
        weights: (V,) w, all above zero. Their logarithms are trained, so that they stay positive.
    """

    def __init__(self, vectors: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.float())  # (V, D)
        self.log_weights = nn.Parameter(weights.float().log())  # (V,)

    @classmethod
    def of_state(cls, state: dict[str, Tensor]) -> TokenTable:
        """Return the table that a module saved among its weights."""
        vectors, log_weights = state["table.vectors"], state["table.log_weights"]
        table = cls(vectors, torch.ones_like(log_weights))
        table.log_weights.data = log_weights
        return table

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Return the vectors (n, D) of n texts, from `TokenBags.features`."""
        names = ("tokens", "counts", "starts")
        tokens, counts, starts = (features[f"{OWN}{name}"] for name in names)
        # A sparse gradient is added to a dense one; alone, most optimisers would refuse it.
        if self.log_weights.grad is not None and tokens.device.type == "cpu":
            return _SumOfTokens.apply(self.vectors, self.log_weights, tokens, counts, starts)
        return nn.functional.embedding_bag(
            tokens,
            self.vectors,
            starts,
            mode="sum",
            per_sample_weights=counts * self.log_weights.exp()[tokens],
        )  # (n, D)

    @torch.no_grad()
    def folded(self) -> Tensor:
        """Return the vectors times their weights, (V, D)."""
        return self.log_weights.exp()[:, None] * self.vectors


class _SumOfTokens(torch.autograd.Function):
    """Σ_t n_t w_t E_t of n texts; the gradient of E is sparse, with the U tokens of the texts.

    That of `embedding_bag` is several times as slow. The gradient of log w_t is E_t · that of E_t.
    """

    @staticmethod
    def forward(context: Any, *inputs: Tensor) -> Tensor:
        vectors, log_weights, tokens, counts, starts = inputs
        weights = counts * log_weights.exp()[tokens]  # (T,)
        context.save_for_backward(vectors, weights, tokens, starts)
        bags = _sparse(weights, tokens, starts, len(vectors))
        return torch.from_numpy(bags @ vectors.numpy())  # (n, D)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        vectors, weights, tokens, starts = context.saved_tensors
        used, columns = tokens.unique(return_inverse=True)  # (U,), (T,)
        bags = _sparse(weights, columns, starts, len(used))
        own = torch.from_numpy(bags.T @ gradients[0].contiguous().numpy())  # (U, D)
        of_weights = vectors.new_zeros(len(vectors))  # (V,)
        of_weights[used] = (own * vectors[used]).sum(1)
        of_vectors = None
        if context.needs_input_grad[0]:
            of_vectors = torch.sparse_coo_tensor(
                used[None], own, vectors.shape, is_coalesced=True, check_invariants=False
            )
        return of_vectors, of_weights, None, None, None


def _sparse(weights: Tensor, tokens: Tensor, starts: Tensor, vocabulary: int) -> csr_matrix:
    """Return the tokens' weights in each text as a matrix (n, V)."""
    ends = np.append(starts.numpy(), len(tokens))
    return csr_matrix((weights.numpy(), tokens.numpy(), ends), shape=(len(starts), vocabulary))


class SaturatedEmbedding(InputModule):
    r"""The sum of a text's token vectors, where a document's tokens are weighed as BM25 does.

    query: Σ_t n_t w_t E_t; document: Σ_t m_t w_t E_t with saturated counts
    m_t = n_t (k + 1) / (n_t + k (1 − b + b |d| / mean |d|)).

    Args:
        tokenizer: cuts texts into the tokens of the table, at full length.
        table: (V, D) token vectors and (V,) weights.
        k, b, mean_length: of the saturation.
    """

    config_keys: list[str] = ["k", "b", "mean_length"]  # noqa: RUF012

    def __init__(
        self,
        tokenizer: Tokenizer,
        table: TokenTable,
        k: float = 1.2,
        b: float = 0.75,
        mean_length: float = 1.0,
    ) -> None:
        super().__init__()
        self.table = table
        self.tokenizer: Any = tokenizer
        self.words = tokenizer
        self.words.no_padding()
        self.words.no_truncation()
        self.k, self.b, self.mean_length = k, b, mean_length

    def bags(self, texts: Iterable[str], side: str) -> TokenBags:
        """Return the tokens of texts, for the table; `side` is "query" or "document"."""
        bags = TokenBags.of_texts(self.words, texts)
        return bags if side == "query" else bags.saturated(self.k, self.b, self.mean_length)

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Tokenise for the table, which does not read the prompt.

        A text without a `task` is a document.
        """
        side = "query" if more.get("task") == "query" else "document"
        return dict(self.bags(inputs, side).features())

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Set `sentence_embedding (n, D)`."""
        features["sentence_embedding"] = self.table(features)
        return features

    @property
    def max_seq_length(self) -> float | None:
        return math.inf

    def get_embedding_dimension(self) -> int:
        return self.table.vectors.shape[1]

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **_: Any) -> None:
        self.save_config(output_path)
        own = {n: p for n, p in self.state_dict().items() if not n.startswith(f"{ENCODER}.")}
        save_file({n: p.detach().contiguous() for n, p in own.items()}, Path(output_path, TABLE))
        self.words.save(str(Path(output_path, TOKENIZER)))

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **more: Any) -> Any:
        _, config, tokenizer, state = cls.read_saved(model_name_or_path, **more)
        return cls(tokenizer, TokenTable.of_state(state), **config)

    @classmethod
    def read_saved(
        cls, model_name_or_path: str, **more: Any
    ) -> tuple[Path, dict[str, Any], Tokenizer, dict[str, Tensor]]:
        """Return a saved module's folder, configuration, tokenizer and weights."""
        where = {name: more[name] for name in WHERE if name in more}
        subfolder = str(more.get("subfolder", ""))
        folder = Path(load_dir_path(model_name_or_path, subfolder, **where) or "")
        config = json.loads((folder / cls.config_file_name).read_text("utf-8"))
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        return folder, config, tokenizer, load_file(folder / TABLE)


class ResidualEmbedding(SaturatedEmbedding):
    r"""A frozen encoder's vector and, beside it, the sum of the text's token vectors.

    query: [s · e(q) ; Σ_t n_t w_t E_t]; document: [s · e(d) ; Σ_t m_t w_t E_t], see
    `SaturatedEmbedding`. The inner product is s² · cosine of the encoder + a score of the words
    that both texts have: one index holds both.

    Args:
        encoder: its vectors are brought to unit length, and it is not trained.
        tokenizer: cuts texts into the tokens of the table, at full length.
        table: (V, D) token vectors and (V,) weights.
        scale: s.
        k, b, mean_length: of the saturation.
        base_digest: the encoder's digest, by which cached vectors of it are found.
    """

    config_keys: list[str] = ["k", "b", "mean_length", "base_digest"]  # noqa: RUF012

    def __init__(
        self,
        encoder: SentenceTransformer,
        tokenizer: Tokenizer,
        table: TokenTable,
        scale: float = 1.0,
        k: float = 1.2,
        b: float = 0.75,
        mean_length: float = 1.0,
        base_digest: str = "",
    ) -> None:
        super().__init__(tokenizer, table, k, b, mean_length)
        self.encoder, self.tokenizer = encoder.requires_grad_(False), encoder.tokenizer
        self.base_digest = base_digest
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())
        self.base_spec = ""  # what loads the encoder alone; not saved

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Tokenise for the encoder, and for the table."""
        encoded = self.encoder.preprocess(list(inputs), prompt=prompt, **more)
        return {**encoded, **super().preprocess(inputs, prompt, **more)}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Set `sentence_embedding (n, D' + D)`."""
        own = {name: value for name, value in features.items() if name.startswith(OWN)}
        others = {name: value for name, value in features.items() if not name.startswith(OWN)}
        vectors = self.encoder(others)["sentence_embedding"]
        features["sentence_embedding"] = self.join(vectors, own)
        return features

    def join(self, vectors: Tensor, bags: dict[str, Tensor]) -> Tensor:
        """Put the encoder's vectors (n, D') and those of the table side by side."""
        unit = nn.functional.normalize(vectors.float(), dim=-1)
        return torch.cat([self.log_scale.exp() * unit, self.table(bags)], dim=-1)  # (n, D' + D)

    @torch.no_grad()
    def join_documents(self, vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of documents from the encoder's vectors (n, D') of them."""
        device = self.log_scale.device
        bags = self.bags(texts, "document").features()
        on_device = {name: tensor.to(device) for name, tensor in bags.items()}
        return self.join(torch.from_numpy(np.array(vectors)).to(device), on_device).cpu().numpy()

    @property
    def auto_model(self) -> Any:
        return self.encoder[0].auto_model

    @property
    def max_seq_length(self) -> int | None:
        return self.encoder.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, length: int | None) -> None:
        self.encoder.max_seq_length = length

    def get_embedding_dimension(self) -> int:
        return int(self.encoder.get_embedding_dimension() or 0) + super().get_embedding_dimension()

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **_: Any) -> None:
        self.encoder.save(str(Path(output_path, ENCODER)), safe_serialization=True)
        super().save(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **more: Any) -> Any:
        folder, config, tokenizer, state = cls.read_saved(model_name_or_path, **more)
        encoder = SentenceTransformer(
            str(folder / ENCODER), device="cpu", model_kwargs=more.get("model_kwargs") or {}
        )
        module = cls(encoder, tokenizer, TokenTable.of_state(state), **config)
        module.load_state_dict({"log_scale": state["log_scale"]}, strict=False)
        module.base_spec = str(folder / ENCODER)
        return module
