"""A live teacher as a stage of a training wants it: opened, and fine-tuned first where asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrieval_kd.config.training import LiveTeacher
from retrieval_kd.data.texts import Texts
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.live_models import LiveCrossEncoder, LiveEncoder, open_live
from retrieval_kd.training.trainer.settings import TrainSettings


def live_teacher(
    teacher: LiveTeacher,
    start: str,
    judged: Sequence[Pool],
    documents: Texts,
    settings: TrainSettings,
    folder: Path,
) -> LiveEncoder | LiveCrossEncoder:
    """Open a stage's live teacher.

    Args:
        start: MODEL of the student as the stage begins, which a teacher may be, too.
        judged: the stage's pools of train queries; a teacher with `fit` learns those first that
            have a judged relevant document.
        settings: of the stage.
        folder: where a teacher is kept that was fine-tuned first; not made again if it is there.
    """
    model, layers = start if teacher.model == "start" else teacher.model, teacher.layers
    if teacher.fit is not None:
        relevant = [pool for pool in judged if (pool.gains > 0).any()]
        fitting = teacher.fitting(seed=settings.seed)
        fit_teacher(model, relevant, documents, folder, layers=layers, settings=fitting)
        model, layers = str(folder), None
    return open_live(
        model,
        teacher.kind,
        layers=layers,
        trains=teacher.trains,
        max_length=settings.max_tokens,
        seed=settings.seed,
    )
