"""Digests of texts and IDs: the store finds a score by its texts' digests, never by their IDs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from retrieval_kd import files
from retrieval_kd.errors import InputError


def query_digest(text: str) -> str:
    """Digest of a query's text: 32 hex digits."""
    return files.digest_text(text)


def document_digest(title: str, text: str) -> str:
    """Digest of a document's title and text: 32 hex digits."""
    return files.digest_text(title, text)


def id_digest(id: str) -> str:
    """Placeholder for the digest of a text that was not available when its scores were imported."""
    return files.digest_text("id", id)


def hash_ids(query_ids: Sequence[str], document_ids: Sequence[str]) -> np.ndarray:
    """64-bit hashes (n,) of pairs of IDs. Use them for counts only: a collision may add one."""
    pairs = zip(query_ids, document_ids, strict=True)
    digests = b"".join(
        hashlib.blake2b(f"{query}\x1f{document}".encode(), digest_size=8).digest()
        for query, document in pairs
    )
    return np.frombuffer(digests, dtype=np.uint64)


def digests_to_words(digests: Sequence[str]) -> np.ndarray:
    """Convert hex digests of 128 bits to an (n, 2) array of 64-bit words.

    Example:
        >>> digests_to_words(["0" * 31 + "1", "f" * 32]).tolist()
        [[0, 72057594037927936], [18446744073709551615, 18446744073709551615]]
    """
    if len(digests) and set(map(len, digests)) != {32}:
        bad = next(digest for digest in digests if len(digest) != 32)
        raise InputError("a text digest has 32 hex digits", id=bad)
    try:
        data = bytes.fromhex("".join(digests))
    except ValueError as error:
        raise InputError(f"a text digest has 32 hex digits: {error}") from error
    if len(data) != 16 * len(digests):
        raise InputError("a text digest has 32 hex digits and no spaces")
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2)  # (n, 2)


def as_words(digests: Sequence[str] | np.ndarray) -> np.ndarray:
    """The (n, 2) words of digests that are given in hex, or as words already."""
    return digests if isinstance(digests, np.ndarray) else digests_to_words(digests)


def words_to_column(words: np.ndarray) -> pa.Array:
    """Convert (n, 2) words to a column of 16-byte digests."""
    data = pa.py_buffer(np.ascontiguousarray(words).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(words), [None, data])


def column_to_words(column: pa.ChunkedArray) -> np.ndarray:
    """Convert a column of 16-byte digests to (n, 2) words."""
    parts = [np.empty((0, 2), dtype="<u8")]
    for chunk in column.chunks:
        words = np.frombuffer(chunk.buffers()[1], dtype="<u8").reshape(-1, 2)
        parts.append(words[chunk.offset : chunk.offset + len(chunk)])
    return np.concatenate(parts)  # (n, 2)
