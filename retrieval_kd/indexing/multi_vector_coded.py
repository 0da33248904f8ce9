"""The small index of a multi-vector model: pooled tokens in few bits, searched through centroids.

A build encodes the documents into shards, trains the code on a sample of tokens, and codes shard by
shard; one shard and the sample are in memory at a time. A killed build continues after the last
shard that it encoded or coded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_json, sweep
from retrieval_kd.indexing import multi_vector, token_candidates
from retrieval_kd.indexing.maxsim import rows_of, sum_of_best
from retrieval_kd.indexing.multi_vector import OFFSETS
from retrieval_kd.indexing.spec import check_candidates, token_search
from retrieval_kd.indexing.token_codes import LENGTHS, POINTS, TokenCodes, centroids_for
from retrieval_kd.models.encode import (
    Shard,
    encode_shards,
    is_readable,
    merge_arrays,
    save_array,
    save_arrays,
)
from retrieval_kd.models.vectors import Tokens, token_rows
from retrieval_kd.progress import bar

CODES, CELLS, CODE = "codes.npy", "cells.npy", "code.npz"
FILES = (CODES, CELLS, CODE, OFFSETS, *token_candidates.FILES)
CHUNK = 4_096  # documents scored at a time

Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The centroids and the codes of some documents' tokens, and the number of tokens of each."""


def write(model: Any, texts: Texts, out: Path, prompt: str | None, inputs: Any) -> dict[str, Any]:
    """Encode all documents, train the code, and write the index. Returns manifest entries."""
    spec, width = inputs["spec"], int(model.get_embedding_dimension())
    _check_width(width, spec["bits"])
    kept = {**inputs, "spec": spec["pool"]}  # another number of bits needs no other shards
    paths = encode_shards(encoder(model, prompt, spec["pool"]), texts, out, kept)
    metric = {"metric": str(model.similarity_fn_name), "dimensions": width}
    return metric | write_codes(paths, spec["bits"], spec["seed"], out)


def write_codes(shards: list[Path], bits: int, seed: int, out: Path) -> dict[str, Any]:
    """Write the index of shards of tokens; what is coded is kept beside them until the end."""
    lengths = [_read(path, "lengths") for path in shards]
    tokens, documents = sum(int(each.sum()) for each in lengths), sum(map(len, lengths))
    folder = shards[0].parent / f"codes-{digest_json([bits, seed])}"
    folder.mkdir(exist_ok=True)
    sweep(folder)
    code, sample = _trained(folder / CODE, shards, lengths, bits, seed)
    coded = _code_shards(code, shards, folder)

    def parts() -> Iterator[Part]:
        for path, own in zip(coded, lengths, strict=True):
            yield _read(path, "cells"), _read(path, "codes"), own

    _write(out, code, parts)
    return {
        "tokens_per_document": round(tokens / documents, 1),
        "centroids": len(code.centroids),
        "trained_on_tokens": sample,
    }


def _write(out: Path, code: TokenCodes, parts: Callable[[], Iterator[Part]]) -> None:
    """Write the index of coded documents; each reading has one part in memory at a time."""
    lengths = np.concatenate([own for _, _, own in parts()])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens, width = int(offsets[-1]), LENGTHS + len(code.shift) // code.patterns.shape[1]
    merge_arrays(out / CELLS, (cells for cells, _, _ in parts()), (tokens,), np.uint16)
    merge_arrays(out / CODES, (codes for _, codes, _ in parts()), (tokens, width), np.uint8)
    save_array(out / OFFSETS, offsets)
    _save(out / CODE, code)
    token_candidates.write(
        out, lambda: ((cells, own) for cells, _, own in parts()), len(code.centroids)
    )


def encoder(model: Any, prompt: str | None, pool: float) -> Callable[[list[str], int], Shard]:
    """Return what encodes documents for `encode_shards`, with one in `pool` tokens.

    The most similar tokens of a document are averaged; its first one, [CLS], stays by itself.
    """
    encode_all = multi_vector.encoder(model, prompt)
    pooling = HierarchicalTokenPooling(pool)

    def encode(documents: list[str], start: int) -> Shard:
        shard = encode_all(documents, start)
        if pool == 1:
            return shard
        tokens = torch.from_numpy(shard["tokens"].astype(np.float32))
        rows = [pooling.pool_one(row).numpy() for row in tokens.split(shard["lengths"].tolist())]
        return {
            "lengths": np.array([len(row) for row in rows], dtype=np.int32),
            "tokens": np.concatenate(rows).astype(np.float16),
        }

    return encode


def _check_width(width: int, bits: int) -> None:
    if width * bits % 8:
        raise InputError(
            f"{width} dimensions of {bits} bits do not fill whole bytes",
            remedy="set bits: 8 in the specification",
        )


def _trained(
    path: Path, shards: list[Path], lengths: list[np.ndarray], bits: int, seed: int
) -> tuple[TokenCodes, int]:
    """Train the code on a random sample of tokens, or read the one of a killed build.

    Also returns the sample's size.
    """
    sizes = [int(each.sum()) for each in lengths]
    centroids = centroids_for(sum(sizes))
    size = min(sum(sizes), POINTS * centroids)
    if not is_readable(path):
        rows = np.sort(np.random.default_rng(seed).choice(sum(sizes), size, replace=False))
        ends = np.cumsum(sizes)
        chosen = np.split(rows, np.searchsorted(rows, ends[:-1]))
        with bar("training the code", 1) as progress:
            sample = np.concatenate(
                [
                    _read(shard, "tokens")[each - (end - own)].astype(np.float32)
                    for shard, each, end, own in zip(shards, chosen, ends, sizes, strict=True)
                ]
            )
            _save(path, TokenCodes.train(sample, centroids, bits, seed))
            progress.advance(1)
    return _load(path), size


def _code_shards(code: TokenCodes, shards: list[Path], folder: Path) -> list[Path]:
    """Code each shard of tokens into a file of its own, unless a killed build did."""
    paths = [folder / shard.name for shard in shards]
    with bar("coding tokens", len(paths)) as progress:
        for shard, path in zip(shards, paths, strict=True):
            if not is_readable(path):
                cells, codes = code.encode(_read(shard, "tokens").astype(np.float32))
                save_arrays(path, cells=cells, codes=codes)
            progress.advance(1)
    return paths


def _save(path: Path, code: TokenCodes) -> None:
    arrays = asdict(code)
    save_arrays(path, **{**arrays, "centroids": arrays["centroids"].astype(np.float16)})


def _load(path: Path) -> TokenCodes:
    with np.load(path, allow_pickle=False) as arrays:
        return TokenCodes(**{name: array.astype(np.float32) for name, array in arrays.items()})


def _read(path: Path, name: str) -> np.ndarray:
    """Read one array of a file that `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        array: np.ndarray = arrays[name]
    return array


class CodedTokens:
    """The opened index; codes and lists are mapped from disk.

    Documents that were added are in no list: every query is compared with all of them.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], search: str | None) -> None:
        self.code = _load(folder / CODE)
        self.codes, self.cells = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (CODES, CELLS)
        )
        self.offsets = np.load(folder / OFFSETS, allow_pickle=False)
        self.prompt = manifest["query_prompt"]
        self.dimensions, self.rows = self.code.centroids.shape[1], len(self.offsets) - 1
        self.count, self.live = self.rows, np.ones(self.rows, dtype=bool)
        self.blocks = [(self.cells, self.codes, self.offsets)]  # the base, and each addition
        self.lists = token_candidates.Candidates(folder, self.rows)
        settings = token_search(manifest["spec"]["search"])
        if search:
            documents = max(1, manifest["count"])
            settings["candidates"] = min(settings["candidates"], documents)  # some were deleted
            own = ",".join(f"{name}={number}" for name, number in settings.items())
            parameters = f"{own},{search}"  # the later one counts
            check_candidates(parameters, documents)
            settings = token_search(parameters)
        self.candidates, self.nprobe = settings["candidates"], settings["nprobe"]

    def extend(self, shard: Shard) -> None:
        """Append documents, with the code that the index has."""
        cells, codes = self.code.encode(shard["tokens"].astype(np.float32))
        offsets = np.concatenate([[0], np.cumsum(shard["lengths"])]).astype(np.int64)
        self.blocks.append((cells, codes, offsets))
        self.count += len(shard["lengths"])
        self.live = np.ones(self.count, dtype=bool)

    def hide(self, deleted: np.ndarray) -> None:
        """Leave these rows out of all results."""
        self.live[deleted] = False

    def rewrite(self, live: np.ndarray, out: Path) -> None:
        """Write the index of the rows that are `live`; nothing is trained."""

        def parts() -> Iterator[Part]:
            for first, (cells, codes, offsets) in self._blocks():
                for start in range(0, len(offsets) - 1, CHUNK):
                    stop = min(start + CHUNK, len(offsets) - 1)
                    kept = start + np.flatnonzero(live[first + start : first + stop])
                    rows, lengths = rows_of(kept, offsets)
                    yield cells[rows], codes[rows], lengths

        _write(out, self.code, parts)

    def _blocks(self) -> Iterator[tuple[int, Part]]:
        """Yield the base and the additions, each with the position of its first document."""
        first = 0
        for block in self.blocks:
            yield first, block
            first += len(block[2]) - 1

    def encode(self, model: Any, texts: Sequence[str]) -> Tokens:
        """Token vectors of each query."""
        return token_rows(model, texts, "query", prompt=self.prompt)

    def search(self, queries: Tokens, depth: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the positions and scores of each query's candidates.

        There are as many as the setting says, or `depth` if that is more; with as many as there are
        documents, every document is scored.
        """
        wanted, results = max(self.candidates, depth), []
        least = depth - int(self.live[self.rows :].sum())  # what was added is found anyway
        for query in queries:
            similar = query @ self.code.centroids.T  # (query tokens, K)
            found: list[np.ndarray] = []
            scores = [np.zeros(0, np.float32)]
            for first, block in self._blocks():
                live = self.live[first : first + len(block[2]) - 1]
                positions = np.flatnonzero(live)
                if first == 0 and wanted < len(positions):
                    positions = self._looked_up(similar, wanted, least, live)
                found.append(first + positions)
                for start in range(0, len(positions), CHUNK):
                    part = positions[start : start + CHUNK]
                    scores.append(self._scores(query, similar, block, part))
            results.append((np.concatenate(found), np.concatenate(scores)))
        return results

    def _looked_up(
        self, similar: np.ndarray, wanted: int, least: int, live: np.ndarray
    ) -> np.ndarray:
        """Return the base's candidates, from more centroids where `nprobe` give too few hits."""
        nprobe = self.nprobe
        positions = self.lists.best(similar, nprobe, wanted, live)
        while len(positions) < least and nprobe < similar.shape[1]:
            nprobe *= 2
            positions = self.lists.best(similar, nprobe, wanted, live)
        return positions

    def _scores(
        self, query: np.ndarray, similar: np.ndarray, block: Part, positions: np.ndarray
    ) -> np.ndarray:
        """MaxSim of a query to some documents of a block."""
        cells, codes, offsets = block
        rows, lengths = rows_of(positions, offsets)
        return sum_of_best(self.code.products(query, similar, cells[rows], codes[rows]), lengths)
