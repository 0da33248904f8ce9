"""Trains students by fixed recipes on eight collections: documents alone, and judgments too.

    python -m benchmarks.adaptation                          # all, about ten minutes a collection
    python -m benchmarks.adaptation --collections squad,cacm
    python -m benchmarks.adaptation --table                  # print the tables of what is measured

`documents` is configs/adapt.yaml with two more students (adaptation.yaml): no judgment is trained
on, and no test query. `judged` is configs/adapt_judged.yaml, where there is a train split. `layers`
(adaptation_layers.yaml) and `tokens` (adaptation_tokens.yaml) are documents alone again: students
of three layers, students that start from other students, and a vector per token. All were chosen
on the train claims of SciFact and the dev questions of SQuAD and WikiQA, `layers` and `tokens` on
SQuAD's alone, and are the same for every collection. Uses `rkd run`, so a killed benchmark
continues where it stopped. After every run, results/adaptation.json is updated. Overrides come
last, such as train.steps=2.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import RESULTS, interleaved, seconds
from benchmarks.medquad import split_by_focus
from retrieval_kd.files import read_json, write_json

HERE = Path(__file__).parent
RECIPES = {
    "documents": HERE / "adaptation.yaml",
    "judged": HERE.parent / "configs" / "adapt_judged.yaml",
    "layers": HERE / "adaptation_layers.yaml",
    "tokens": HERE / "adaptation_tokens.yaml",
}
OUT = RESULTS / "adaptation.json"
COLLECTIONS = (
    "squad",
    "cranfield",
    "cacm",
    "scifact",
    "vaswani",
    "wikiqa",
    "python-api",
    "medquad",
)
JUDGED = ("squad", "scifact", "wikiqa", "python-api", "medquad")  # those with a train split
BASELINE, MEASURES = "encoder", ("ndcg@10", "recall@100")
UNTRAINED = ("bm25", "encoder", "teacher")
FUSED = (  # students that are also fused with BM25
    "static", "saturated", "residual", "three_residual", "multi_vector",
)  # fmt: skip
COSTS = ("training_seconds", "queries_per_second", "bytes_per_document")
TIMED = {"queries": 512, "documents": 64}  # texts encoded to measure throughput
ALONE = 64  # queries encoded one by one to measure what a user waits
ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the recipes on each collection, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collections", default=",".join(COLLECTIONS))
    parser.add_argument(
        "--recipes", default=",".join(RECIPES), help="documents,judged,layers,tokens"
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--results", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="only print what is measured")
    parser.add_argument("--collect", action="store_true", help="only read what finished runs left")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    for recipe in [] if options.table else options.recipes.split(","):
        for name in options.collections.split(","):
            if recipe != "judged" or name in JUDGED:
                run_one(recipe, name, options)
    if not options.results.exists():
        raise SystemExit(f"{options.results}: nothing is measured yet; leave --table out")
    for recipe, collections in read_json(options.results)["recipes"].items():
        print(f"\n{recipe}\n\n{table(collections)}")


def run_one(recipe: str, name: str, options: argparse.Namespace) -> None:
    """Run one recipe on one collection, and update the results."""
    from retrieval_kd.hardware import describe, versions
    from retrieval_kd.pipeline.plan import run

    seeds = [int(seed) for seed in options.seeds.split(",")]
    config = configured(recipe, name, options.out, seeds, options.overrides)
    print(f"== {recipe}, {name}", flush=True)
    if not options.collect:
        run(config, report)
    results = read_json(options.results) if options.results.exists() else {"recipes": {}}
    results["recipes"].setdefault(recipe, {})[name] = collect(config)
    write_json(options.results, {**results, "hardware": describe(), "versions": versions()})


def configured(
    recipe: str, name: str, out: Path, seeds: Sequence[int], overrides: Sequence[str] = ()
) -> Any:
    """Return the configuration of one recipe on one collection."""
    from retrieval_kd.config.run import load_config

    place = split_by_focus(out / "medquad-by-focus") if name == "medquad" else name
    spec = [f"collection={place}", f"out={out / recipe / name}", f"seeds={list(seeds)}"]
    return load_config(RECIPES[recipe], [*spec, *overrides])


def report(stage: Any, done: bool, place: str) -> None:
    """Print a line for a stage that runs."""
    if not done:
        print(f"   {place} {stage.name}", flush=True)


def collect(config: Any) -> dict[str, Any]:
    """Return the means of each system, their tests against the encoder, and their costs."""
    from retrieval_kd.data.runs import read_run
    from retrieval_kd.metrics.measures import evaluate
    from retrieval_kd.metrics.significance import compare
    from retrieval_kd.workspace import Workspace

    work = Workspace(config.out)
    groups = {name: [f"{name}-seed{seed}" for seed in config.seeds] for name in config.students}
    names = [*UNTRAINED, *(member for group in groups.values() for member in group)]
    runs = {name: read_run(work.path("runs", f"{name}.trec")) for name in names}
    for student in [name for name in FUSED if name in config.students]:
        groups[f"{student} + bm25"] = [f"{student} + bm25-seed{seed}" for seed in config.seeds]
        for seed, member in zip(config.seeds, groups[f"{student} + bm25"], strict=True):
            runs[member] = fused(member, runs[f"{student}-seed{seed}"], runs["bm25"])
    qrels = read_json(work.path("queries", "test.json"))["qrels"]
    evaluation = evaluate(qrels, runs, list(MEASURES)).group(groups)
    results = read_json(work.path("results.json"))
    costs, speeds = results["costs"], throughput(config, work)
    effect = results["audit"].get("effect") if config.splits.train else None
    apart = unshared(config, qrels)
    alone = evaluate(apart, runs, [MEASURES[0]]).group(groups) if apart else None
    return {
        "queries": len(evaluation.queries),
        "queries_without_a_document_of_train": len(apart),
        "clean_queries": effect and effect["queries"]["clean"],
        "settings": config.model_dump(
            by_alias=True,
            mode="json",
            exclude={"out": True, "collection": True, "teacher": {"store"}},
        ),
        "systems": {
            system: {
                **{measure: evaluation.per_seed(system, measure) for measure in MEASURES},
                **({"clean": effect["means"].get(system)} if effect else {}),
                **(
                    {"without_documents_of_train": alone.per_seed(system, MEASURES[0])}
                    if alone
                    else {}
                ),
                **{key: costs.get(system, {}).get(key) for key in COSTS},
                **speeds.get(system, {}),
            }
            for system in evaluation.systems
        },
        "comparisons": [
            vars(test) for test in compare(evaluation, baseline=BASELINE, measures=[MEASURES[0]])
        ],
    }


def unshared(config: Any, qrels: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return the judgments of test queries that share no relevant document with a train query."""
    from retrieval_kd.data.collection import open_collection

    collection = open_collection(config.collection)
    if "train" not in collection.splits:
        return {}
    judged = collection.qrels("train").values()
    known = {document for of in judged for document, gain in of.items() if gain > 0}
    return {
        query: of
        for query, of in qrels.items()
        if not any(gain > 0 and document in known for document, gain in of.items())
    }


def throughput(config: Any, work: Any) -> dict[str, dict[str, float]]:
    """Return the texts per second that each model encodes, in batches; medians of rounds in turns.

    `query_ms` is the median of queries encoded one at a time. Documents are read at the length that
    the encoder reads and, by tables, whole.
    """
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.models.load import load_retriever

    documents = open_collection(config.collection).documents
    texts = {
        "queries": list(read_json(work.path("queries", "test.json"))["texts"].values()),
        "documents": [d.full for d in islice(documents.iterate(), TIMED["documents"])],
    }
    seed = config.seeds[0]
    places = {name: str(work.path("students", f"{name}-seed{seed}")) for name in config.students}
    models = {
        name: load_retriever(place, max_length=config.student.max_length)
        for name, place in {"encoder": config.encoder, **places}.items()
    }
    speeds: dict[str, dict[str, float]] = {name: {} for name in models}
    for kind, chosen in texts.items():
        chosen = chosen[: TIMED[kind]]
        method = {"queries": "encode_query", "documents": "encode_document"}[kind]
        timed = interleaved(
            {name: encoding(getattr(model, method), chosen) for name, model in models.items()},
            ROUNDS,
        )
        for name, times in timed.items():
            speeds[name][f"{kind}_encoded_per_second"] = round(len(chosen) / times.median, 1)
    for name, model in models.items():
        alone = [seconds(encoding(model.encode_query, [text])) for text in texts["queries"][:ALONE]]
        speeds[name]["query_ms"] = round(1000 * float(np.median(alone)), 3)
    return speeds


def encoding(encode: Any, texts: Sequence[str]) -> Any:
    """Return a function that encodes texts."""
    return lambda: encode(texts, show_progress_bar=False)


def fused(name: str, one: Any, other: Any) -> Any:
    """Fuse two runs by reciprocal ranks."""
    import ranx

    from retrieval_kd.data.runs import Run

    lists = [run.results for run in (one, other)]
    queries = [query for query in lists[0] if lists[0][query] and lists[1].get(query)]
    both = [ranx.Run.from_dict({q: dict(found[q]) for q in queries}) for found in lists]
    fused_lists = ranx.fuse(both, norm=None, method="rrf").to_dict()
    return Run(name, {**lists[1], **lists[0], **fused_lists})


def table(collections: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out nDCG@10 by collection, with a mark where a system differs from the encoder.

    `+` significantly better, `-` significantly worse (paired t-test, Holm over the systems). In
    parentheses: over clean queries, where students were trained on judgments.
    """
    systems = list(next(iter(collections.values()))["systems"])
    rows, means = [], []
    for name, result in collections.items():
        tests = {test["a"]: test for test in result["comparisons"]}
        cells = []
        for system in systems:
            mean = float(np.mean(result["systems"][system][MEASURES[0]]))
            test = tests.get(system)
            sure = test is not None and test["p_holm"] < 0.05
            mark = ("+" if test["difference"] > 0 else "-") if test and sure else ""
            clean = (result["systems"][system].get("clean") or {}).get("clean")
            few = result["clean_queries"] not in (None, 0, result["queries"])
            cells.append(decimals(mean) + mark)
            if few and clean is not None:
                cells[-1] += f" ({decimals(clean)})"
        count = result["clean_queries"]
        queries = str(result["queries"]) + (f" ({count})" if count not in (None, 0) else "")
        rows.append([name, queries, *cells])
    for system in systems:
        of = [np.mean(result["systems"][system][MEASURES[0]]) for result in collections.values()]
        means.append(decimals(float(np.mean(of))))
    head = ["collection", "queries", *systems]
    rows.append(["mean", "", *means])
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def decimals(value: float) -> str:
    """Write a value below 1 with three decimals and without its zero."""
    return f"{value:.3f}".replace("0.", ".", 1)


if __name__ == "__main__":
    main()
