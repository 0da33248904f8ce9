"""The part of a run's configuration about its queries: which are judged, and which are not."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from retrieval_kd.schema import Part


class Splits(Part):
    """Which judged queries are used for what."""

    train: str | None = Field(
        "train",
        description="split that the teacher and the students are trained on; null: no judgments, "
        "students train on a log, or on titles or sentences of the documents",
    )
    dev: str | None = Field(
        None,
        description="split to choose settings on; by default some queries of the train split, and "
        "none without one: teachers then weigh the same",
    )
    test: str = Field("test", description="split to evaluate on, and for nothing else")
    dev_queries: int = Field(150, ge=10, description="dev queries, at most (queries)")
    train_queries: int | None = Field(None, ge=1, description="train queries, at most (queries)")
    test_queries: int | None = Field(None, ge=1, description="test queries, at most (queries)")
    drop_overlap: bool = Field(
        True, description="leave out train and dev queries with the text of a test query"
    )

    @model_validator(mode="after")
    def _check(self) -> Splits:
        named = [split for split in (self.train, self.dev, self.test) if split is not None]
        if len(set(named)) < len(named):
            raise ValueError("train, dev and test must be different splits")
        return self


class Unlabelled(Part):
    """Queries that only teachers score: a query log, or texts from the documents themselves."""

    kind: Literal["queries", "titles", "sentences"] = Field(
        "sentences",
        description="queries: a log, or train queries beyond splits.train_queries; no judgment of "
        "them is used; titles, sentences: those of the documents",
    )
    log: str | None = Field(
        None,
        description="of kind queries: a file of queries (.txt: one a line; .tsv: ID and text; "
        ".jsonl: _id and text), or another split of the collection; by default train queries",
    )
    limit: int = Field(3000, ge=1, description="unlabelled queries, at most (queries)")
    share: float = Field(0.5, gt=0, lt=1, description="of each student's batches; no unit")

    @model_validator(mode="after")
    def _check(self) -> Unlabelled:
        if self.log is not None and self.kind != "queries":
            raise ValueError(f"a log is of kind queries, not {self.kind}")
        return self

    @property
    def is_left_over(self) -> bool:
        """Whether its queries are those that training leaves of the train split."""
        return self.kind == "queries" and self.log is None

    def cache_key(self) -> Any:
        """Return what decides the queries; `share` matters only to students that train on them."""
        return self.model_dump(mode="json", exclude={"share"}, exclude_none=True)
