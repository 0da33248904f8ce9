"""Prefix caching and batching by length against the plain transformers loop, on the same prompts.

    python -m benchmarks.prefix_cache [--queries 4] [--depth 16] [--rounds 3] [--width 384]

A Llama-style decoder with random weights answers yes or no about a query's BM25 candidates: one
prompt at a time as on model cards, in padded batches, and by `LocalModel` without and with its
prefix cache. Measures the speed of each, the tokens it reads, and its numerical differences.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.decoders import HEAD, make_tokenizer
from benchmarks.measure import interleaved, save
from retrieval_kd import Collection, open_collection
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.llm.prefix_cache import share_prefixes
from retrieval_kd.teachers.llm.prompts import passages
from retrieval_kd.teachers.llm.protocol import Prompt
from retrieval_kd.teachers.pointwise.yes_no import TEMPLATES


def main() -> None:
    """Print the table and write results/prefix_cache.json."""
    arguments = parse()
    collection = open_collection(arguments.collection)
    folder = Path(tempfile.mkdtemp(prefix="decoder-"))
    make_model(folder, collection, arguments)
    sharing = LocalModel(str(folder), dtype=torch.float32)
    whole = LocalModel(str(folder), dtype=torch.float32, share_prefixes=False)
    fast = LocalModel(str(folder), dtype=fast_dtype())
    prompts = prompts_of(collection, sharing, arguments)
    answers = list(TEMPLATES[0].answers)
    plain = "transformers, one by one"
    sides = {
        plain: lambda: in_batches(sharing, prompts, answers, 1),
        "transformers, padded batches of 16": lambda: in_batches(sharing, prompts, answers, 16),
        "batched by length": lambda: whole.options(prompts, answers),
        "batched by length, prefixes shared": lambda: sharing.options(prompts, answers),
    }
    if fast.dtype != sharing.dtype:
        sides[f"the same in {fast.dtype}"] = lambda: fast.options(prompts, answers)
    for function in sides.values():  # load and warm up
        function()
    timed = interleaved(sides, arguments.rounds)
    base = timed[plain]
    least = statistics.median(base.processor)  # a busy machine disturbs it less than wall time
    rows = {}
    for name, side in timed.items():
        rows[name] = {
            "prompts_per_second": round(len(prompts) / side.median, 2),
            "ratio_to_one_by_one": round(base.median / side.median, 2),
            "ratio_of_processor_time": round(least / statistics.median(side.processor), 2),
            "largest_difference": float(np.abs(side.result - base.result).max()),
            "seconds": [round(t, 2) for t in side.wall],
            "processor_seconds": [round(t, 2) for t in side.processor],
        }
        print(
            f"{name:36} {rows[name]['prompts_per_second']:8} prompts/s "
            f"{rows[name]['ratio_to_one_by_one']:6}× "
            f"({rows[name]['ratio_of_processor_time']}× in processor time)  "
            f"largest difference {rows[name]['largest_difference']:.1e}"
        )
    record = {"settings": vars(arguments), "tokens": tokens(sharing, prompts), "systems": rows}
    print(record["tokens"])
    print(save("prefix_cache", record))


def make_model(folder: Path, collection: Collection, arguments: Any) -> None:
    """Save a decoder with random weights and a tokenizer trained on the collection."""
    torch.manual_seed(0)
    texts = [document.full for document in collection.documents.iterate(0, 2_000)]
    tokenizer = make_tokenizer(texts, [], 8_000)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.width // HEAD,
        num_key_value_heads=arguments.width // HEAD // 2,
        intermediate_size=3 * arguments.width,
        max_position_embeddings=4096,
        initializer_range=0.05,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def prompts_of(collection: Collection, model: LocalModel, arguments: Any) -> list[Prompt]:
    """Make prompts about the first test queries' BM25 candidates, query by query."""
    queries = dict(list(collection.query_texts("test").items())[: arguments.queries])
    run = bm25_run(collection, queries, arguments.depth)
    pairs = [(queries[q], d) for q, ranking in run.results.items() for d in ranking]
    texts = [collection.documents[d].full for _, d in pairs]
    shown = passages(model, texts, arguments.passage_tokens)
    return [
        TEMPLATES[0].fill(query=query, passage=passage)
        for (query, _), passage in zip(pairs, shown, strict=True)
    ]


@torch.inference_mode()
def in_batches(
    reader: LocalModel, prompts: Sequence[Prompt], answers: Sequence[str], size: int
) -> np.ndarray:
    """Score prompts the plain way: padded batches in order, logits of the last token."""
    tokenizer, model = reader.tokenizer, reader.model
    tokenizer.padding_side = "left"
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in answers]
    scores = []
    for start in range(0, len(prompts), size):
        texts = [reader.renderer.render(prompt) for prompt in prompts[start : start + size]]
        tokens = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        tokens.pop("token_type_ids", None)
        logits = model(**tokens.to(model.device), logits_to_keep=1).logits[:, -1]
        scores.append(logits.float().log_softmax(dim=-1)[:, ids].cpu().numpy())
    return np.concatenate(scores)


def tokens(reader: LocalModel, prompts: Sequence[Prompt]) -> dict[str, int]:
    """Count the prompts' tokens, and those left if each group's prefix is read once."""
    rows = reader.renderer.tokens([reader.renderer.render(prompt) for prompt in prompts])
    groups = share_prefixes(rows, [1] * len(rows))
    saved = sum((len(group.rows) - 1) * group.shared for group in groups)
    whole = sum(map(len, rows))
    return {"prompts": len(rows), "tokens": whole, "read with shared prefixes": whole - saved}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="python-api")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--passage-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
