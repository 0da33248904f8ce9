"""The teachers of a score store as an ensemble: read and combined, never scored anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator

from retrieval_kd.config.training import TrainingStage
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import check_run, read_run
from retrieval_kd.data.scores import Scores, ScoreTable
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.pipeline.ensemble import Ensemble, Fitted
from retrieval_kd.pipeline.queries import Queries
from retrieval_kd.schema import Part, check_weights
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.targets import FITTED_ON_DEV, CalibrationMethod, Fusion
from retrieval_kd.targets.combine import Combination, fit_combination
from retrieval_kd.teachers.comparing.conclude import PairPreferences
from retrieval_kd.teachers.stored import stored_pairs, stored_scores


class StoredTeachers(Part):
    """Teachers of a score store, and how they become one."""

    store: Path = Field(description="folder of the score store")
    names: list[str] = Field(
        [],
        description="names or fingerprints of the teachers to fuse, with `?aggregate=NAME` for one "
        "that compared documents; by default the store's only teacher",
    )
    weights: list[float] | None = Field(None, description="one for each name; by default all 1")
    pairs: str | None = Field(
        None, description="pairwise teacher whose answers are trained on pair by pair"
    )
    fusion: Fusion = Field("z_scores", description="how the teachers become one")
    calibration: CalibrationMethod | None = Field(None, description="of `calibrated`; none: platt")

    @field_validator("weights")
    @classmethod
    def _weigh(cls, weights: list[float] | None) -> list[float] | None:
        if weights is not None:
            check_weights(weights)
        return weights

    def fused(self) -> list[str]:
        """The names of the teachers that are fused."""
        names = list(self.names) or [ScoreStore(self.store).only().model]
        if len(self.weights or names) != len(names):
            raise InputError(
                f"{len(self.weights or ())} weights for {len(names)} teachers",
                remedy="give one for each",
            )
        if self.calibration is not None and self.fusion != "calibrated":
            raise InputError(
                f"fusion {self.fusion} calibrates nothing",
                remedy="add --fusion calibrated, or leave --calibration out",
            )
        return names

    def members(self) -> list[str]:
        """The names of all teachers, in the order of the numbers that objectives refer to."""
        return [*self.fused(), *([self.pairs] if self.pairs is not None else [])]


class StoredEnsemble(Ensemble):
    """The teachers of a score store as one, for the queries of a collection's split.

    Args:
        split: the queries to train on.
        candidates: TREC run file with their candidates. By default the documents that all fused
            teachers have scored.
        teachers: the stored teachers; none, if only judgments are trained on.
        dev_split: judged queries that the fusions `calibrated` and `learned` are fitted on.
        drops: counts the candidates that have no score.

    Raises:
        InputError: a teacher has scored nothing of the split, or a fusion has no queries to be
            fitted on.
    """

    def __init__(
        self,
        collection: Collection,
        split: str,
        candidates: Path | None,
        teachers: StoredTeachers | None,
        dev_split: str | None,
        drops: Drops,
    ) -> None:
        self.teachers = teachers
        names = teachers.fused() if teachers else []
        if teachers and teachers.fusion in FITTED_ON_DEV and dev_split is None:
            raise InputError(
                f"fusion {teachers.fusion} is fitted on judged queries, and none are named",
                remedy="add --dev-split",
            )
        queries = {"train": _queries(collection, split)}
        if dev_split is not None:
            queries["dev"] = _queries(collection, dev_split)
        run: dict[str, ScoreTable] = {}
        members = teachers.members() if teachers else []
        super().__init__(collection, members, queries.__getitem__, run.__getitem__)
        self._run = run
        self.normalise = len(names) > 1
        weights = (teachers.weights if teachers else None) or [1.0] * len(names)
        combination = Combination()
        if teachers and teachers.fusion in FITTED_ON_DEV:
            scores = {name: self._stored("dev", name, None, drops) for name in names}
            qrels, method = queries["dev"].qrels, teachers.calibration or "platt"
            combination = fit_combination(teachers.fusion, scores, qrels, method)
        elif teachers:
            combination = Combination(teachers.fusion)
        self._fitted = Fitted(dict(zip(names, weights, strict=True)), combination)
        if candidates is not None:
            run["train"] = _candidates(collection, queries["train"], candidates)
        elif names:
            scores = {name: self._stored("train", name, None, drops) for name in names}
            run["train"] = combination.fuse(
                scores, self._fitted.weights, drops, normalise=self.normalise
            )

    def check_scores(self, stages: Sequence[TrainingStage]) -> None:
        """Refuse stages that need teacher scores if there is no store, and slates without any."""
        if "train" not in self._run and not all(stage.texts for stage in stages):
            raise InputError("nothing to train on", remedy="give --store, or --candidates RUN")
        if self.teachers is None and any(stage.needs_teacher_scores for stage in stages):
            raise InputError(
                "the training needs teacher scores, but none were given",
                remedy="give the score store and its teachers (--store, --teacher)",
            )

    @property
    def fitted(self) -> Fitted:
        return self._fitted

    def scores(self, part: str, member: str, candidates: Scores | None = None) -> ScoreTable:
        wanted = self.candidates(part) if candidates is None else candidates
        return self._stored(part, member, wanted, Drops())

    def pairs(self, part: str, number: int, candidates: Scores) -> dict[str, PairPreferences]:
        assert self.teachers is not None
        queries, member = self.queries(part), self.members[number]
        return stored_pairs(
            self.collection, queries.texts, self.teachers.store, member, candidates, queries.qrels
        )

    def _stored(self, part: str, member: str, wanted: Scores | None, drops: Drops) -> ScoreTable:
        """Read a teacher's scores of the wanted candidates; None: of all in the store."""
        assert self.teachers is not None
        queries = self.queries(part)
        judged = queries.qrels if part == "train" else {}  # relevant documents are candidates too
        [scores] = stored_scores(
            self.collection, queries.texts, self.teachers.store, [member], wanted, drops, judged
        )
        return scores


def _queries(collection: Collection, split: str) -> Queries:
    return Queries(collection.query_texts(split), collection.qrels(split), {})


def _candidates(collection: Collection, queries: Queries, path: Path) -> ScoreTable:
    """Read the candidates of these queries from a TREC run file."""
    run = read_run(path)
    check_run(run, collection)
    kept = {query: ranked for query, ranked in run.results.items() if query in queries.texts}
    if not kept:
        remedy = "check --split, and that the run is of this collection"
        raise InputError("none of its queries is in this split", file=path, remedy=remedy)
    return ScoreTable.of(kept, collection.documents)
