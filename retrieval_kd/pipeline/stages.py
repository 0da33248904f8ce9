"""The stages of `rkd run` that are not about students; `plan.py` has the order of all stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import Run, write_run
from retrieval_kd.data.scores import Scores
from retrieval_kd.errors import Drops
from retrieval_kd.evaluation.efficiency import timed_build
from retrieval_kd.files import write_json
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.spec import load_spec, spec_for
from retrieval_kd.models.load import kind_of
from retrieval_kd.pipeline.context import PARTS, RunContext
from retrieval_kd.pipeline.queries import ChosenQueries
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.students.dense import describe_student
from retrieval_kd.targets.normalise import rerank
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher
from retrieval_kd.training.batches.pools import build_pools
from retrieval_kd.training.fit_teacher import fit_teacher


def choose_queries(context: RunContext) -> dict[str, Any]:
    """Choose train, dev, test and unlabelled queries; no other part has a test query's text."""
    drops = Drops()
    parts = ChosenQueries(context.config, context.collection).parts(drops)
    for part, queries in parts.items():
        write_json(context.work.path("queries", f"{part}.json"), asdict(queries))
    counts = {part: len(queries.texts) for part, queries in parts.items()}
    return {"queries": counts, "drops": drops.summary()}


def retrieve_candidates(context: RunContext) -> None:
    """Retrieve candidates for every part; an unlabelled query's own source is left out."""
    first, length = context.config.first_stage, context.config.student.max_length
    for part in PARTS:
        queries = context.queries(part)
        depth = first.depth + (part == "unlabelled")
        run = Run(part, {})
        if queries.texts:
            run = retrieve(context.collection, queries.texts, first.with_, depth, max_length=length)
        kept = {
            query: {d: s for d, s in ranked.items() if d != queries.sources.get(query)}
            for query, ranked in run.results.items()
        }
        write_json(context.work.path("candidates", f"{part}.json"), Run(part, kept).results)


def fine_tune_teacher(context: RunContext) -> dict[str, Any]:
    """Fine-tune the teacher on the judgments of the train part."""
    fit = context.config.teacher.fit
    assert fit is not None
    queries, drops = context.queries("train"), Drops()
    pools = build_pools(
        queries.texts, context.candidates("train"), context.collection, queries.qrels, None, drops
    )
    record = fit_teacher(
        fit.base,
        pools,
        context.collection.documents,
        context.work.path("teacher"),
        layers=fit.layers,
        lora=fit.lora,
        settings=fit.train,
        max_length=None if fit.is_decoder else context.config.teacher.max_length,
    )
    return {"seconds": record["seconds"], "curve": record["curve"], "drops": drops.summary()}


def rerank_with_teacher(context: RunContext) -> dict[str, Any]:
    """Re-rank the candidates of the test part by the teacher."""
    drops = Drops()
    scores = context.ensemble.fused("test", drops)
    write_run(rerank("teacher", scores), context.work.path("runs", "teacher.trec"))
    missing = len(context.queries("test").texts) - len(scores)
    return {"queries_without_scores": missing, "drops": drops.summary()}


def index_and_search(
    context: RunContext, system: str, model: str, width: int | None = None
) -> dict[str, Any]:
    """Index the corpus with one model, or its first `width` dimensions; search test queries."""
    config, kind = context.config, kind_of(model)
    spec = load_spec(config.index) if kind == "dense" else spec_for(kind)
    folder = context.work.path("indexes", system)
    build = partial(
        build_index,
        context.collection,
        model,
        spec.model_copy(update={"dimensions": width}) if width else spec,
        folder,
        max_length=config.student.max_length,
    )
    index, encoded = timed_build(build, folder)
    queries = context.queries("test").texts
    run = index.search_run(queries, config.depth, name=system)
    write_run(run, context.work.path("runs", f"{system}.trec"))
    manifest = index.manifest
    size = sum(int(file["bytes"]) for file in manifest["files"].values())
    return {
        "index_bytes": size,
        "documents": len(index),
        "documents_per_second": encoded,
        **describe_student(index.model),
        **({"dimensions": width} if width else {}),
    }


def rerank_with_student(context: RunContext, system: str, model: str) -> dict[str, Any]:
    """Re-rank the test candidates with a cross-encoder, which cannot search by itself."""
    student = CrossEncoderTeacher(model, max_length=context.config.student.max_length)
    queries, candidates = context.queries("test").texts, context.candidates("test")
    scores = score_candidates(student, context.collection, queries, candidates)
    write_run(rerank(system, scores), context.work.path("runs", f"{system}.trec"))
    return describe_student(student.model)


def score_candidates(
    model: CrossEncoderTeacher,
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Scores,
) -> Scores:
    """Score every query's candidates; returns raw logits by query and document."""
    pairs = [(query, id) for query in queries for id in candidates.get(query, {})]
    documents = [collection.documents[id] for _, id in pairs]
    logits = model.score([queries[query] for query, _ in pairs], documents).tolist()
    scores: dict[str, dict[str, float]] = {}
    for (query, id), logit in zip(pairs, logits, strict=True):
        scores.setdefault(query, {})[id] = logit
    return scores


def search_bm25(context: RunContext) -> None:
    """Search the test queries with BM25."""
    run = retrieve(context.collection, context.queries("test").texts, "bm25", context.config.depth)
    write_run(run, context.work.path("runs", "bm25.trec"))
