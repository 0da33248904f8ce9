"""What every stage of `rkd run` works on: the configuration, and what earlier stages left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from retrieval_kd.config.run import Config
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import Run, read_run
from retrieval_kd.files import read_json
from retrieval_kd.pipeline.queries import Queries
from retrieval_kd.pipeline.run_ensemble import RunEnsemble
from retrieval_kd.workspace import Workspace

PARTS = ("train", "dev", "test", "unlabelled")


def seeded(system: str, seed: int) -> str:
    """The name of one seed of a student on disk: of its folder, its index, its run file.

    Example:
        >>> seeded("labels", 0)
        'labels-seed0'
    """
    return f"{system}-seed{seed}"


class RunContext:
    """One run: its configuration, its collection, and the files in its workspace.

    Queries and candidates come in parts: train, dev, test and unlabelled (see `PARTS`).
    """

    def __init__(self, config: Config, work: Workspace) -> None:
        self.config, self.work = config, work

    def label(self, system: str, seed: int) -> str:
        """The name of one seed of a student as users see it; with one seed, just the name."""
        return system if len(self.config.seeds) == 1 else f"{system} (seed {seed})"

    def run_names(self, system: str) -> list[str]:
        """Return the names of a system's indexes and run files: a student has one for each seed."""
        student = self.config.systems.get(system)
        if student is None or not (system == student or system.startswith(f"{student}@")):
            return [system]  # not a student, or the average of its seeds
        return [seeded(system, seed) for seed in self.config.seeds]

    @cached_property
    def collection(self) -> Collection:
        """The collection, opened once a run, since opening it warns of what it drops."""
        return open_collection(self.config.collection)

    @cached_property
    def ensemble(self) -> RunEnsemble:
        """The teachers, fused."""
        return RunEnsemble(self.config, self.work, self.collection, self.queries, self.candidates)

    def queries(self, part: str) -> Queries:
        """Return the queries of one part."""
        return Queries(**read_json(self.work.path("queries", f"{part}.json")))

    def candidates(self, part: str) -> dict[str, dict[str, float]]:
        """Return the first stage's candidates of one part: query ID → document ID → score."""
        return read_json(self.work.path("candidates", f"{part}.json"))

    def runs(self, names: Sequence[str]) -> dict[str, Run]:
        """Read run files of the test part, by name."""
        runs = {name: read_run(self.work.path("runs", f"{name}.trec")) for name in names}
        return {name: Run(name, run.results) for name, run in runs.items()}
