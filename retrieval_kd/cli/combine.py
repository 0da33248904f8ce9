"""The command `rkd index combine`. `index.py` mounts it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from retrieval_kd import schema
from retrieval_kd.cli.options import bounded, out_folder
from retrieval_kd.data.numerals import finite_number
from retrieval_kd.errors import InputError
from retrieval_kd.progress import say


def combine(
    part: Annotated[
        list[str],
        typer.Option(
            help="bm25, bm25-lucene, or a folder made by `rkd index`, which may be given a name: "
            "NAME=FOLDER; two or more"
        ),
    ],
    out: Annotated[Path, out_folder("folder for the hybrid index")],
    split: Annotated[
        str | None, typer.Option(help="judged split whose queries choose the weights")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="instead: a weight for each part, such as bm25=.4,NAME=.6; equal (the default); "
            "or cloze: chosen on sentences of the documents, where nothing is judged"
        ),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="of the documents; by default the first index's")
    ] = None,
    fusion: Annotated[
        Literal["min_max", "z_scores", "ranks"],
        typer.Option(help="sum of scores from 0 to 1, of z-scores, or of 1 / (60 + rank)"),
    ] = "min_max",
    candidates: Annotated[
        int, bounded(schema.Depth, "best documents of each part that are fused")
    ] = 100,
    language: Annotated[
        str | None, typer.Option(help="of BM25: its stemmer and stop words; none uses neither")
    ] = None,
    allow_test: Annotated[
        bool, typer.Option("--allow-test", help="let a split called test choose")
    ] = False,
) -> None:
    """Combine BM25 and indexes of one collection into one index with fusion weights.

    The folder holds copies of its parts, BM25 and the texts: to search, nothing else is needed but
    the models. `rkd search`, `rkd serve` and `rkd index add|delete|compact|verify` take it as they
    take other indexes.

    With --split, nDCG@10 of its queries chooses the weights, and says what each part is worth alone
    and what the fusion is worth on queries that did not choose.

    Example: rkd index combine --part bm25 --part my-index --split dev --out my-hybrid
    """
    from retrieval_kd.retrieval.combine import combine_indexes

    if weights is not None and split is not None:
        raise InputError("both --weights and --split", remedy="give one of them")
    named: Any = weights or "equal"
    if "=" in named:
        named = _read_weights(named)
    opened = None
    if collection is not None:
        from retrieval_kd.data.collection import open_collection

        opened = open_collection(collection)
    made = combine_indexes(
        part,
        out,
        collection=opened,
        weights=named,
        split=split,
        allow_test=allow_test,
        how=fusion,
        candidates=candidates,
        language=language,
    )
    for line in report(made.manifest):
        say(line)
    of = ", ".join(f"{name} {weight:.3g}" for name, weight in made.weights.items())
    say(f"{out}: {len(made):,} documents; weights: {of}")


def _read_weights(text: str) -> dict[str, float]:
    """Read NAME=WEIGHT,NAME=WEIGHT."""
    weights: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = item.strip().rpartition("=")
        value = finite_number(number)
        if not name or value is None:
            remedy = "write NAME=WEIGHT for each part, separated by commas"
            raise InputError(f"cannot read the weight {item.strip()!r}", remedy=remedy)
        if name in weights:
            raise InputError(f"two weights for {name}", remedy="give each part one")
        weights[name] = value
    return weights


def report(manifest: dict[str, Any]) -> list[str]:
    """Say what was measured when the weights were chosen.

    Example:
        >>> held = {"fused": 0.7, "best_part": 0.6, "p": 0.01}
        >>> print(*report({"weights_from": {"chosen": "split", "split": "dev", "queries": 40,
        ...     "alone": {"bm25": 0.6, "mini": 0.5}, "equal": 0.68, "fused": 0.71,
        ...     "held_out": held}}), sep="\\n")
        nDCG@10 on 40 queries of dev: bm25 alone 0.6000, mini alone 0.5000, equal weights 0.6800, \
chosen weights 0.7100
        on halves that did not choose: fused 0.7000, the best part alone 0.6000 (p = .010)
    """
    from retrieval_kd.metrics.significance import format_p

    origin = manifest["weights_from"]
    if "queries" not in origin:
        return []
    queries = f"{origin['queries']:,} queries of {origin.get('split')}"
    if origin["chosen"] == "cloze":
        queries = f"{origin['queries']:,} sentences of the documents"
    alone = ", ".join(f"{name} alone {value:.4f}" for name, value in origin["alone"].items())
    held = origin["held_out"]
    told = f"on halves that did not choose: fused {held['fused']:.4f}, the best part alone "
    lines = [
        f"nDCG@10 on {queries}: {alone}, equal weights {origin['equal']:.4f}, chosen weights "
        f"{origin['fused']:.4f}",
        f"{told}{held['best_part']:.4f} ({format_p(held['p'])})",
    ]
    if held["fused"] <= held["best_part"]:
        lines.append("The fusion is no better than the best part: search that one alone.")
    return lines
