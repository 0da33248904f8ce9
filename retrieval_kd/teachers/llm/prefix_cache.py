"""A decoder's last logits for many token sequences, with shared beginnings computed once.

Prompts about one query begin alike: role, instruction, query. This beginning is run once per query,
its keys and values are reused for all the query's candidates, and their remaining tokens are
batched by length, across queries. Results change only by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Tokens = Sequence[int]
SHORTEST = 8  # tokens; a shorter shared beginning is not worth a group
MOST_LOGITS = 2**27  # floats of one batch's logits: 512 MiB


@dataclass(frozen=True)
class Group:
    """Rows whose first `shared` tokens are the same."""

    rows: tuple[int, ...]
    shared: int


def share_prefixes(
    sequences: Sequence[Tokens], keep: Sequence[int], window: int = 512
) -> list[Group]:
    """Group rows so that as few tokens as possible are read more than once.

    Dynamic programming finds the best way to cut the sorted rows into groups of at most `window`: a
    group of n rows that share p tokens saves (n − 1) · p.

    Args:
        sequences: rows of tokens.
        keep: tokens at each row's end that are not shared, since their logits are needed.

    Example:
        >>> query, other = list(range(10)), list(range(20, 29))
        >>> rows = [[*query, 50], [*other, 50], [*query, 51], [*other, 52, 53]]
        >>> share_prefixes(rows, keep=[1, 1, 1, 1])
        [Group(rows=(0, 2), shared=10), Group(rows=(1, 3), shared=9)]
    """
    order = sorted(range(len(sequences)), key=lambda row: list(sequences[row]))
    room = [len(sequences[row]) - keep[row] for row in order]
    common = np.array(
        [
            min(_alike(sequences[order[i]], sequences[order[i + 1]]), room[i], room[i + 1])
            for i in range(len(order) - 1)
        ],
        dtype=np.int64,
    )
    common[common < SHORTEST] = 0
    best = np.zeros(len(order) + 1, dtype=np.int64)  # tokens saved among the first i rows
    cut = np.zeros(len(order) + 1, dtype=np.int64)  # start of the last of their groups
    shared = np.array(room, dtype=np.int64)  # tokens shared by a group from each row to row i
    for i in range(len(order)):
        first = max(0, i + 1 - window)
        if i:
            shared[first:i] = np.minimum(shared[first:i], common[i - 1])
        saved = best[first : i + 1] + np.arange(i - first, -1, -1) * shared[first : i + 1]
        cut[i + 1] = first + int(saved.argmax())
        best[i + 1] = saved.max()
    groups, end = [], len(order)
    while end:
        start = int(cut[end])
        alone = end - start == 1
        groups.append(
            Group(
                tuple(order[start:end]),
                0 if alone else int(common[start : end - 1].min()),
            )
        )
        end = start
    return groups[::-1]


def _alike(left: Tokens, right: Tokens) -> int:
    """How many tokens two rows share at their beginning."""
    most = min(len(left), len(right))
    differ = np.flatnonzero(np.asarray(left[:most]) != np.asarray(right[:most]))
    return int(differ[0]) if len(differ) else most


def can_share(model: Any) -> bool:
    """Whether the model's cache holds the keys and values of all tokens, not of a window."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def last_logits(
    model: Any,
    sequences: Sequence[Tokens],
    keep: Sequence[int],
    *,
    batch_tokens: int,
    share: bool = True,
) -> Iterator[tuple[list[int], Tensor]]:
    """The logits at each row's last `keep` tokens, in batches of rows in any order.

    Args:
        model: a causal language model in inference mode.
        keep: number of positions of each row, at least 1.
        batch_tokens: rows × tokens, padding and shared tokens included.
        share: whether to compute shared beginnings once.

    Yields:
        rows, and their logits (rows, largest keep, V) float32; only the last `keep[r]` of row r
            are valid.
    """
    if share and can_share(model):
        groups = share_prefixes(sequences, keep)
    else:
        groups = [Group((row,), 0) for row in range(len(sequences))]
    for window in _windows(groups, sequences, batch_tokens):
        prefixes = [list(sequences[g.rows[0]][: g.shared]) for g in window if g.shared]
        cache = _read(model, prefixes) if prefixes else None
        place: dict[int, tuple[int, int]] = {}  # row → whose prefix, how long
        number = 0
        for group in window:
            place |= {row: (number, group.shared) for row in group.rows}
            number += group.shared > 0
        rows = sorted(place, key=lambda row: place[row][1] - len(sequences[row]))  # longest first
        while rows:
            size = _batch_size(model, rows, place, sequences, keep, batch_tokens)
            batch, rows = rows[:size], rows[size:]
            yield batch, _run(model, cache, batch, place, sequences, max(keep[r] for r in batch))


def _windows(
    groups: Sequence[Group], sequences: Sequence[Tokens], batch_tokens: int
) -> Iterator[list[Group]]:
    """Split groups so that prefixes fit in memory together, with enough rows for even batches."""
    window: list[Group] = []
    prefixes = rest = longest = 0
    for group in groups:
        own = sum(len(sequences[row]) - group.shared for row in group.rows)
        cached = max(longest, group.shared) * (prefixes + (group.shared > 0))
        if window and (cached > batch_tokens or rest + own > 16 * batch_tokens):
            yield window
            window, prefixes, rest, longest = [], 0, 0, 0
        window.append(group)
        prefixes += group.shared > 0
        rest, longest = rest + own, max(longest, group.shared)
    if window:
        yield window


def _read(model: Any, prefixes: Sequence[Tokens]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values (prefixes, h, P, d) of each layer; those right of a prefix are noise."""
    ids, mask = padded(prefixes, model.device)
    cache: Any = DynamicCache(config=model.config)
    model(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return [(layer.keys, layer.values) for layer in cache.layers]


def padded(sequences: Sequence[Tokens], device: Any) -> tuple[Tensor, Tensor]:
    """Tokens (n, L) padded on the right, and their mask."""
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, sequence in enumerate(sequences):
        ids[number, : len(sequence)] = torch.tensor(sequence)
        mask[number, : len(sequence)] = 1
    return ids.to(device), mask.to(device)


def _batch_size(
    model: Any,
    rows: Sequence[int],
    place: dict[int, tuple[int, int]],
    sequences: Sequence[Tokens],
    keep: Sequence[int],
    batch_tokens: int,
) -> int:
    """How many of the next rows fit into a batch, by tokens and by kept logits."""
    own = len(sequences[rows[0]]) - place[rows[0]][1]  # the longest of them
    vocabulary = model.config.get_text_config().vocab_size
    shared = kept = 0
    for size, row in enumerate(rows):
        shared, kept = max(shared, place[row][1]), max(kept, keep[row])
        tokens, logits = (size + 1) * (shared + own), (size + 1) * kept * vocabulary
        if size and (tokens > batch_tokens or logits > MOST_LOGITS):
            return size
    return len(rows)


def _run(
    model: Any,
    cache: list[tuple[Tensor, Tensor]] | None,
    rows: Sequence[int],
    place: dict[int, tuple[int, int]],
    sequences: Sequence[Tokens],
    kept: int,
) -> Tensor:
    """Logits (rows, kept, V) at the rows' last tokens.

    A row consists of its prefix, padded on the right, and its own tokens, padded on the left, so
    that all rows end in the last column.
    """
    shared = [place[row][1] for row in rows]
    longest = max(shared)  # P
    own = max(len(sequences[row]) - place[row][1] for row in rows)  # S
    ids = torch.zeros(len(rows), own, dtype=torch.long)
    mask = torch.zeros(len(rows), longest + own, dtype=torch.long)
    positions = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        tail = sequences[row][shared[number] :]
        ids[number, own - len(tail) :] = torch.tensor(tail)
        mask[number, : shared[number]] = 1
        mask[number, longest + own - len(tail) :] = 1
        positions[number, own - len(tail) :] = torch.arange(len(tail)) + shared[number]
    past = None
    if cache is not None and longest:
        past = DynamicCache(config=model.config)
        whose = torch.tensor([place[row][0] for row in rows], device=model.device)
        whose = whose.clamp(max=len(cache[0][0]) - 1)  # a row without a prefix reads masked ones
        for layer, (keys, values) in enumerate(cache):
            past.update(keys[whose, :, :longest], values[whose, :, :longest], layer)  # (rows, h, P)
    output = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=past,
        use_cache=past is not None,
        logits_to_keep=kept,
    )
    return output.logits.float()  # (rows, kept, V)
