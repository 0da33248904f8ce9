"""A training job: the model, the data, the objectives and the settings of one training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers.base.modules import Module

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import log
from retrieval_kd.files import digest_json
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.models.layers import weights_digest
from retrieval_kd.models.load import model_digest
from retrieval_kd.training.batches.plain_texts import PlainTexts
from retrieval_kd.training.batches.slates import Pool, digest_pools
from retrieval_kd.training.live_models import LiveModel
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.trainer.curve import DevTask
from retrieval_kd.training.trainer.devices import processes
from retrieval_kd.training.trainer.settings import TrainSettings

Groups = Mapping[str, tuple[int, int, float]]  # name → first pool, end, share of the rows


@dataclass(frozen=True)
class TrainingJob:
    """Everything that decides what a training run does, and the folder it saves the model in.

    Args:
        student: the model to train, of any kind.
        pools: queries with candidates and targets, from `build_pools`.
        documents: the texts of the collection, which the pools refer to by position.
        terms: the objectives, whose weighted sum is minimised.
        out: folder for the trained model and its `training.json`.
        dev: the retrieval task that the learning curve is measured on every `settings.eval_steps`
            steps. Cross-encoders have no learning curve.
        groups: how large a share of the training each range of pools gets. By default all pools are
            drawn equally often.
        teacher_length: maximum number of tokens of a text for the models whose vectors are targets.
        live: live teachers by the name that terms use. A live teacher that is trained is saved in
            `out/live/NAME`.
        start: what identifies the model as the training starts, where it is not loaded yet. By
            default its weights and configuration.
        texts: in place of pools, texts that the student goes through one by one. The objectives
            are on vectors or states then, and a batch has `batch_queries` texts.
        made: how the model was made, for `training.json`.
    """

    student: Any
    pools: Sequence[Pool]
    documents: Texts
    terms: Sequence[Term]
    settings: TrainSettings
    out: Path
    dev: DevTask | None = None
    groups: Groups = field(default_factory=dict)
    teacher_length: int | None = None
    live: Mapping[str, LiveModel] = field(default_factory=dict)
    start: Any = None
    texts: PlainTexts | None = None
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Cut a batch that is larger than the data: a query twice in it would only cost time."""
        shared = max(1, self.rows // processes()) * processes()
        asked = self.settings.batch_queries
        if asked > shared:
            log.warning(
                "a batch of %d %s is more than the %d there are to train on; cut to %d",
                asked, "queries" if self.texts is None else "texts", self.rows, shared,
            )  # fmt: skip
            fitting = self.settings.model_copy(update={"batch_queries": shared})
            object.__setattr__(self, "settings", fitting)

    @property
    def rows(self) -> int:
        """Number of what the schedule draws from: pools, or texts."""
        return len(self.pools) if self.texts is None else len(self.texts)

    @cached_property
    def identity(self) -> str:
        """Digest of everything that decides the result on one machine.

        It is computed on first use, which must be before the training changes the weights.
        """
        return digest_json(
            [
                self.start or state_of(self.student),
                [digest_pools(self.pools), self.documents.digest, *self._texts_digest()],
                self.settings.model_dump(),
                dtype_name(fast_dtype()),
                self.terms_as_json,
                [[model_digest(model), self.teacher_length] for model in self.vector_models],
                [model_digest(model) for model in self._models_of("states")],
                dict(self.groups),
                asdict(self.dev) if self.dev else None,
                {name: [state_of(t.model), t.trains] for name, t in self.live.items()},
            ]
        )

    @property
    def terms_as_json(self) -> list[dict[str, Any]]:
        return [term.model_dump() for term in self.terms]

    @property
    def vector_models(self) -> list[str]:
        """The models whose vectors are targets."""
        return self._models_of("vectors")

    @property
    def trained_live(self) -> dict[str, Any]:
        """Live teachers that are trained along with the student.

        The keys are the subfolders of `out` that they are saved in.
        """
        return {f"live/{name}": t.model for name, t in self.live.items() if t.trains}

    def _texts_digest(self) -> list[str]:
        return [] if self.texts is None else [self.texts.digest]

    def _models_of(self, kind: str) -> list[str]:
        return list(dict.fromkeys(term.teacher for term in self.terms if term.kind == kind))


def state_of(model: Any) -> list[Any]:
    """Everything a model's scores depend on: weights, maximum length, modules, configurations."""
    config = {k: v for k, v in model._get_model_config().items() if k != "__version__"}
    # The configuration of a head is neither in the weights nor in `str(model)`.
    modules = [m.get_config_dict() for m in model.modules() if isinstance(m, Module)]
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    state = [weights_digest(model), model.max_seq_length, str(model), config, modules]
    return [*state, frozen] if frozen else state


def schedule(pools: int, settings: TrainSettings, groups: Groups | None = None) -> Dataset:
    """Choose the pool that each row of the training draws from: rows `{"pool", "draw"}`.

    Args:
        groups: shares of the rows, for instance judged and unlabelled queries half and half.
            Without groups all pools are drawn equally often.
    """
    rng = np.random.default_rng([settings.seed, 17])
    rows = settings.steps * settings.batch_queries
    parts = [p for p in (groups or {"all": (0, pools, 1.0)}).values() if p[1] > p[0] and p[2] > 0]
    ends = np.round(np.cumsum([share for *_, share in parts]) / sum(p[2] for p in parts) * rows)
    counts = np.diff(ends.astype(int), prepend=0)
    chosen = []
    for (start, stop, _), count in zip(parts, counts, strict=True):
        passes = -(-int(count) // (stop - start))
        ordered = [rng.permutation(np.arange(start, stop)) for _ in range(passes)]
        chosen.append(np.concatenate([*ordered, np.zeros(0, np.int64)])[:count])
    pool = np.concatenate(chosen).astype(np.int64)
    return Dataset.from_dict({"pool": rng.permutation(pool), "draw": np.arange(rows)})
