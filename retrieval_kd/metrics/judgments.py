"""Judgments in the form that ranx reads, and the call of ranx; documents are numbers here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_kd.metrics.names import level


class Judgments:
    """Arrays (judged documents, [number, gain]) of each query, made once for all runs.

    Two of ranx's kernels need help. bpref divides by the number of judged non-relevant documents:
    if there is none, one is added that no system returned, which yields trec_eval's value. RBP
    sums gains although its definition says 0 or 1, so it gets 0 or 1.
    """

    def __init__(self, gains: Mapping[str, Mapping[str, int]], measures: Sequence[str]) -> None:
        from numba.typed import List

        graded = [np.array(list(enumerate(g.values())), dtype=np.float64) for g in gains.values()]
        graded = [array[np.argsort(-array[:, 1], kind="stable")] for array in graded]
        self.measures = measures
        self.groups: dict[str, list[str]] = {}  # measures that share a form of the judgments
        for measure in measures:
            base = measure.split("-l")[0].split(".")[0].split("@")[0]
            key = f"{base}-l{level(measure)}" if base in ("rbp", "bpref") else ""
            self.groups.setdefault(key, []).append(measure)
        # a numba list takes 6 µs an array to build, so each form is made once
        self.forms = {key: List(_form(graded, key)) for key in self.groups}

    def measure(self, lists: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Map each measure to one value per query, for a run whose arrays are sorted.

        So ranx neither hashes IDs nor sorts scores.
        """
        import ranx  # compiles for seconds and writes ~/.ir_datasets: only when needed
        from numba.typed import List

        run = List(lists)
        values: dict[str, np.ndarray] = {}
        for key, measures in self.groups.items():
            names = [m.split("-l")[0] if m.startswith("rbp") else m for m in measures]
            with warnings.catch_warnings():
                # numba: "unsafe cast from uint64 to int64" of an index
                warnings.simplefilter("ignore")
                # the first name is passed twice: ranx 0.3 loses a single name with parameters
                found = ranx.evaluate(self.forms[key], run, [*names, names[0]], return_mean=False)
            values |= {m: found[name] for m, name in zip(measures, names, strict=True)}
        return {measure: values[measure] for measure in self.measures}


def _form(graded: list[np.ndarray], key: str) -> list[np.ndarray]:
    """Convert the judgments to the form that the measures of this key need."""
    least = level(key)
    if key.startswith("rbp"):
        return [np.column_stack([a[:, 0], a[:, 1] >= least]) for a in graded]
    if key.startswith("bpref"):
        return [np.vstack([a, [len(a), 0]]) if a[-1, 1] >= least else a for a in graded]
    return graded
