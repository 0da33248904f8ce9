"""The commands that are killed: their arguments, and what they leave, in a form to compare."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from retrieval_kd.files import digest_file, read_json
from retrieval_kd.indexing.index import Index
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import read_usage
from tests.tiny_models import write_collection, write_cross_encoder, write_encoder

FLAT = Path(__file__).parents[2] / "indexes" / "flat.yaml"
CONCURRENCY = 4  # calls of a server at a time
TIMES = ("seconds", "preparing_seconds", "seconds_per_step", "resumed_from_step")
UNLIKE = ("README.md", "training.json", "seal.json")  # they have times


@dataclass(frozen=True)
class Command:
    """A command of `rkd` that writes into a folder.

    Attributes:
        words: its arguments.
        result: what it left in the folder, to be equal after any number of kills.
        calls: whether it asks a server.
    """

    words: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    calls: bool = False


class Inputs:
    """What all commands read, in a folder that none of them writes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.collection, self.run = folder / "data", folder / "candidates.trec"
        self.encoder, self.cross_encoder = folder / "encoder", folder / "cross-encoder"

    def write(self) -> None:
        write_collection(self.collection)
        write_encoder(self.encoder, layers=2)
        write_cross_encoder(self.cross_encoder)
        (self.folder / "run.yaml").write_text(yaml.safe_dump(self._run()))

    def first(self) -> list[list[str]]:
        """Commands that make the other inputs: candidates, and a store to train on."""
        out = ["--split", "train", "--depth", "12", "--out", str(self.run)]
        return [
            ["retrieve", "--collection", str(self.collection), *out],
            self._score(self.folder, str(self.cross_encoder)),
        ]

    def commands(self, url: str) -> dict[str, Command]:
        """All kinds of commands by name; those that ask a server ask the one at `url`."""
        data, encoder = ["--collection", str(self.collection)], str(self.encoder)
        judge = ["--server", url, "--concurrency", str(CONCURRENCY)]
        retrieve = ["retrieve", *data, "--depth", "10"]

        def server(teacher: str) -> Command:
            return Command(
                lambda folder: [*self._score(folder, teacher), *judge], stored, calls=True
            )

        return {
            "score": Command(lambda f: self._score(f, str(self.cross_encoder)), stored),
            "train": Command(lambda f: self._train(f, "dense", "--layers", "0"), student),
            "train table": Command(lambda f: self._train(f, "residual"), student),
            "index": Command(
                lambda f: ["index", *data, "--model", encoder, "--spec", str(FLAT),
                           "--out", str(f / "index")], index),
            "retrieve bm25": Command(
                lambda f: [*retrieve, "--with", "bm25", "--out", str(f / "run.trec")], run_file),
            "retrieve dense": Command(
                lambda f: [*retrieve, "--with", encoder, "--out", str(f / "run.trec")], run_file),
            "run": Command(
                lambda f: ["run", str(self.folder / "run.yaml"), f"out={f / 'out'}"], whole_run),
            "server": server("yesno:judge"),
            "server pairs": server("pairwise:judge?pairs=adjacent"),
            "server lists": server("listwise:judge?window=4&stride=2"),
        }  # fmt: skip

    def _score(self, folder: Path, teacher: str) -> list[str]:
        inputs = ["--collection", str(self.collection), "--candidates", str(self.run)]
        return ["score", *inputs, "--teacher", teacher, "--store", str(folder / "store")]

    def _train(self, folder: Path, kind: str, *more: str) -> list[str]:
        sizes = ["--steps", "6", "--batch-queries", "6", "--max-tokens", "32"]
        return [
            "train", "--collection", str(self.collection), "--student", str(self.encoder),
            "--kind", kind, "--store", str(self.folder / "store"), "--candidates", str(self.run),
            "--split", "train", "--out", str(folder / "student"), *sizes,
            "--set", "save_steps=2", "--set", "eval_steps=4", *more,
        ]  # fmt: skip

    def _run(self) -> dict[str, Any]:
        encoder = str(self.encoder)
        return {
            "name": "Killed",
            "collection": str(self.collection),
            "out": "given by the command",
            "encoder": encoder,
            "splits": {"dev": "dev"},
            "first_stage": {"with": "bm25", "depth": 10},
            "teacher": {"model": str(self.cross_encoder), "max_length": 48, "fuse_with": ["bm25"]},
            "student": {"base": encoder, "max_length": 32},
            "train": {"steps": 4, "batch_queries": 6, "eval_steps": 4, "save_steps": 2,
                      "max_tokens": 32},
            "students": {
                "distilled": {"objective": "kl@batch", "student": {"layers": [0]}},
            },
            "compare": ["distilled", "encoder"],
            "seeds": [0],
            "index": str(FLAT),
        }  # fmt: skip


def stored(folder: Path) -> Any:
    """All rows of all shards; one that was stored twice is there twice."""
    store = ScoreStore(folder / "store")
    assert store.verify() == [], store.verify()
    rows = [
        repr(sorted(row.items()))
        for path in sorted(folder.glob("store/*/shard-*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    return store.teachers(), sorted(rows)


def student(folder: Path) -> Any:
    return _trained(folder / "student")


def _trained(folder: Path) -> Any:
    record = {k: v for k, v in read_json(folder / "training.json").items() if k not in TIMES}
    files = {
        str(path.relative_to(folder)): digest_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in UNLIKE
    }
    return files, record


def index(folder: Path) -> Any:
    opened = Index.open(folder / "index")
    vectors = np.eye(opened.vectors.dimensions, dtype=np.float32)[:4]
    files = {name: digest_file(folder / "index" / name) for name in ("index.faiss", "ids.arrow")}
    return files, opened.search_vectors(vectors, 5)


def run_file(folder: Path) -> Any:
    return (folder / "run.trec").read_text()


def whole_run(folder: Path) -> Any:
    out = folder / "out"
    scores = [
        repr(sorted(row.items()))
        for path in sorted(out.glob("scores/*/shard-*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    results = json.loads((out / "results.json").read_text())
    return {
        "rankings": {path.name: path.read_text() for path in sorted(out.glob("runs/*.trec"))},
        "students": {path.name: _trained(path) for path in sorted(out.glob("students/[!.]*"))},
        "indexes": {str(p.relative_to(out)): digest_file(p) for p in out.glob("indexes/*/*.faiss")},
        "scores": sorted(scores),
        "results": {name: results[name] for name in ("systems", "comparisons")},
        "weights": read_json(out / "teacher.json")["weights"],
    }


def calls_recorded(folder: Path) -> int:
    """The calls of servers that usage.jsonl counts."""
    used = [read_usage(path.parent) for path in folder.glob("store/*/usage.jsonl")]
    return sum(usage.calls for usage in used if usage)


def left_over(folder: Path) -> Iterator[str]:
    """Yield names of what was only needed while a command was at work, without their digests."""
    for pattern in ("*.part", "*.old", "*.saving", "*.training", ".calls-*", ".shard*"):
        for path in folder.rglob(pattern):
            if not any(part.endswith(".part") for part in path.parts[:-1]):
                where = path.relative_to(folder).parts
                yield "/".join(re.sub(r"[0-9a-f]{16,}|\.[a-z0-9_]{8}(?=\.)", "…", p) for p in where)
