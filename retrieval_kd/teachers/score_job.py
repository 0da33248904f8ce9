"""What `rkd score` does: opens the teacher, here or on a server, asks, and notes what that cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from retrieval_kd.data.collection import Collection
from retrieval_kd.errors import InputError
from retrieval_kd.store.requests import ComparingTeacher
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import ScoreReport, Spent, Usage, record_usage
from retrieval_kd.teachers.comparing.listwise import ListwiseTeacher
from retrieval_kd.teachers.comparing.pairwise import PairwiseTeacher
from retrieval_kd.teachers.comparing.strategy_run import Scores
from retrieval_kd.teachers.llm.server.budget import Limits
from retrieval_kd.teachers.llm.server.call_log import CallLog
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.model import ServerModel
from retrieval_kd.teachers.llm.server.settings import OnServer
from retrieval_kd.teachers.open import Teacher, open_teacher
from retrieval_kd.teachers.pointwise.likelihood import LikelihoodTeacher
from retrieval_kd.teachers.pointwise.yes_no import YesNoTeacher
from retrieval_kd.teachers.score import score

LANGUAGE_TEACHERS = (YesNoTeacher, LikelihoodTeacher, PairwiseTeacher, ListwiseTeacher)
SERVER_PAIRS = 256  # in a shard: the bar moves, and a stop keeps what came, after so many


def score_job(
    collection: Collection,
    queries: Mapping[str, str],
    wanted: Mapping[str, Sequence[str]],
    spec: str,
    store: Path,
    *,
    max_length: int | None = None,
    on_server: OnServer | None = None,
) -> tuple[ScoreReport, Spent]:
    """Ask a teacher what the store lacks; what it cost is noted there, however this ends.

    Raises:
        InputError: the teacher cannot be opened or asked.
        Stopped: a limit was reached, or the server is gone; what was answered is in the store.
    """
    teacher = open_teacher(
        spec,
        collection,
        max_length=max_length,
        language_model=on_server.open if on_server else None,
    )
    if on_server is not None and calls_of(teacher) is None:
        raise InputError(
            f"{spec!r} is no teacher that a server can be asked for",
            remedy="use yesno:, likelihood:, pairwise: or listwise:, or leave --server out",
        )
    limits = on_server.limits if on_server else None
    return ask_and_note(collection, queries, wanted, teacher, ScoreStore(store), limits)


def ask_and_note(
    collection: Collection,
    queries: Mapping[str, str],
    wanted: Mapping[str, Sequence[str]],
    teacher: Teacher | ComparingTeacher,
    store: ScoreStore,
    limits: Limits | None = None,
    *,
    scores: Scores | None = None,
) -> tuple[ScoreReport, Spent]:
    """Ask an open teacher what the store lacks, and note what that took, however this ends.

    Args:
        limits: of the server where it is, for the prices.
        scores: see `score.score`.

    Raises:
        InputError: the teacher cannot be asked.
        Stopped: a limit was reached, or the server is gone; what was answered is in the store.
    """
    limits, folder, calls = limits or Limits(), store.folder(teacher.key), calls_of(teacher)
    before = spent_by(teacher, 0, 0.0, limits)  # it may have been asked already
    started, answered = time.monotonic(), 0
    with ExitStack() as stack:
        if calls is not None:
            stack.callback(calls.close)
            calls.keep_in(stack.enter_context(CallLog(folder)))
        try:
            size = 2_048 if calls is None else SERVER_PAIRS
            asked = (collection, queries, wanted, teacher, store)
            report = score(*asked, shard_pairs=size, scores=scores)
            answered = report.scored
        finally:
            seconds = time.monotonic() - started
            spent = spent_by(teacher, answered, seconds, limits).since(before)
            record_usage(folder, spent)
    if calls is not None and calls.stopped is not None:
        raise calls.stopped
    return report, spent


def calls_of(teacher: Teacher | ComparingTeacher) -> Calls | None:
    """Those of a teacher's model that is on a server; None: it is here."""
    model = teacher.model if isinstance(teacher, LANGUAGE_TEACHERS) else None
    return model.calls if isinstance(model, ServerModel) else None


def spent_by(
    teacher: Teacher | ComparingTeacher, answered: int, seconds: float, limits: Limits
) -> Spent:
    """A language model counts for itself; of others, a pair is a call. Prices are a server's."""
    if isinstance(teacher, LANGUAGE_TEACHERS):
        usage: Usage = teacher.model.usage
    else:
        usage = Usage(calls=answered, seconds=seconds)
    served = calls_of(teacher) is not None
    cost = limits.cost(usage.prompt_tokens, usage.answer_tokens) if served else 0.0
    return Spent(**asdict(usage), cost=cost)
