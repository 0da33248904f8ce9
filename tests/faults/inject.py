"""Damages one file of what is kept on disk, uses it, and compares the result with the true one.

A fault is a flipped bit, a cut-off end or a deleted file. It must be found (an error that names the
file, or a warning and an equal result, because a cache is built again) or harmless (the result is
equal).
"""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_file, digest_text, seal
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models.encode import document_vectors
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.store.answers import AnswerStore, Row
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import Spent, read_usage, record_usage
from retrieval_kd.training.trainer.checkpoints import finished, last_whole_checkpoint
from retrieval_kd.workspace import Stage, Workspace
from tests.tiny_models import write_collection, write_encoder

POINTWISE = TeacherKey("pointwise", "big", digest="ab12")
PAIRWISE = TeacherKey("pairwise", "judge", digest="ab12")


@dataclass(frozen=True)
class Kept:
    """A kind of kept files: `use` a folder of them, which makes them if they are missing."""

    use: Callable[[Path], Any]
    files: str = "**/*"


class Injector:
    """All kinds, made once in `folder`; a fault is injected into a copy."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.dice = folder, random.Random(seed)
        self.collection = write_collection(folder / "data")
        self.encoder = write_encoder(folder / "encoder", layers=1)
        self.kinds = {
            "collection": Kept(self._collection, "cache/collections/**/*"),
            "bm25": Kept(self._bm25, "cache/bm25/**/*"),
            "vectors": Kept(self._vectors, "cache/vectors/**/*"),
            "index": Kept(self._index, "index/*"),
            "scores": Kept(_scores),
            "answers": Kept(_answers),
            "stages": Kept(_stages),
            "checkpoint": Kept(_checkpoint),
            "student": Kept(_student),
        }
        self.true = {}
        for name, kind in self.kinds.items():
            (folder / name).mkdir()
            kind.use(folder / name)
            self.true[name] = kind.use(folder / name)

    def inject(self, name: str) -> str:
        """Inject one fault. Returns "found" or "harmless"; anything else is an error."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder / name, copy)
        kind = self.kinds[name]
        files = [path for path in sorted(copy.glob(kind.files)) if path.is_file()]
        path = self.dice.choice([path for path in files if not path.name.startswith(".")])
        fault = _damage(path, self.dice)
        what = f"{fault} of {path.relative_to(copy)}"
        with warnings() as warned:
            try:
                result = kind.use(copy)
            except InputError:
                return "found"
            except Exception as error:
                raise AssertionError(f"{what}: {error!r}") from error
        assert result == self.true[name], f"{what} changed the result without a word"
        return "found" if warned else "harmless"

    def _collection(self, folder: Path) -> Any:
        with cache(folder):
            opened = open_collection(self.collection)
            texts = [
                tuple(t) for part in (opened.documents, opened.queries) for t in part.iterate()
            ]
            return texts, {split: opened.qrels(split) for split in opened.splits}

    def _bm25(self, folder: Path) -> Any:
        with cache(folder):
            opened = open_collection(self.collection)
            return bm25_run(opened, opened.query_texts("test"), 5).results

    def _vectors(self, folder: Path) -> Any:
        with cache(folder):
            texts = open_collection(self.collection).documents
            return np.array(document_vectors(str(self.encoder), texts)).tobytes()

    def _index(self, folder: Path) -> Any:
        if not (folder / "index").exists():
            with cache(folder):
                opened = open_collection(self.collection)
                build_index(opened, str(self.encoder), IndexSpec(), folder / "index")
        index = Index.open(folder / "index")
        vectors = np.eye(index.vectors.dimensions, dtype=np.float32)[:4]
        return index.search_vectors(vectors, 5), index.manifest


def _scores(folder: Path) -> Any:
    store, query = ScoreStore(folder), digest_text("q")
    documents = [digest_text("", str(n)) for n in range(30)]
    if not list(folder.iterdir()):
        for start in range(0, 30, 10):
            chosen = documents[start : start + 10]
            with store.writer(POINTWISE) as writer:
                ids = [f"d{start + n}" for n in range(10)]
                writer.add(["q"] * 10, ids, [query] * 10, chosen, np.arange(start, start + 10) / 7)
        record_usage(store.folder(POINTWISE), Spent(calls=3, prompt_tokens=70))
    _verify(store)
    return store.lookup(POINTWISE, [query] * 30, documents).tolist(), store.teachers()


def _answers(folder: Path) -> Any:
    store, one, two = ScoreStore(folder), digest_text("one"), digest_text("two")
    answers = AnswerStore(store.folder(PAIRWISE), PAIRWISE)
    if not list(folder.iterdir()):
        for number in range(3):
            query = digest_text(str(number))
            with answers.writer() as writer:
                odds = Answer(log_odds=number / 3)
                writer.add([Row(f"q{number}", ("a", "b"), query, (one, two), odds)])
    _verify(store)
    return list(answers.rows()), store.teachers()


def _verify(store: ScoreStore) -> None:
    problems = store.verify()
    for key in store.teachers():
        read_usage(store.folder(key))
    if problems:
        raise InputError(str(problems[0]))


def _stages(folder: Path) -> Any:
    work = Workspace(folder)
    for number in range(3):
        name = f"stage{number}"
        work.add(Stage(name, lambda name=name: _run_stage(work, name), (f"{name}.json",), number))
    work.execute(lambda stage, done, number: None)
    names = [stage.name for stage in work.stages]
    facts = [work.record(name)["facts"] for name in names]
    return facts, [work.path(f"{name}.json").read_text() for name in names]


def _run_stage(work: Workspace, name: str) -> dict[str, Any]:
    work.path(f"{name}.json").write_text(f'{{"made by": "{name}"}}')
    return {"queries": len(name), "said": name}


def _weights(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(("model.safetensors", "optimizer.pt", "trainer_state.json")):
        (folder / name).write_bytes(random.Random(number).randbytes(2_000))


def _checkpoint(folder: Path) -> Any:
    made = folder / "checkpoint-2"
    if not list(folder.iterdir()):
        _weights(made)
        seal(made, "mine")
    if last_whole_checkpoint(folder, "mine") is None:
        raise InputError("the training starts again")
    return {path.name: digest_file(path) for path in made.iterdir() if path.name != "seal.json"}


def _student(folder: Path) -> Any:
    out = folder / "s"
    if not out.exists():
        _weights(out)
        (out / "training.json").write_text('{"identity": "mine"}')
        seal(out)
    if not finished(out, "mine"):
        raise InputError("it is trained again")
    return {path.name: digest_file(path) for path in out.iterdir() if path.name != "seal.json"}


def _damage(path: Path, dice: random.Random) -> str:
    """Damage a file; returns what was done."""
    data = bytearray(path.read_bytes())
    fault = dice.choice(("flip", "flip", "flip", "cut", "deletion"))
    if fault == "deletion" or not data:
        path.unlink()
        return "deletion"
    place = dice.randrange(len(data))
    if fault == "cut":
        path.write_bytes(data[:place])
        return f"cut at byte {place}"
    data[place] ^= 1 << dice.randrange(8)
    path.write_bytes(data)
    return f"flip at byte {place}"


@contextmanager
def cache(folder: Path) -> Any:
    """Keep derived data in `folder`/cache."""
    before = os.environ.get("RETRIEVAL_KD_CACHE")
    os.environ["RETRIEVAL_KD_CACHE"] = str(folder / "cache")
    try:
        yield
    finally:
        os.environ.pop("RETRIEVAL_KD_CACHE")
        if before is not None:
            os.environ["RETRIEVAL_KD_CACHE"] = before


@contextmanager
def warnings() -> Any:
    """Yield a list that the package's warnings are added to."""
    seen: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = seen.append  # type: ignore[method-assign]
    logger = logging.getLogger("retrieval_kd")
    logger.addHandler(handler)
    try:
        yield seen
    finally:
        logger.removeHandler(handler)


def inject_all(folder: Path, faults: int, seed: int) -> dict[str, Counter[str]]:
    """Inject so many faults, the kinds in turn; counts what became of them, by kind."""
    injector, counts = Injector(folder, seed), defaultdict(Counter)
    names = list(injector.kinds)
    for number in range(faults):
        name = names[number % len(names)]
        counts[name][injector.inject(name)] += 1
    return counts
