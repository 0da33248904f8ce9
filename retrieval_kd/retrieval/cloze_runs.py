"""What the parts of a hybrid find for sentences in the documents that these were cut out of.

The indexes hold the whole documents, where any search by words finds a sentence. So documents
without a sentence are indexed as the parts were: at most 500, and exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from retrieval_kd.data.cloze import write_cloze
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.runs import Run
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.retrieval.bm25 import BM25Parameters, bm25_run

QUERIES, SPLIT = 500, "test"  # the split's name in a folder of cut documents


def cloze_runs(
    names: Sequence[str],
    indexes: Mapping[str, Index],
    parameters: Mapping[str, BM25Parameters],
    source: Collection,
    depth: int,
    folder: Path,
) -> tuple[dict[str, Run], Qrels]:
    """Return each part's run for the sentences, and the documents they were cut out of.

    Args:
        names: of the parts, which are in `indexes` or in BM25's `parameters`.
        folder: for the cut documents and their indexes.
    """
    write_cloze(source, folder / "cloze", QUERIES)
    cloze = open_collection(folder / "cloze")
    queries, runs = cloze.query_texts(SPLIT), {}
    for name in names:
        if name in parameters:
            runs[name] = bm25_run(cloze, queries, depth, parameters=parameters[name], name=name)
            continue
        index = indexes[name]
        made = build_index(
            cloze,
            index.model_spec,
            exact(index),
            folder / f"index-{name}",
            max_length=index.manifest["max_length"],
            query_prompt=index.manifest["query_prompt"],
            document_prompt=index.manifest.get("document_prompt"),
        )
        runs[name] = made.search_run(queries, depth, name=name)
    return runs, cloze.qrels(SPLIT)


def exact(index: Index) -> IndexSpec:
    """The specification of exact search with the same vectors."""
    spec = index.manifest["spec"]
    if spec.get("kind", "faiss") != "faiss":
        return IndexSpec(kind=spec["kind"])
    return IndexSpec(metric=spec["metric"], dimensions=spec.get("dimensions"))
