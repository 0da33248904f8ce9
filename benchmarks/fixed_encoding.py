"""MUVERA's fixed-dimensional encoding (https://arxiv.org/abs/2405.19504): to compare with.

One vector per text, whose dot products approach MaxSim: random planes cut the space into cells; a
query sums its tokens in each cell, a document averages them, and a cell without a token of the
document takes its nearest one's. Each repetition draws planes and a projection anew.
"""

from __future__ import annotations

import numpy as np

from retrieval_kd.models.vectors import Tokens

PLANES, WIDTH = 4, 16  # so 2⁴ cells of 16 dimensions


def encodings(texts: Tokens, repetitions: int, *, query: bool, seed: int = 0) -> np.ndarray:
    """Encode texts as `(texts, repetitions × 256)`; queries and documents need the same seed."""
    rng = np.random.default_rng(seed)
    tokens = np.concatenate(texts)  # (T, D)
    lengths = np.array([len(text) for text in texts])
    return np.concatenate(
        [_repetition(tokens, lengths, query, rng) for _ in range(repetitions)], axis=1
    )


def _repetition(
    tokens: np.ndarray, lengths: np.ndarray, query: bool, rng: np.random.Generator
) -> np.ndarray:
    planes = rng.standard_normal((tokens.shape[1], PLANES)).astype(np.float32)
    signs = rng.choice(np.array([-1, 1], np.float32), (tokens.shape[1], WIDTH))
    cells = ((tokens @ planes) > 0) @ (1 << np.arange(PLANES))  # (T,)
    projected = tokens @ signs / np.sqrt(WIDTH)
    count = 2**PLANES
    keys = np.repeat(np.arange(len(lengths)), lengths) * count + cells
    order = np.argsort(keys, kind="stable")
    filled, starts, sizes = np.unique(keys[order], return_index=True, return_counts=True)
    encoded = np.zeros((len(lengths) * count, WIDTH), np.float32)
    encoded[filled] = np.add.reduceat(projected[order], starts, axis=0)
    if not query:
        encoded[filled] /= sizes[:, None]
        firsts = np.cumsum(lengths) - lengths
        for empty in np.setdiff1d(np.arange(len(encoded)), filled):
            text, cell = divmod(int(empty), count)
            own = slice(firsts[text], firsts[text] + lengths[text])
            nearest = np.argmin(np.bitwise_count(cells[own] ^ cell))
            encoded[empty] = projected[own][nearest]
    return encoded.reshape(len(lengths), -1)
