"""The command `rkd index tune`. `index.py` mounts it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval_kd import schema
from retrieval_kd.cli.options import CollectionOption, Length, bounded, out_file
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.progress import say

if TYPE_CHECKING:
    import numpy as np

    from retrieval_kd.data.collection import Collection
    from retrieval_kd.indexing.tune import Point, Quality, Target, Tuned

SENTENCES = 1_000  # of the documents, where there are no queries


def tune(
    collection: CollectionOption,
    model: Annotated[str, typer.Option(help="MODEL that encodes documents and queries; dense")],
    out: Annotated[Path, out_file(help="specification to write (.yaml)")],
    recall: Annotated[
        float | None, bounded(schema.Share, "share of exact search's ten hits to keep")
    ] = None,
    ndcg_loss: Annotated[
        float | None, bounded(schema.Weight, "nDCG@10 to lose against exact search, at most")
    ] = None,
    max_bytes: Annotated[float | None, bounded(schema.Weight, "per document, at most")] = None,
    max_ms: Annotated[
        float | None, bounded(schema.Weight, "per query, alone, with one thread, at most")
    ] = None,
    split: Annotated[str | None, typer.Option(help="judged split whose queries choose")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="file of queries that choose: .jsonl, .tsv, or .txt")
    ] = None,
    factory: Annotated[
        list[str] | None,
        typer.Option(help="FAISS factory to try; several; by default nine or eleven"),
    ] = None,
    max_length: Length = None,
    picture: Annotated[Path | None, out_file(help="Pareto picture to write (.svg)")] = None,
    json: Annotated[Path | None, out_file("--json", help="all that was tried, as JSON")] = None,
) -> None:
    """Find the cheapest index that keeps enough of exact search, and write its specification.

    Of what keeps `--recall` (0.95 by default) or loses at most `--ndcg-loss`, it takes the fastest
    within `--max-bytes`, or the smallest within `--max-ms`. Half of the queries choose, the other
    half check. Without `--split` and `--queries`, 1,000 sentences of the documents are the queries.

    Example: rkd index tune --collection C --model M --recall 0.98 --max-bytes 500 --out my.yaml
    """
    from dataclasses import asdict

    import yaml

    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.files import write_json, write_text
    from retrieval_kd.indexing.spec import check_factory
    from retrieval_kd.indexing.tune import Target
    from retrieval_kd.indexing.tune import tune as choose

    if recall is not None and ndcg_loss is not None:
        raise InputError("both --recall and --ndcg-loss", remedy="give one of them")
    if ndcg_loss is not None and split is None:
        raise InputError("--ndcg-loss needs judged queries", remedy="name their split with --split")
    if split is not None and queries is not None:
        raise InputError("both --split and --queries", remedy="give one of them")
    for name in factory or []:
        try:
            check_factory(name)
        except ValueError as error:
            raise InputError(str(error)) from error
    opened = open_collection(collection)
    texts = _queries(opened, split, queries, judged=ndcg_loss is not None)
    vectors, asked = _encoded(opened, model, texts, max_length)
    quality: Quality | None = None
    least = 0.95 if recall is None else recall
    if ndcg_loss is not None and split is not None:
        quality, least = _ndcg(opened, split, vectors, asked, list(texts)), -ndcg_loss
    target = Target(least, max_bytes, max_ms)
    tuned = choose(vectors, asked, target, quality=quality, factories=factory or ())
    what = "nDCG@10 gained" if ndcg_loss is not None else "recall of exact search's ten"
    note = f"# {collection}, {model}: {what} {tuned.checked:.4f} on queries that did not choose"
    settings = tuned.spec.model_dump(include={"factory", "search"})
    write_text(out, f"{note}\n{yaml.safe_dump(settings, sort_keys=False)}")
    if json is not None:
        facts = {"target": asdict(target), "checked": tuned.checked, "skipped": tuned.skipped}
        points = [asdict(point) for point in tuned.points]
        write_json(json, {**facts, "chosen": asdict(tuned.chosen), "points": points})
    if picture is not None:
        _draw(tuned, target, what, picture)
    _show(tuned, target, what, out)


def _queries(
    collection: Collection, split: str | None, file: Path | None, *, judged: bool
) -> dict[str, str]:
    """Return the queries; if they are `judged`, those with a relevant document."""
    from retrieval_kd.data.draw_queries import each_once, unlabelled_queries
    from retrieval_kd.data.query_files import read_log

    drops = Drops()
    if split is not None:
        texts = collection.query_texts(split)
        qrels = collection.qrels(split) if judged else {}
        for query in [q for q, of in qrels.items() if not any(gain > 0 for gain in of.values())]:
            drops.add("query without a relevant document", query)
            del texts[query]
        drops.warn("queries")
        return texts
    if file is not None:
        texts = each_once(read_log(file), drops)
    else:
        rows = unlabelled_queries(collection, "sentences", seed=0, limit=SENTENCES, drops=drops)
        texts = {id: text for id, text, _ in rows}
    drops.warn("queries")
    return texts


def _encoded(
    collection: Collection, model_spec: str, texts: dict[str, str], max_length: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of documents, as an index has them, and of queries."""
    from retrieval_kd.hardware import fast_dtype
    from retrieval_kd.models.encode import document_vectors, encode_queries, finish, normalises
    from retrieval_kd.models.load import kind_of, load_retriever

    if (kind := kind_of(model_spec)) != "dense":
        raise InputError(f"{model_spec} is a {kind} model", remedy="tune the index of a dense one")
    model = load_retriever(model_spec, max_length=max_length, dtype=fast_dtype())
    vectors = document_vectors(
        model_spec, collection.documents, max_length=max_length, dtype=fast_dtype(), model=model
    )
    normalised = normalises(model)
    return finish(vectors, normalised), finish(
        encode_queries(model, list(texts.values())), normalised
    )


def _ndcg(
    collection: Collection, split: str, vectors: np.ndarray, queries: np.ndarray, names: list[str]
) -> Quality:
    """Return the quality that is nDCG@10 minus that of exact search, by query."""
    import numpy as np

    from retrieval_kd.data.runs import Run
    from retrieval_kd.indexing.spec import IndexSpec
    from retrieval_kd.indexing.tune import build, hits
    from retrieval_kd.metrics.measures import evaluate

    ids, qrels = list(collection.documents.ids()), collection.qrels(split)

    def values(found: np.ndarray, rows: np.ndarray) -> np.ndarray:
        results = {
            names[row]: {ids[at]: -float(rank) for rank, at in enumerate(positions) if at >= 0}
            for row, positions in zip(rows, found, strict=True)
        }
        judged = {name: qrels[name] for name in results}
        evaluation = evaluate(judged, {"x": Run("x", results)}, ["ndcg@10"])
        of = dict(zip(evaluation.queries, evaluation.values("x", "ndcg@10"), strict=True))
        return np.array([of[names[row]] for row in rows])

    exact = values(hits(build(IndexSpec(), vectors), queries), np.arange(len(queries)))
    return lambda found, rows: values(found, rows) - exact[rows]


def _best(tuned: Tuned, target: Target) -> list[Point]:
    """Return the best point of each factory: the cheapest that keeps enough, if one does."""
    best = []
    for name in dict.fromkeys(point.factory for point in tuned.points):
        own = [point for point in tuned.points if point.factory == name]
        good = [point for point in own if point.meets]
        if good:
            best.append(min(good, key=lambda point: getattr(point, target.cheapest)))
        else:
            best.append(max(own, key=lambda point: point.quality))
    return best


def _draw(tuned: Tuned, target: Target, what: str, picture: Path) -> None:
    from retrieval_kd.evaluation.report.svg import as_file
    from retrieval_kd.evaluation.report.trade_offs import pareto
    from retrieval_kd.files import write_text

    axis = {"bytes": "bytes per document", "milliseconds": "ms per query"}[target.cheapest]
    points = [
        (point.factory, getattr(point, target.cheapest), point.quality, 0)
        for point in _best(tuned, target)
    ]
    write_text(picture, as_file(pareto(points, axis, what, "pareto")))


def _show(tuned: Tuned, target: Target, what: str, out: Path) -> None:
    """Print the best setting of each factory, the choice, and whether the check held."""
    from retrieval_kd.evaluation.report.grid import Cell, Grid, print_grid

    headers = ["Factory", "Search", what, "Bytes", "ms", "Build, s", "Keeps enough"]
    rows = [
        [
            Cell(point.factory), Cell(point.search), Cell(f"{point.quality:.4f}"),
            Cell(f"{point.bytes:.0f}"), Cell(f"{point.milliseconds:.3f}"),
            Cell(f"{point.build_seconds:.1f}"), Cell("yes" if point.meets else "no"),
        ]
        for point in _best(tuned, target)
    ]  # fmt: skip
    print_grid(Grid(headers, rows, left=2))
    for name, reason in tuned.skipped.items():
        say(f"skipped {name}: {reason}")
    chosen = tuned.chosen
    say(
        f"{out}: {chosen.factory} {chosen.search}: {chosen.bytes:.0f} bytes per document, "
        f"{chosen.milliseconds:.3f} ms; {what} {tuned.checked:.4f} on queries that did not choose"
    )
    if tuned.checked < target.least:
        say("This is below the target: give more queries, or a higher one.", error=True)
