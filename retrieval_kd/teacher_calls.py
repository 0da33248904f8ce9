"""What teachers are asked for the training of one student, stored ones and live ones.

Counted from a run's candidates and settings, so also of a run whose teachers answered long ago.
"""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_kd.config import Config
from retrieval_kd.files import read_json
from retrieval_kd.lesson_pools import draws_unlabelled
from retrieval_kd.lessons import Lesson, Training
from retrieval_kd.stages import Stages


def teacher_calls(config: Config, training: Training, stages: Stages) -> dict[str, int]:
    """`stored`: pairs that stored teachers are asked; `live`: texts or pairs that live ones are.

    Of one seed. A pair counts once for each teacher, in however many stages it is learnt from, and
    also where the answer was stored before. Upper bounds: a stage that refreshes its candidates may
    find some that it had, a live encoder is given a document once where slates of a batch share it.
    Pairs of dev and test queries are none of the training's.
    """
    stored = live = 0
    asked: set[tuple[str, str]] = set()
    for lesson in training.lessons:
        settings = config.settings_of(training, lesson, seed=config.seeds[0])
        queries = settings.steps * settings.batch_queries
        for teacher in lesson.live.values():
            texts = 0 if teacher.kind == "cross_encoder" else queries
            live += queries * settings.slate_size + texts
        members = asked_members(lesson, config.teacher.members, stages)
        for part in ["train", "unlabelled"] if draws_unlabelled(config, lesson) else ["train"]:
            new = [member for member in members if (member, part) not in asked]
            asked.update((member, part) for member in new)
            stored += len(new) * _pairs(stages, part) if new else 0
            if lesson.refresh and members:
                stored += len(members) * lesson.refresh * len(stages.queries(part).texts)
    return {"stored": stored, "live": live}


def asked_members(lesson: Lesson, members: Sequence[str], stages: Stages) -> list[str]:
    """The stored teachers that a stage wants scores of."""
    singly = any(term.asks_members for term in lesson.objective)
    if not lesson.asks_teacher and not singly:
        return []
    weights = lesson.teachers or read_json(stages.work.path("teacher.json"))["weights"]
    named = {number for term in lesson.objective for number in term.members} if singly else set()
    return [m for number, m in enumerate(members) if weights.get(m) or number in named]


def _pairs(stages: Stages, part: str) -> int:
    """A part's candidates, and the train part's judged relevant documents that are none of them."""
    candidates = stages.candidates(part)
    judged = stages.queries(part).qrels if part == "train" else {}
    missed = sum(
        gain > 0 and document not in candidates.get(query, {})
        for query, gains in judged.items()
        for document, gain in gains.items()
    )
    return sum(map(len, candidates.values())) + missed
