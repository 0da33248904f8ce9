"""What teachers are asked for the training of one student, stored ones and live ones.

Counted from a run's candidates and settings, so also of a run whose teachers answered long ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from retrieval_kd.config import Config
from retrieval_kd.files import read_json
from retrieval_kd.lesson_pools import draws_unlabelled
from retrieval_kd.lessons import Lesson, Training
from retrieval_kd.stages import Stages
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.teacher_config import and_choosers
from retrieval_kd.teachers.opening import strategy_in


def teacher_calls(config: Config, training: Training, stages: Stages) -> dict[str, int]:
    """`stored`: pairs, questions and texts of stored answers; `live`: texts or pairs of live ones.

    Of one seed. Stored teachers are asked for a score of each pair, or what their strategy wants to
    know of each query's list; models whose vectors are learnt are given every text. All of it
    counts once for each teacher, in however many stages it is learnt from, and also where the
    answer was stored before. Upper bounds: a stage that refreshes its candidates may find some that
    it had, a live encoder is given a document once where slates of a batch share it. What is asked
    again because an answer was garbled or a call failed comes on top. Pairs of dev and test queries
    are none of the training's.
    """
    stored = live = 0
    asked: set[tuple[str, str]] = set()
    for lesson in training.lessons:
        settings = config.settings_of(training, lesson, seed=config.seeds[0])
        queries = settings.steps * settings.batch_queries
        for teacher in lesson.live.values():
            texts = 0 if teacher.kind == "cross_encoder" else queries
            live += queries * settings.slate_size + texts
        re_ranks = config.student_of(training).kind in RE_RANKS
        for _, way in read_along(lesson):
            texts = 0 if re_ranks or way == "feature_imitation" else queries
            live += queries * settings.slate_size + texts
        members = asked_members(lesson, config.teacher.members, stages)
        parts = ["train", "unlabelled"] if draws_unlabelled(config, lesson) else ["train"]
        for part in parts if members else []:
            depths = _depths(stages, part)
            for member in members:
                if (member, part) not in asked:
                    asked.add((member, part))
                    stored += calls_of(member, depths)
                if lesson.refresh:
                    stored += _calls_of_refreshed(member, depths, lesson.refresh)
        for model in imitated(lesson):
            for part in ("documents", *parts):
                if (f"vectors of {model}", part) not in asked:
                    asked.add((f"vectors of {model}", part))
                    stored += _texts(stages, part)
    return {"stored": stored, "live": live}


def calls_of(member: str, depths: Iterable[int]) -> int:
    """How often a stored teacher is asked about lists of so many candidates, at most.

    Example:
        >>> calls_of("org/model", [3, 2]), calls_of("pairwise:org/model", [3, 2])
        (5, 8)
    """
    strategy = strategy_in(member)
    return sum(depths) if strategy is None else sum(map(strategy.calls, depths))


def imitated(lesson: Lesson) -> list[str]:
    """The models whose vectors a stage learns."""
    return list(dict.fromkeys(term.teacher for term in lesson.objective if term.kind == "vectors"))


def read_along(lesson: Lesson) -> list[tuple[str, str]]:
    """The models whose states a stage learns; one that reads in several ways once for each."""
    terms = [term for term in lesson.objective if term.kind == "states"]
    ways = [(term.teacher, term.name if term.reads_texts else "tokens") for term in terms]
    return list(dict.fromkeys(ways))


def asked_members(lesson: Lesson, members: Sequence[str], stages: Stages) -> list[str]:
    """The stored teachers that a stage wants scores of, and those that choose for them."""
    if not lesson.asks_teacher and not any(term.asks_members for term in lesson.objective):
        return []
    weights = lesson.teachers or read_json(stages.work.path("teacher.json"))["weights"]
    named = {number for term in lesson.objective for number in term.named_members}
    return and_choosers(m for n, m in enumerate(members) if weights.get(m) or n in named)


def _calls_of_refreshed(member: str, depths: Sequence[int], more: int) -> int:
    """What is new where each list has so many more; a strategy may ask all of a longer one."""
    if strategy_in(member) is None:
        return more * len(depths)
    return calls_of(member, [depth + more for depth in depths])


def _texts(stages: Stages, part: str) -> int:
    """The collection's `documents`, or a part's queries."""
    return len(stages.collection.documents if part == "documents" else stages.queries(part).texts)


def _depths(stages: Stages, part: str) -> list[int]:
    """Of each query, its candidates and, of the train part, judged relevant others."""
    candidates, queries = stages.candidates(part), stages.queries(part)
    judged = queries.qrels if part == "train" else {}
    wanted = {
        query: {
            *candidates.get(query, {}),
            *(d for d, gain in judged.get(query, {}).items() if gain > 0),
        }
        for query in dict.fromkeys([*queries.texts, *judged])
    }
    return [len(documents) for documents in wanted.values()]
