"""Trains with Sentence Transformers alone, on what a run of benchmarks/adaptation.py has stored.

    python -m benchmarks.st_recipe --collections cranfield,cacm --seconds 120

What a user would write without this package: the encoder, `MultipleNegativesRankingLoss` on pairs
of a query and its document, and `DistillKLDivLoss` on the same teacher scores, in turns, through
`SentenceTransformerTrainer`, stopped after the given seconds. A query's document is the one that
its sentence is from (without judgments), or a relevant one. Everything is encoded again with the
trained model. Needs the run's stored scores: benchmarks/adaptation.py first, with the same --out
and overrides. `layers` has the queries and scores of `documents`: either will do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adaptation import JUDGED, MEASURES, configured
from benchmarks.measure import RESULTS
from retrieval_kd.files import read_json, write_json

RESULT = RESULTS / "st_recipe.json"
SLATE, BATCH, TOKENS, RATE = 4, 16, 128, 2e-5
STUDENT, TEACHER = 0.05, 0.5  # temperatures, as in configs/adapt.yaml
ENOUGH = 20_000  # rows of a dataset: more than are read in the time


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, search and evaluate on each collection, and write the results as they arrive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collections", default="cranfield,cacm,squad,scifact")
    parser.add_argument("--recipe", default="documents", choices=["documents", "layers", "judged"])
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--results", type=Path, default=RESULT)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    for name in options.collections.split(","):
        if options.recipe == "judged" and name not in JUDGED:
            continue
        for seed in map(int, options.seeds.split(",")):
            results = read_json(options.results) if options.results.exists() else {}
            key = f"{options.recipe}/{name}/seed{seed}"
            if key not in results:
                results[key] = one(options, name, seed)
                write_json(options.results, results)
            print(key, results[key], flush=True)


def one(options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train with one seed on one collection, and return its means and what was done."""
    from retrieval_kd.metrics.measures import evaluate
    from retrieval_kd.metrics.significance import compare
    from retrieval_kd.pipeline.context import RunContext
    from retrieval_kd.retrieval.dense import dense_run
    from retrieval_kd.workspace import Workspace

    config = configured(options.recipe, name, options.out, [seed], options.overrides)
    context = RunContext(config, Workspace(config.out))
    test = context.queries("test")
    with tempfile.TemporaryDirectory() as folder:
        steps, taken = train(context, seed, options.seconds, folder)
        run = dense_run(
            context.collection, test.texts, folder, max_length=config.student.max_length
        )
    runs = {"sentence-transformers": run, **context.runs(["encoder"])}
    evaluation = evaluate(test.qrels, runs, list(MEASURES))
    [test_of] = compare(evaluation, baseline="encoder", measures=[MEASURES[0]])
    return {
        **{m: round(evaluation.mean("sentence-transformers", m), 5) for m in MEASURES},
        "encoder": round(evaluation.mean("encoder", MEASURES[0]), 5),
        "p": test_of.p,
        "steps": steps,
        "training_seconds": round(taken, 1),
        "settings": {"slate": SLATE, "batch": BATCH, "tokens": TOKENS, "learning_rate": RATE},
    }


def train(context: Any, seed: int, seconds: float, folder: str) -> tuple[int, float]:
    """Train the run's encoder for some seconds, and save it. Returns steps and seconds."""
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.training_args import (
        MultiDatasetBatchSamplers,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.util import pairwise_cos_sim
    from transformers import TrainerCallback

    from retrieval_kd.models.load import load_encoder

    model: SentenceTransformer = load_encoder(context.config.encoder, max_length=TOKENS)
    datasets = rows(context, seed)
    started = time.monotonic()

    class Stop(TrainerCallback):  # type: ignore[misc]
        """Stops the training when its time is over."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = time.monotonic() - started > seconds

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=f"{folder}/trainer",
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=10,
            multi_dataset_batch_sampler=MultiDatasetBatchSamplers.ROUND_ROBIN,
            save_strategy="no",
            report_to="none",
            seed=seed,
            disable_tqdm=True,
        ),
        train_dataset=datasets,
        loss={
            "pairs": losses.MultipleNegativesRankingLoss(model),
            "scores": losses.DistillKLDivLoss(
                model,
                similarity_fct=pairwise_cos_sim,
                student_temperature=STUDENT,
                teacher_temperature=TEACHER,
            ),
        },
        callbacks=[Stop()],
    )
    trainer.train()
    taken = time.monotonic() - started
    model.save(folder)
    return int(trainer.state.global_step), taken


def rows(context: Any, seed: int) -> dict[str, Any]:
    """Return the two datasets: pairs, and queries with documents and teacher scores."""
    from datasets import Dataset

    from retrieval_kd.errors import Drops
    from retrieval_kd.pipeline.pools import stage_pools

    stage = next(iter(context.config.students.values())).all_stages[0]
    pools, _ = stage_pools(stage, context.ensemble, context.config.encoder, Drops())
    texts = [document.full for document in context.collection.documents.iterate()]
    rng = np.random.default_rng(seed)
    pairs, scores = [], []
    for at in rng.permutation(len(pools))[:ENOUGH]:
        pool = pools[at]
        relevant = pool.positions[pool.gains > 0]
        own = relevant if len(relevant) else pool.ignored
        if len(own):
            pairs.append({"query": pool.query, "document": texts[rng.choice(own)]})
        if len(pool.positions) < SLATE or np.isnan(pool.teacher).any():
            continue
        drawn = rng.choice(len(pool.positions), SLATE, replace=False)
        documents = {f"document{n}": texts[pool.positions[i]] for n, i in enumerate(drawn)}
        label = pool.teacher[drawn].tolist()
        scores.append({"query": pool.query, **documents, "label": label})
    return {"pairs": Dataset.from_list(pairs), "scores": Dataset.from_list(scores)}


if __name__ == "__main__":
    main()
