"""What do smaller vectors lose: projections that are trained, fitted ones, and FAISS's codes?

    python -m benchmarks.compression --choose     # SQuAD's dev questions, SciFact's train claims
    python -m benchmarks.compression              # the test queries of four collections, once
    python -m benchmarks.compression --table

Maps of the packaged encoder's cached vectors, each searched by a FAISS index; bytes are those of a
document's code, without ID and codebooks. Maps are fitted to the documents, or trained from them
alone (compression.yaml: sentences as queries, BM25 and the encoder as teachers), three seeds.
Trained maps are tested against what has as many bytes (paired t-test, Holm over a collection).
Writes results/compression.json. A collection takes two to five minutes on one core, encoding not
counted.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.measure import RESULTS
from benchmarks.medquad import split_by_focus
from retrieval_kd import Run, compare, evaluate
from retrieval_kd.config.run import load_config
from retrieval_kd.errors import Drops
from retrieval_kd.files import read_json, write_json
from retrieval_kd.hardware import describe, versions
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.models.encode import finish, save_array
from retrieval_kd.models.projection import POWERS, Start, fit_projection
from retrieval_kd.pipeline.plan import planned
from retrieval_kd.pipeline.pools import stage_pools
from retrieval_kd.students.make import make_student
from retrieval_kd.training.batches.teacher_vectors import teacher_vectors
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.train_student import train_student

CONFIG = Path(__file__).with_suffix(".yaml")
OUT = RESULTS / "compression.json"
CHOOSING = {"squad": "dev", "scifact": "train"}
COLLECTIONS = ("squad", "scifact", "cranfield", "medquad")
STAGES = ("queries", "candidates", "cloze", "try", "weights", "score")
MEASURE, DEPTH = "ndcg@10", 10
TRIED = [  # starts and rates of training, on the queries that choose
    ("pca", 1e-3), ("whitening", 1e-3), *(("half_whitening", rate) for rate in (3e-4, 1e-3, 3e-3)),
]  # fmt: skip
TRAINED = "trained"
OUTLIERS = 3.0  # standard deviations of a dimension's mean magnitude from the others'


@dataclass(frozen=True)
class System:
    """A map of the encoder's vectors, to so many dimensions, and the FAISS index of the result."""

    map: str
    dimensions: int
    factory: str

    @property
    def name(self) -> str:
        return f"{self.map} {self.dimensions}, {self.factory}"


WHOLE = 384
SYSTEMS = [
    System("encoder", WHOLE, "Flat"),
    System("no outliers", WHOLE, "Flat"),
    System("encoder", WHOLE, "SQ8"),
    *(System(how, WHOLE, "SQ8") for how in ("whitening", "half_whitening", TRAINED)),
    *(System(how, size, "SQ8") for size in (96, 48) for how in ("cut", *POWERS, TRAINED)),
    System("encoder", WHOLE, "PQ96"),
    System("encoder", WHOLE, "PQ48"),
    System("encoder", WHOLE, "OPQ48_96,PQ48"),
    System("half_whitening", WHOLE, "PQ48"),
    System("half_whitening", 96, "PQ48"),
    System(TRAINED, 96, "PQ48"),
    *(System(how, WHOLE, "RR384,RaBitQ") for how in ("encoder", "half_whitening", TRAINED)),
]  # fmt: skip


class Material:
    """A collection's vectors, judged queries and training pools, made once."""

    def __init__(self, name: str, split: str, out: Path) -> None:
        place = split_by_focus(out / "medquad-by-focus") if name == "medquad" else name
        config = load_config(CONFIG, [f"collection={place}", f"out={out / name}"])
        self.context, self.config, self.out = planned(config), config, out / name
        work = self.context.work
        work.stages = [stage for stage in work.stages if stage.name.split(":")[0] in STAGES]
        work.execute(report)
        collection = self.context.collection
        self.qrels = collection.qrels(split)
        texts = collection.query_texts(split)
        self.queries = list(self.qrels)
        vectors = teacher_vectors(
            config.encoder,
            [texts[query] for query in self.queries],
            collection.documents,
            max_length=config.student.max_length,
        )
        self.query_vectors, self.document_vectors = vectors.queries, np.array(vectors.documents)

    @cached_property
    def pools(self) -> Any:
        """The pools of the sentences, and their groups."""
        [stage] = self.config.students["adapter"].all_stages
        return stage_pools(stage, self.context.ensemble, self.config.encoder, Drops())

    def trained(
        self, dimensions: int, seed: int, start: Start | None = None, **more: Any
    ) -> np.ndarray:
        """Train a map, or read a trained one: (E, D)."""
        training = self.config.students["adapter"]
        student = self.config.student_for(training)
        start = start or student.options["start"]
        settings = self.config.train.model_copy(update={"seed": seed, **more})
        label = "-".join(str(one) for one in (dimensions, start, *more.values(), f"seed{seed}"))
        kept = self.out / "maps" / f"{label}.npy"
        if kept.exists():
            return cast(np.ndarray, np.load(kept, allow_pickle=False))
        job = TrainingJob(
            make_student(
                student.base,
                "adapter",
                max_length=student.max_length,
                dimensions=dimensions,
                options={"start": start},
                documents=self.context.collection.documents,
            ),
            self.pools[0],
            self.context.collection.documents,
            training.all_stages[0].objective,
            settings,
            self.out / "students" / label,
            groups=self.pools[1],
            teacher_length=student.max_length,
        )
        train_student(job)
        weight = cast(np.ndarray, job.student.dense.linear.weight.detach().numpy())
        save_array(kept, weight)
        shutil.rmtree(job.out)  # the whole encoder again
        return weight

    def map(self, system: System, seed: int) -> np.ndarray:
        """Return a system's map (E, D)."""
        how, size = system.map, system.dimensions
        if how == TRAINED:
            return self.trained(size, seed)
        if how in POWERS:
            return fit_projection(self.document_vectors, size, cast(Start, how))
        whole = np.eye(WHOLE, dtype=np.float32)
        return whole[~outliers(self.document_vectors)] if how == "no outliers" else whole[:size]

    def search(self, weight: np.ndarray, factory: str) -> tuple[Run, int]:
        """Search an index of mapped vectors; return the run, and the bytes of a document's code."""
        documents, queries = (
            finish(vectors @ weight.T, True)
            for vectors in (self.document_vectors, self.query_vectors)
        )
        index = faiss.index_factory(documents.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(documents)
        index.add(documents)
        _, found = index.search(queries, DEPTH)
        ids = self.context.collection.documents.id_at
        results = {
            query: {ids(int(at)): -float(rank) for rank, at in enumerate(row) if at >= 0}
            for query, row in zip(self.queries, found, strict=True)
        }
        return Run(factory, results), int(index.sa_code_size())


def report(stage: Any, done: bool, place: str) -> None:
    """Print a line for a stage that runs."""
    if not done:
        print(f"   {stage.name}", flush=True)


def outliers(vectors: np.ndarray) -> np.ndarray:
    """Return which dimensions (D,) have a mean magnitude far from that of the others."""
    magnitude = np.abs(vectors).mean(axis=0)
    return cast(np.ndarray, np.abs(magnitude - magnitude.mean()) > OUTLIERS * magnitude.std())


def choose(out: Path) -> dict[str, Any]:
    """Measure fitted maps, starts and rates, unquantised, on the queries that choose."""
    chosen: dict[str, Any] = {}
    for name, split in CHOOSING.items():
        material = Material(name, split, out)
        values: dict[str, Run] = {}
        for size in (WHOLE, 96):
            for how in ("cut", *POWERS):
                weight = material.map(System(how, size, "Flat"), 0)
                values[f"{how} {size}"] = material.search(weight, "Flat")[0]
            for start, rate in TRIED:
                weight = material.trained(size, 0, cast(Start, start), learning_rate=rate)
                label = f"trained {size} from {start}, rate {rate:g}"
                values[label] = material.search(weight, "Flat")[0]
        found = evaluate(material.qrels, values, [MEASURE])
        chosen[name] = {
            "split": split,
            "queries": len(found.queries),
            MEASURE: {label: found.mean(label, MEASURE) for label in values},
        }
        for label, value in chosen[name][MEASURE].items():
            print(f"{name} {value:.4f} {label}", flush=True)
    return chosen


def measure(name: str, out: Path, systems: Sequence[System]) -> dict[str, Any]:
    """Measure systems on a collection's test queries, and test the trained ones."""
    print(f"== {name}", flush=True)
    material = Material(name, "test", out)
    runs: dict[str, Run] = {}
    groups: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for system in systems:
        seeds = material.config.seeds if system.map == TRAINED else [0]
        groups[system.name] = [f"{system.name}-seed{seed}" for seed in seeds]
        for seed, member in zip(seeds, groups[system.name], strict=True):
            weight = material.map(system, seed)
            runs[member], sizes[system.name] = material.search(weight, system.factory)
    evaluation = evaluate(material.qrels, runs, [MEASURE]).group(groups)
    named = {system.name: system for system in systems}
    pairs = [
        (mine, other)
        for mine, other in product(named, named)
        if named[mine].map == TRAINED != named[other].map and sizes[mine] == sizes[other]
    ]
    print(f"   {len(evaluation.queries)} test queries", flush=True)
    return {
        "queries": len(evaluation.queries),
        "documents": len(material.document_vectors),
        "outliers": int(outliers(material.document_vectors).sum()),
        "settings": {
            "train": material.config.train.model_dump(exclude={"seed"}),
            "student": material.config.student_for(
                material.config.students["adapter"]
            ).model_dump(),
        },
        "systems": {
            system: {"bytes": sizes[system], MEASURE: evaluation.per_seed(system, MEASURE)}
            for system in groups
        },
        "tests": [asdict(test) for test in compare(evaluation, pairs=pairs)],
    }


def table(collections: Mapping[str, Any]) -> str:
    """Lay out nDCG@10 by system and collection, most bytes first; then the significant tests."""
    first = next(iter(collections.values()))["systems"]
    head = ["bytes", "map and index", *collections, "mean"]
    rows = [head, ["---"] * len(head)]
    for system in sorted(first, key=lambda name: -first[name]["bytes"]):
        means = [float(np.mean(c["systems"][system][MEASURE])) for c in collections.values()]
        cells = [f"{mean:.3f}".lstrip("0") for mean in (*means, float(np.mean(means)))]
        rows.append([str(first[system]["bytes"]), system, *cells])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    for name, result in collections.items():
        for test in result["tests"]:
            if test["p_holm"] < 0.05:
                lines.append(f"{name}: {test['a']} − {test['b']} = {test['difference']:+.4f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Choose or measure, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collections", default=",".join(COLLECTIONS))
    parser.add_argument("--choose", action="store_true", help="measure settings on dev instead")
    parser.add_argument(
        "--no-pq",
        dest="pq",
        action="store_false",
        help="without product quantisation, whose training is nine tenths of the time",
    )
    parser.add_argument("--table", action="store_true", help="only print what is measured")
    parser.add_argument("--out", type=Path, default=Path("runs/compression"))
    options = parser.parse_args(arguments)
    systems = [system for system in SYSTEMS if options.pq or "PQ" not in system.factory]
    if options.choose:
        update(chosen_on=choose(options.out))
        return
    for name in [] if options.table else options.collections.split(","):
        found = measure(name, options.out, systems)
        update(collections={**read_results()["collections"], name: found})
    print(table(read_results()["collections"]))


def read_results() -> dict[str, Any]:
    """Read what is measured so far."""
    return read_json(OUT) if OUT.exists() else {"collections": {}}


def update(**parts: Any) -> None:
    """Put parts into the results, which another process may have changed in the meantime."""
    machine = {"hardware": describe(), "versions": versions()}
    write_json(OUT, {**read_results(), **parts, **machine})


if __name__ == "__main__":
    main()
