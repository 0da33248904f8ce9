"""Measures what evaluates a run: on made-up runs of a sample, which take as long as real ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retrieval_kd.audit.overlap import DOCUMENTS, find_overlaps
from retrieval_kd.audit.texts import DistinctTexts, TextList
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import Run, read_run, write_run
from retrieval_kd.errors import Drops
from retrieval_kd.evaluation.diagnostics.diagnose import diagnostics
from retrieval_kd.pipeline.forecast.calibrate import Speed, Speeds, timed
from retrieval_kd.pipeline.forecast.sample_ensemble import scored


def judging(collection: Collection, candidates: Mapping[str, list[str]], folder: Path) -> Speeds:
    """Measure reading run files, diagnostics, and the audit of texts."""
    listed = scored(candidates)
    qrels = {q: {list(ids)[2 % len(ids)]: 1} for q, ids in listed.items()}  # ranked third
    run = Run("run", listed)
    other = Run("other", {q: dict(reversed(ids.items())) for q, ids in listed.items()})
    path = folder / "run.trec"
    write_run(run, path)
    texts = {d.id: d.full for d in collection.documents.iterate()}
    few = list(listed)[:4]

    def diagnose(queries: list[str]) -> None:
        judged = {query: qrels[query] for query in queries}
        kept = [Run(r.name, {q: r.results[q] for q in queries}) for r in (run, other)]
        diagnostics(collection, judged, kept[0], kept[1:])

    def compare_texts() -> None:
        listed = TextList("sample", "", texts)
        both = DistinctTexts(listed), DistinctTexts(listed)
        find_overlaps(*both, DOCUMENTS, Drops())

    diagnose(few)  # the first call compiles
    return {
        "lines": Speed(timed(lambda: read_run(path)), sum(map(len, listed.values()))),
        "diagnosed": Speed(timed(lambda: diagnose(list(listed))), len(listed)),
        "audited": Speed(timed(compare_texts), 2 * len(texts)),
    }
