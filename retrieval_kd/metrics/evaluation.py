"""The result of an evaluation: values per query and system, counts, and the rules it followed.

`measures.evaluate` makes it, `significance.compare` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retrieval_kd.errors import InputError
from retrieval_kd.metrics.names import cutoff, parse_measure, readable

RULES = (
    "Gains are graded; a gain of 1 or more is relevant unless the measure says otherwise; "
    "negative gains count as 0.",
    "Documents are ordered as by trec_eval: by descending score in single precision, equal scores "
    "by descending document ID.",
    "Queries without a relevant document in the judgments are left out and counted.",
    "Judged queries for which a system returned nothing count as 0.",
    "A measure with a cut-off k looks at the first k results, any other at all that a run has.",
)
CONDENSED_RULE = {
    False: "Documents without a judgment count as not relevant.",
    True: "Documents without a judgment are left out of the results before measuring (condensed "
    "lists).",
}
SELF_RULE = {
    True: "A document whose ID equals the query's is left out of results and judgments.",
    False: "A document whose ID equals the query's is treated like any other.",
}


def system_of(run: str) -> str:
    """Return the system of which a run is a seed, by its name; folder names do not count.

    Example:
        >>> [system_of(run) for run in ("distilled#seed1", "x#1/bm25", "x#1/bm25#2")]
        ['distilled', 'x#1/bm25', 'x#1/bm25']
    """
    return re.sub(r"(?<=[^/])#[^#/]*$", "", run)


@dataclass
class Evaluation:
    """Values per system, measure and query; every system has the same queries.

    `seeds[system]` names the runs that were averaged into it (see `group`), `seed_means` holds
    their means. `judged[system]` holds, for each run and query, which ranked documents have a
    judgment.
    """

    measures: list[str]
    per_query: dict[str, dict[str, dict[str, float]]]
    counts: dict[str, Any] = field(default_factory=dict)
    exclude_self: bool = True
    warnings: list[str] = field(default_factory=list)
    seeds: dict[str, list[str]] = field(default_factory=dict)
    seed_means: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    judged: dict[str, list[dict[str, np.ndarray]]] = field(default_factory=dict, repr=False)
    condensed: bool = False

    @property
    def systems(self) -> list[str]:
        return list(self.per_query)

    @property
    def queries(self) -> list[str]:
        return list(next(iter(next(iter(self.per_query.values())).values())))

    @property
    def rules(self) -> list[str]:
        return [*RULES, CONDENSED_RULE[self.condensed], SELF_RULE[self.exclude_self]]

    def values(self, system: str, measure: str) -> np.ndarray:
        """Return one value per query, in the order of `queries`.  (queries,)"""
        if system not in self.per_query:
            raise InputError(
                f"unknown system {system!r}", remedy=f"choose one of {', '.join(self.systems)}"
            )
        by_query = self.per_query[system].get(parse_measure(measure))
        if by_query is None:
            measured = ", ".join(map(readable, self.measures))
            raise InputError(f"{measure} was not evaluated", remedy=f"choose one of {measured}")
        return np.array([by_query[query] for query in self.queries])

    def mean(self, system: str, measure: str) -> float:
        """Average over queries (for a grouped system, over seeds and queries)."""
        return float(np.mean(self.values(system, measure)))

    def per_seed(self, system: str, measure: str) -> list[float]:
        """Return the mean of each run of a system; one value if it has one run."""
        means = self.seed_means.get(system, {}).get(parse_measure(measure))
        return means if means else [self.mean(system, measure)]

    def spread(self, system: str, measure: str) -> float | None:
        """Return the standard deviation (n − 1) over a system's seeds; None with a single run."""
        means = self.per_seed(system, measure)
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def depth(self, system: str) -> int | None:
        """Return the length of a system's longest list; None if it is not recorded."""
        counts = self.counts.get("systems", {})
        runs = self.seeds.get(system, [system])
        return max((counts[r]["longest_list"] for r in runs if r in counts), default=None)

    def short_lists(self) -> list[str]:
        """Say which systems return fewer documents than a measure looks at."""
        notes = []
        for system in self.systems:
            depth = self.depth(system) or 0
            short = [readable(m) for m in self.measures if depth and (cutoff(m) or 0) > depth]
            if short:
                notes.append(
                    f"{system} has at most {depth} documents per query, and its "
                    f"{', '.join(short)} {'are' if len(short) > 1 else 'is'} computed on these"
                )
        return notes

    def holes(self, system: str, k: int = 10) -> float:
        """Judged@k: the share of the first k returned documents that have a judgment.

        If it is low, the measures mean little: the other documents may be relevant or not.
        """
        self.values(system, self.measures[0])
        lists = [flags[:k] for run in self.judged[system] for flags in run.values()]
        shown = sum(map(len, lists))
        return sum(int(flags.sum()) for flags in lists) / shown if shown else 0.0

    def group(self, groups: Mapping[str, Sequence[str]] | None = None) -> Evaluation:
        """Average seeds of one system per query, so that tests compare systems, not runs.

        Without `groups`, runs named `system#anything` (such as `distilled#seed1`) form `system`.

        Example:
            >>> one = {"ndcg@10": {"q1": 1.0, "q2": 0.0}}; two = {"ndcg@10": {"q1": 0.5, "q2": 0.0}}
            >>> runs = Evaluation(["ndcg@10"], {"student#seed1": one, "student#seed2": two})
            >>> grouped = runs.group()
            >>> grouped.per_query["student"]["ndcg@10"]
            {'q1': 0.75, 'q2': 0.0}
            >>> grouped.per_seed("student", "ndcg@10")
            [0.5, 0.25]
        """
        members = {m: label for label, names in (groups or {}).items() for m in names}
        for name in members:
            self.values(name, self.measures[0])  # an unknown name is an error
        for label in groups or {}:
            if label in self.systems and members.get(label) != label:
                raise InputError(f"{label!r} already names a system", remedy="use a different name")
        if groups is None:
            members = {s: system_of(s) for s in self.systems if system_of(s) != s}
            both = next((m for m, label in members.items() if label in self.systems), None)
            if both is not None:
                label = members[both]
                problem = (
                    f"{both!r} looks like a seed of {label!r}, but a run is also called {label!r}"
                )
                remedy = f"rename that run, for example to {label}#seed0"
                raise InputError(problem, remedy=remedy)
        by_label: dict[str, list[str]] = {}
        for system in self.systems:
            by_label.setdefault(members.get(system, system), []).append(system)
        grouped = Evaluation(
            self.measures,
            {},
            self.counts,
            self.exclude_self,
            list(self.warnings),
            condensed=self.condensed,
        )
        for label, names in by_label.items():
            grouped.per_query[label] = {
                measure: dict(
                    zip(
                        self.queries,
                        np.mean([self.values(n, measure) for n in names], axis=0).tolist(),
                        strict=True,
                    )
                )
                for measure in self.measures
            }
            grouped.judged[label] = [run for name in names for run in self.judged.get(name, [])]
            if names != [label]:
                grouped.seeds[label] = names
                grouped.seed_means[label] = {
                    measure: [self.mean(name, measure) for name in names]
                    for measure in self.measures
                }
        return grouped

    def to_json(self) -> dict[str, Any]:
        """Make a JSON-able record, which `from_json` reads back (without the data of `holes`)."""
        systems = {
            system: {
                "mean": {m: self.mean(system, m) for m in self.measures},
                "judged@10": self.holes(system, 10) if self.judged.get(system) else None,
                "seeds": self.seeds.get(system, []),
                "seed_means": self.seed_means.get(system, {}),
                "spread": {m: self.spread(system, m) for m in self.measures},
                "per_query": by_measure,
            }
            for system, by_measure in self.per_query.items()
        }
        return {
            "measures": self.measures,
            "systems": systems,
            "counts": self.counts,
            "rules": self.rules,
            "exclude_self": self.exclude_self,
            "condensed": self.condensed,
            "warnings": self.warnings,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Evaluation:
        systems = record["systems"]
        return cls(
            measures=list(record["measures"]),
            per_query={name: system["per_query"] for name, system in systems.items()},
            counts=dict(record["counts"]),
            exclude_self=record["exclude_self"],
            warnings=list(record["warnings"]),
            seeds={name: s["seeds"] for name, s in systems.items() if s["seeds"]},
            seed_means={name: s["seed_means"] for name, s in systems.items() if s["seed_means"]},
            condensed=record.get("condensed", False),
        )
