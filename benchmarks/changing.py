"""Changes indexes at random, kills every third change, and compares with indexes built anew.

    python -m benchmarks.changing --changes 1000 --seed 0

Each change runs in a process of its own: it adds, replaces or deletes one to three documents, or
compacts. A kill comes at a random one of its changes of a file. After it, the index must hold the
documents from before the change or those from after it, pass `rkd index verify`, and show no
deleted document; then the change is made again if it was lost. At the end, the index and one that
is built anew from the final documents answer the same queries. Exact indexes must give the same
scores; of the others the share of the true ten best is given for both.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import save
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.texts import Document
from retrieval_kd.indexing import build, change, index
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.indexing.verify import verify_index
from retrieval_kd.models.load import load_retriever
from retrieval_kd.students.make import make_student
from tests.faults.kill import in_child
from tests.tiny_models import TOPICS, write_collection, write_encoder

SPECS = {
    "flat": IndexSpec(),
    "hnsw": IndexSpec(factory="HNSW16", search="efSearch=32", threads=1),
    "ivf": IndexSpec(factory="IVF8,SQ8", search="nprobe=4"),
    "sparse": IndexSpec(kind="sparse"),
    "multi_vector": IndexSpec(kind="multi_vector"),
}
EXACT = ("flat", "sparse", "multi_vector")
WORDS = [word for words in TOPICS.values() for word in words.split()]
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
MOST = 60  # writes of a change, of which one is drawn
DEPTH = 10

Documents = dict[str, Document]


class Changing:
    """An index of one kind and the documents that it should hold."""

    def __init__(self, home: Path, kind: str, dice: random.Random) -> None:
        self.home, self.kind, self.dice = home, kind, dice
        self.folder, self.counts = home / "index", Counter[str]()
        self.problems: list[str] = []
        home.mkdir(parents=True)
        data = write_collection(home / "data", documents_per_topic=50)
        self.model = str(home / "model")
        in_child(lambda: self._write_model())
        loaded = in_parent(self.model)
        for module in (build, change, index):
            module.load_retriever = loaded  # type: ignore[attr-defined]
        self.truth: Documents = {d.id: d for d in open_collection(data).documents.iterate()}
        in_child(lambda: self._build(data, self.folder))

    def _write_model(self) -> None:
        write_encoder(self.home / "encoder")
        if SPECS[self.kind].kind == "faiss":
            (self.home / "encoder").rename(self.model)
        else:
            made = make_student(str(self.home / "encoder"), self.kind, [0])
            made.save(self.model)

    def _build(self, data: Path, to: Path) -> None:
        build.build_index(open_collection(data), self.model, SPECS[self.kind], to)

    def change(self, number: int) -> None:
        do, after = self._draw(number)
        at = self.dice.randint(1, MOST) if number % 3 == 0 else 0
        status = self._attempt(do, at)
        if status == -signal.SIGKILL:
            self.counts["kills"] += 1
            found = in_child(lambda: self._state(after))
            self.counts[f"left {found}"] += 1
            if found == "neither":
                self.problems.append(f"change {number}, killed at write {at}: {found}")
            if found == "new" or after is self.truth or self._attempt(do, 0) == 0:
                status = 0
        if status != 0:
            self.problems.append(f"change {number}: status {status}")
        self.truth = after

    def _draw(self, number: int) -> tuple[Callable[[], Any], Documents]:
        """A change, and the documents after it."""
        dice, kind = self.dice, self.dice.random()
        some = dice.sample(sorted(self.truth), dice.randint(1, 3))
        if kind < 0.03:
            self.counts["compacted"] += 1
            return lambda: change.compact_index(self.folder), self.truth
        if kind < 0.35:
            self.counts["deleted"] += 1
            after = {id: d for id, d in self.truth.items() if id not in some}
            return lambda: change.delete_documents(self.folder, some), after
        ids = some if kind < 0.6 else [f"new{number}-{n}" for n in range(len(some))]
        self.counts["replaced" if kind < 0.6 else "added"] += 1
        new = {id: Document(id, "", " ".join(dice.choices(WORDS, k=dice.randint(2, 12))))
               for id in ids}  # fmt: skip
        return lambda: change.add_documents(self.folder, new.values()), {**self.truth, **new}

    def _attempt(self, do: Callable[[], Any], at: int) -> int:
        """Make a change in a process that is killed before its write number `at`; 0: never."""
        child = os.fork()
        if child == 0:
            code = 70
            try:
                sys.addaudithook(self._killer(at))
                do()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def _killer(self, at: int) -> Callable[[str, tuple[Any, ...]], None]:
        made, folder = 0, str(self.folder)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal made
            writes = event in WRITES or (
                event == "open"
                and isinstance(arguments[2], int)
                and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            )
            if writes and (str(arguments[0]).startswith(folder) or event in WRITES[1::2]):
                made += 1
                if made == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        return hook

    def _state(self, after: Documents) -> str:
        """Whether the index holds the documents from before a change, from after it, or neither."""
        opened = Index.open(self.folder)
        gone = set(opened.deleted.tolist())
        ids = [id for at, id in enumerate(opened.ids.to_pylist()) if at not in gone]
        texts = opened.texts()
        held = {id: texts[id] for id in ids}
        shown = {id for hits in opened.search(self._queries(), DEPTH) for id, _ in hits}
        if len(held) < len(ids) or not shown <= held.keys() or verify_index(self.folder):
            return "neither"
        return "new" if held == after else "old" if held == self.truth else "neither"

    def _queries(self) -> list[str]:
        dice = random.Random(1)
        return [" ".join(dice.sample(WORDS, 3)) for _ in range(50)]

    def result(self) -> dict[str, Any]:
        """Compare with an index that is built anew; must run in a process of its own."""
        rows = [{"_id": d.id, "title": d.title, "text": d.text} for d in self.truth.values()]
        data = self.home / "final"
        data.mkdir()
        (data / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (data / "queries.jsonl").write_text('{"_id": "q", "text": "nest"}\n')
        self._build(data, self.home / "anew")
        changed, anew = Index.open(self.folder), Index.open(self.home / "anew")
        facts = {"documents": len(changed), "segments": len(changed.layout.segments),
                 "state": self._state(self.truth)}  # fmt: skip
        if self.kind in EXACT:
            found, expected = (
                list(map(dict, one.search(self._queries(), len(anew)))) for one in (changed, anew)
            )
            pairs = [(f, e) for f, e in zip(found, expected, strict=True)]
            same = all(f.keys() == e.keys() for f, e in pairs)
            worst = max(abs(f[id] - e[id]) for f, e in pairs for id in f.keys() & e.keys())
            return {**facts, "same documents": same, "largest difference of scores": worst}
        self._build(self.home / "data", self.home / "before")
        before = Index.open(self.home / "before")
        for name, one, of in (("before", before, "data"), ("changed", changed, "final"),
                              ("anew", anew, "final")):  # fmt: skip
            facts[f"recall {name}"] = self._recall(one, self.home / of)
        return facts

    def _recall(self, one: Index, data: Path) -> float:
        """The share of the true ten best among an index's ten best."""
        collection = open_collection(data)
        flat = build.build_index(collection, self.model, IndexSpec(), self.home / "flat")
        lists = zip(*(i.search(self._queries(), DEPTH) for i in (one, flat)), strict=True)
        shares = [len(dict(hits).keys() & dict(best).keys()) / DEPTH for hits, best in lists]
        return round(sum(shares) / len(shares), 4)


def in_parent(model: str) -> Callable[..., Any]:
    """Load a model in the process that all others fork from, so that a change costs no loading."""
    loaded = load_retriever(model, dtype=torch.float32)
    return lambda spec, **more: loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=1000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(SPECS), choices=SPECS)
    options = parser.parse_args()
    os.environ["RETRIEVAL_KD_DTYPE"] = "float32"
    torch.set_num_threads(1)  # a process with threads cannot be forked
    started, kinds = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["RETRIEVAL_KD_CACHE"] = str(Path(home) / "cache")
        for at, kind in enumerate(options.kinds):
            one = Changing(Path(home) / kind, kind, random.Random(f"{options.seed} {kind}"))
            share = range(at, options.changes, len(options.kinds))
            for number in range(len(share)):
                one.change(number)
            result = in_child(one.result)
            kinds[kind] = {**one.counts, **result, "problems": one.problems}
            print(kind, kinds[kind], flush=True)
    seconds = round(time.monotonic() - started)
    kills = sum(count["kills"] for count in kinds.values())
    record = {"settings": vars(options), "seconds": seconds, "kills": kills, "kinds": kinds}
    print(save("changing", record))


if __name__ == "__main__":
    main()
