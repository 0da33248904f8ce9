"""Names of measures: what people write, what ranx calls them, what a table shows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from retrieval_kd.errors import InputError

# ranx's name → how a table shows it
READABLE = {
    "ndcg": "nDCG",
    "ndcg_burges": "nDCG-Burges",
    "dcg": "DCG",
    "dcg_burges": "DCG-Burges",
    "mrr": "MRR",
    "map": "MAP",
    "recall": "Recall",
    "precision": "P",
    "r-precision": "R-precision",
    "f1": "F1",
    "hits": "Hits",
    "hit_rate": "Success",
    "bpref": "bpref",
    "rbp": "RBP",
}
UNBOUNDED = {"dcg", "dcg_burges", "hits"}  # all others lie between 0 and 1
WITHOUT_CUTOFF = {"bpref", "r-precision", "rbp"}
# other people's names (trec_eval, ir_measures, BEIR) → ranx's
ALIASES = {
    "p": "precision",
    "r": "recall",
    "rr": "mrr",
    "recip_rank": "mrr",
    "ap": "map",
    "map_cut": "map",
    "ndcg_cut": "ndcg",
    "rprec": "r-precision",
    "r_precision": "r-precision",
    "hit": "hit_rate",
    "hitrate": "hit_rate",
    "success": "hit_rate",
    "ndcg-burges": "ndcg_burges",
    "dcg-burges": "dcg_burges",
}
PATTERN = re.compile(
    r"(?P<base>[a-z][a-z0-9]*(?:[_-](?!l\d)[a-z]+)*)"  # ndcg, hit_rate, r-precision
    r"(?:\.(?P<digits>\d+))?"  # rbp.95, and trec_eval's ndcg_cut.10
    r"(?:\((?P<options>[^)]*)\))?"  # (rel=2), (p=0.95)
    r"(?:[@_](?P<cutoff>\d+))?"  # @10, and trec_eval's ndcg_cut_10
    r"(?:-l(?P<level>\d+))?"  # ranx's relevance level
)
CUT = re.compile(r"(.*[a-zA-Z][.@_])\d+")  # a name with a cut-off


def parse_measure(name: str) -> str:
    """Convert the name of a measure, in any common spelling, to ranx's.

    `-l2` (ranx) and `(rel=2)` (ir_measures) mean: a document counts as relevant from gain 2 on.

    Example:
        >>> [parse_measure(x) for x in ("nDCG@10", "RR@10", "P_5", "AP(rel=2)", "RBP(p=0.8)")]
        ['ndcg@10', 'mrr@10', 'precision@5', 'map-l2', 'rbp.8']
        >>> [parse_measure(x) for x in ("ndcg_cut.10", "map_cut_100", "recip_rank")]  # trec_eval's
        ['ndcg@10', 'map@100', 'mrr']
        >>> parse_measure("ndgc@10")
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: unknown measure 'ndgc@10'. To fix: write ndcg@10.
    """
    match = PATTERN.fullmatch(name.strip().lower())
    base = ALIASES.get(match["base"], match["base"]) if match else ""
    if match is None or base not in READABLE:
        raise _unknown(name)
    options = dict(_option(base, part) for part in (match["options"] or "").split(",") if part)
    level = int(options.pop("rel", match["level"] or 1))
    digits, cutoff = match["digits"], match["cutoff"]
    if base == "rbp":
        digits = options.pop("p", f"0.{digits}" if digits else "0.8")
        if not 0 < float(digits) < 1:
            raise InputError(f"the persistence of {name!r} must lie between 0 and 1")
        digits = f"{float(digits):.6f}".split(".")[1].rstrip("0")
    elif digits and cutoff:
        raise _unknown(name)
    else:
        cutoff = cutoff or digits
    if options:
        raise _option_error(base, next(iter(options)))
    if cutoff and base in WITHOUT_CUTOFF:
        raise InputError(f"{READABLE[base]} has no cut-off: {name!r}", remedy=f"write {base}")
    if level < 1 or (cutoff and not int(cutoff)):
        raise InputError(f"cut-off and relevance level of {name!r} must be at least 1")
    text = f"{base}.{digits}" if base == "rbp" else base
    text += f"@{int(cutoff)}" if cutoff else ""
    return text + (f"-l{level}" if level > 1 else "")


def _option(base: str, part: str) -> tuple[str, str]:
    key, _, value = part.partition("=")
    if not re.fullmatch(r"\d*\.?\d+" if key.strip() == "p" else r"\d+", value.strip()):
        raise _option_error(base, part)
    return key.strip(), value.strip()


def _option_error(base: str, part: str) -> InputError:
    return InputError(
        f"{READABLE[base]} is not computed with {part.strip()!r}",
        remedy="leave it out; the options are rel=N (a whole number) and, of RBP, p=0.N",
    )


def _unknown(name: str) -> InputError:
    """Name the measure that a slip of the pen meant, else list those that are computed."""
    base, _, rest = name.strip().lower().partition("@")
    known = [*READABLE, *ALIASES]
    # only the same letters, or nearly: ERR is not MRR, and nRBP is not RBP
    near = [m for m in known if len(m) > 2 and sorted(m) == sorted(base) and m != base]
    near = near or difflib.get_close_matches(base, known, n=1, cutoff=0.9)
    if near and near[0] != base:
        return InputError(
            f"unknown measure {name!r}", remedy=f"write {near[0]}" + (f"@{rest}" if rest else "")
        )
    choices = f"known are {', '.join(READABLE)}, with a cut-off such as @10"
    return InputError(f"the measure {name!r} is not computed", remedy=choices)


def parse_measures(names: str | Iterable[str]) -> list[str]:
    """Parse several names, as a list or separated by commas; drop duplicates, keep the order.

    Example:
        >>> parse_measures("nDCG@10, MRR@10,ndcg@10")
        ['ndcg@10', 'mrr@10']
        >>> parse_measures("P.5,10")  # as trec_eval's -m
        ['precision@5', 'precision@10']
    """
    # a comma inside parentheses belongs to the measure
    parts = re.split(r",(?![^(]*\))", names) if isinstance(names, str) else list(names)
    for at, part in enumerate(parts):
        if part.strip().isdecimal() and at and (before := CUT.fullmatch(parts[at - 1].strip())):
            parts[at] = before[1] + part.strip()
    measures = dict.fromkeys(parse_measure(part) for part in parts if part.strip())
    if not measures:
        raise InputError("no measure is given", remedy="give one, such as ndcg@10")
    return list(measures)


def cutoff(measure: str) -> int | None:
    """Return the k of a canonical name; None if the measure looks at the whole list."""
    match = re.search(r"@(\d+)", measure)
    return int(match[1]) if match else None


def is_unbounded(measure: str) -> bool:
    """Whether a measure's values may be above 1, by its canonical name.

    Example:
        >>> [is_unbounded(x) for x in ("dcg@10", "ndcg@10", "hits@5-l2")]
        [True, False, True]
    """
    return measure.partition("@")[0].partition("-l")[0] in UNBOUNDED


def level(measure: str) -> int:
    """Return the gain from which a document counts as relevant."""
    match = re.search(r"-l(\d+)$", measure)
    return int(match[1]) if match else 1


def readable(measure: str) -> str:
    """Write a canonical name for a table.

    Example:
        >>> [readable(x) for x in ("ndcg@10", "map@1000-l2", "rbp.95")]
        ['nDCG@10', 'MAP(rel=2)@1000', 'RBP(p=0.95)']
    """
    base = re.split(r"[@.]|-l\d", measure)[0]
    options = [f"p=0.{match[1]}"] if (match := re.search(r"\.(\d+)", measure)) else []
    options += [f"rel={level(measure)}"] if level(measure) > 1 else []
    text = READABLE.get(base, base) + (f"({','.join(options)})" if options else "")
    return text + (f"@{cutoff(measure)}" if cutoff(measure) else "")
