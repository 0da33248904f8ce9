"""The settings of a training run. They can be checked without importing torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retrieval_kd.schema import Part, Tokens

Sampling = Literal["random", "stratified", "bands", "hardest"]


class TrainSettings(Part):
    """How a model is trained. Defaults are for two CPU cores."""

    steps: int = Field(200, ge=1, le=10_000_000, description="optimizer steps")
    batch_queries: int = Field(32, ge=1, le=1_000_000, description="queries in a batch")
    slate_size: int = Field(
        4, ge=2, le=10_000, description="candidates per query, the positive included"
    )
    slate_depth: int = Field(
        30, ge=1, description="number of the teacher's best candidates that slates are drawn from"
    )
    sampling: Sampling = Field(
        "random",
        description="of a slate's candidates. random: evenly; stratified: one from each part of "
        "the teacher's order; bands: evenly over the range of its scores; hardest: its best",
    )
    learning_rate: float = Field(1e-4, gt=0, le=1, description="peak of AdamW, per step")
    head_learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="of what lies above the encoder: new heads, projections, a live teacher's "
        "classifier, the word weights of a token table. By default learning_rate, "
        "and ten times as much for word weights",
    )
    warmup: float = Field(0.1, ge=0, le=1, description="share of steps with a rising rate")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    max_tokens: Tokens = Field(
        64, description="training length: a document's (student), a pair's (teacher)"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="probability in all dropout layers")
    seed: int = Field(0, ge=0, description="of slates, order and dropout")
    eval_steps: int = Field(50, ge=1, description="steps between points of the learning curve")
    save_steps: int = Field(50, ge=1, description="steps between checkpoints")
    mini_batch_size: int | None = Field(
        None,
        ge=1,
        description="texts encoded at a time with cached gradients, for big batches in little "
        "memory (texts); by default the whole batch at once, which is faster",
    )
    group_size: int = Field(
        32, ge=1, description="texts (or pairs) encoded together, after sorting by length"
    )


FIT_DEFAULTS = TrainSettings(
    steps=150, batch_queries=8, slate_size=8, max_tokens=128, learning_rate=5e-5
)
# with the rate of LoRA's authors for GPT-2 and GPT-3 (Hu et al. 2021, appendix D)
LORA_DEFAULTS = FIT_DEFAULTS.model_copy(update={"learning_rate": 2e-4})


def check_uncached(mini_batch_size: int | None) -> None:
    """Refuse cached gradients for a re-ranker, whether teacher or student."""
    if mini_batch_size is not None:
        raise ValueError("mini_batch_size: a re-ranker's gradients are not cached; leave it out")
