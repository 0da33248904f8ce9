"""Combines indexes of the same documents, and BM25, into one folder with fusion weights.

The folder appears whole or not at all. `hybrid_folder.py` says what is in it.
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from retrieval_kd.data.collection import Collection
from retrieval_kd.errors import InputError, did_you_mean, log
from retrieval_kd.files import (
    SEAL,
    atomic_folder,
    check_movable,
    digest_file,
    sealed,
    write_json,
)
from retrieval_kd.hardware import describe, versions
from retrieval_kd.indexing.change import change_lock
from retrieval_kd.indexing.index import Index, check_files, read_manifest, run_of
from retrieval_kd.indexing.shards import check_distinct
from retrieval_kd.retrieval.analysis import VERSION
from retrieval_kd.retrieval.bm25 import BM25, DEFAULT, LUCENE, BM25Parameters, for_language
from retrieval_kd.retrieval.cloze_runs import cloze_runs
from retrieval_kd.retrieval.fit_fusion import Lists, fit_weights
from retrieval_kd.retrieval.fuse import CANDIDATES, HOWS, How
from retrieval_kd.retrieval.hybrid import HybridIndex
from retrieval_kd.retrieval.hybrid_folder import (
    DOCUMENTS,
    HYBRID,
    LEXICAL,
    MANIFEST,
    Part,
    check_same,
    copy_tree,
    is_hybrid,
)

BM25_PARTS = {"bm25": DEFAULT, "bm25-lucene": LUCENE}
NAME = re.compile(r"[\w.-]*\w[\w.-]*")
RESERVED = (DOCUMENTS, HYBRID, *BM25_PARTS)
FIRST, WORK = "content-000000", ".work"

Named = dict[str, Path | BM25Parameters]


def combine_indexes(
    parts: Sequence[str | Path],
    out: str | Path,
    *,
    collection: Collection | None = None,
    weights: Mapping[str, float] | Literal["equal", "cloze"] = "equal",
    split: str | None = None,
    allow_test: bool = False,
    how: How = "min_max",
    candidates: int = CANDIDATES,
    language: str | None = None,
) -> HybridIndex:
    """Combine indexes into the folder `out`, which then needs neither them nor the collection.

    Args:
        parts: index folders, each by the name of its folder or as `NAME=FOLDER`; `bm25` or
            `bm25-lucene` (Anserini's parameters) for a BM25 that is built. Two at least.
        collection: by default the one that the first index was built from.
        weights: by part's name, scaled to sum to 1; `equal`; or `cloze`: those nearest to equal
            ones that find sentences in the documents that they were cut out of about as well as
            the best do.
        split: judged queries that choose the weights, in place of `weights`.
        allow_test: let a split called test choose: what is measured on it then says nothing.
        how: to fuse, see `fuse_lists`.
        candidates: documents of each part that are fused.
        language: of BM25, see `for_language`.

    Raises:
        InputError: parts are missing, damaged or of different documents, or weights do not fit
            them (all found before a model is loaded), too few queries are judged, or another
            command is changing the index in `out`.

    Example:
        >>> combine_indexes(["bm25", "my-index"], "my-hybrid", split="dev")  # doctest: +SKIP
    """
    out, named = Path(out), name_parts(parts)
    _check_choice(named, weights, split, allow_test, how, candidates)
    _check_out(out, [place for place in named.values() if isinstance(place, Path)])
    indexes = {name: Index.open(place) for name, place in named.items() if isinstance(place, Path)}
    _check_documents(indexes)
    lexical = {
        name: place if language is None else for_language(language, place)
        for name, place in named.items()
        if isinstance(place, BM25Parameters)
    }
    locked = change_lock(out) if is_hybrid(out) else contextlib.nullcontext()
    with locked, atomic_folder(out) as folder:
        work = folder / WORK
        source = _source(indexes, collection, work / DOCUMENTS)
        texts = source.documents
        if split is not None:
            source.qrels(split)  # an unknown split is an error, before BM25 is built
        bm25s = {name: BM25.open(texts, parameters) for name, parameters in lexical.items()}
        chosen, origin = _weights(
            named, indexes, bm25s, source, weights, split, how, candidates, work
        )
        fusion = {"how": how, "candidates": candidates, "weights": chosen}
        content = folder / FIRST
        _copy_sealed(texts.folder, content / DOCUMENTS)
        described = [
            _write_bm25(name, bm25s[name], content)
            if name in bm25s
            else _write_index(name, indexes[name], content)
            for name in named
        ]
        manifest = {
            "format": 1,
            "kind": HYBRID,
            "content": FIRST,
            "count": len(texts),
            "documents": digest_file(content / DOCUMENTS / SEAL),
            "collection": {"name": source.name, "spec": source.spec},
            "parts": [part._asdict() for part in described],
            "fusion": fusion,
            "weights_from": origin,
            "machine": describe(),
            "versions": versions(),
        }
        write_json(folder / MANIFEST, sealed(manifest))
        shutil.rmtree(work, ignore_errors=True)
    return HybridIndex.open(out, verify=False)


def name_parts(parts: Sequence[str | Path]) -> Named:
    """Return parts by name: BM25's parameters, or the folder of an index.

    Raises:
        InputError: fewer than two, no index in a folder, or a name that is taken or is no name.
    """
    named: Named = {}
    for part in map(str, parts):
        name, _, path = part.partition("=")
        if part not in BM25_PARTS:
            if Path(part).is_dir() or not path:
                name, path = Path(part).resolve().name, part
            _check_part(name, Path(path))
        if name in named:
            remedy = "name one of them: --part NAME=FOLDER"
            raise InputError(f"two parts are called {name}", remedy=remedy)
        named[name] = BM25_PARTS[part] if part in BM25_PARTS else Path(path)
    if len(named) < 2:
        remedy = "name two or more, such as --part bm25 --part INDEX"
        raise InputError(f"a hybrid index of {len(named)} part", remedy=remedy)
    check_distinct([place for place in named.values() if isinstance(place, Path)])
    return named


def _check_part(name: str, folder: Path) -> None:
    if name in RESERVED or not NAME.fullmatch(name):
        remedy = "give it another name of letters, digits, - . and _: --part NAME=FOLDER"
        raise InputError(f"{name!r} cannot be the name of a part", file=folder, remedy=remedy)
    if not (folder / MANIFEST).is_file():
        remedy = f"build it with rkd index, or name {' or '.join(BM25_PARTS)}"
        raise InputError("no finished index here", file=folder, remedy=remedy)
    if is_hybrid(folder):
        problem = "this is a hybrid index, and a part is an index of one model"
        raise InputError(problem, file=folder, remedy="name the indexes that it was made of")


def _check_choice(
    named: Named,
    weights: Mapping[str, float] | str,
    split: str | None,
    allow_test: bool,
    how: str,
    candidates: int,
) -> None:
    if how not in HOWS:
        raise InputError(f"no fusion is called {how!r}", remedy=f"choose {', '.join(HOWS)}")
    if candidates < 1:
        raise InputError(f"{candidates} candidates", remedy="fuse at least 1 document of each part")
    if split is not None and weights != "equal":
        raise InputError("both weights and a split to choose them on", remedy="give one of them")
    if split == "test" and not allow_test:
        raise InputError(
            "weights that the test queries choose look better on them than they are",
            remedy="choose on another split, such as dev or train; if nothing will be measured on "
            "test, add --allow-test",
        )
    if isinstance(weights, str):
        if weights not in ("equal", "cloze"):
            remedy = "give NAME=WEIGHT for each part, or equal, or cloze"
            raise InputError(f"no weights are called {weights!r}", remedy=remedy)
        return
    for name in weights:
        if name not in named:
            remedy = did_you_mean(name, named) or f"the parts are {', '.join(named)}"
            raise InputError(f"a weight for {name}, which is no part", remedy=remedy)
    missing = [name for name in named if name not in weights]
    if missing:
        remedy = f"give each part one: {','.join(f'{n}=1' for n in named)}"
        raise InputError(f"no weight for {', '.join(missing)}", remedy=remedy)
    if not all(math.isfinite(w) and w >= 0 for w in weights.values()) or not any(weights.values()):
        problem = "weights must be finite and not negative, and one must be above 0"
        raise InputError(problem, remedy=f"such as {','.join(f'{name}=1' for name in named)}")


def _check_out(out: Path, folders: Sequence[Path]) -> None:
    """Refuse to replace anything but a hybrid index, or a folder that has a part in it."""
    check_movable(out)
    if out.exists() and any(out.iterdir()) and not is_hybrid(out):
        problem = "this folder holds something other than a hybrid index, and would be replaced"
        raise InputError(problem, file=out, remedy="give a new folder")
    inside = [folder for folder in folders if folder.resolve().is_relative_to(out.resolve())]
    if inside:
        problem = f"the part {inside[0]} is in this folder, which would be replaced"
        raise InputError(problem, file=out, remedy="give a new folder")


def _source(
    indexes: Mapping[str, Index], collection: Collection | None, folder: Path
) -> Collection:
    """Return the collection, with the documents that the indexes have now.

    `folder` is written if documents were added to the indexes, or deleted.
    """
    first = next(iter(indexes.values()), None)
    if collection is None:
        if first is None:
            remedy = "name it with --collection"
            raise InputError("no collection for parts that are all BM25", remedy=remedy)
        collection = first.collection()
    for name, index in indexes.items():
        built = index.manifest["collection"]["documents_digest"]
        if built != collection.documents.digest:
            problem = f"{name} was built from other documents than those of {collection.name}"
            remedy = "name the collection that it was built from, or build it again"
            raise InputError(problem, file=index.folder, remedy=remedy)
    changed = [index for index in indexes.values() if index.layout.number]
    if changed:
        digests = {index.manifest["documents_digest"] for index in indexes.values()}
        if len(digests) > 1:
            log.warning("the parts were changed in different ways: their texts may differ")
        collection = copy.copy(collection)  # the caller's stays as it is
        collection.documents = changed[0].live_texts(folder)
    return collection


def _check_documents(indexes: Mapping[str, Index]) -> None:
    """Refuse indexes of different documents."""
    first = next(iter(indexes), "")
    known = set(indexes[first].live_ids()) if first else set()
    for name, index in indexes.items():
        check_same(first, known, name, index.live_ids(), index.folder)


def _weights(
    named: Named,
    indexes: Mapping[str, Index],
    bm25s: Mapping[str, BM25],
    source: Collection,
    weights: Mapping[str, float] | str,
    split: str | None,
    how: How,
    candidates: int,
    work: Path,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the weights, which sum to 1, and where they come from."""
    if not isinstance(weights, str):
        total = sum(weights.values())
        return {name: weights[name] / total for name in named}, {"chosen": "given"}
    if split is None and weights == "equal":
        return dict.fromkeys(named, 1 / len(named)), {"chosen": "equal"}
    if split is None:
        parameters = {name: one.parameters for name, one in bm25s.items()}
        runs, qrels = cloze_runs(list(named), indexes, parameters, source, candidates, work)
        origin = {"chosen": "cloze"}
    else:
        queries, qrels = source.query_texts(split), source.qrels(split)
        runs = {}
        for name in named:
            search = indexes[name].search if name in indexes else bm25s[name].search_all
            runs[name] = run_of(search, queries, candidates, True, name)
        origin = {"chosen": "split", "split": split, "qrels": source.qrels_digest(split)}
    by_words = frozenset(
        name for name in named if name in bm25s or indexes[name].manifest["spec"].get("kind") ==
        "sparse"
    )  # fmt: skip
    lists = Lists(runs, candidates, by_words)
    chosen, facts = fit_weights(lists, qrels, how, careful=split is None)
    return chosen, {**origin, **facts}


def _write_bm25(name: str, bm25: BM25, content: Path) -> Part:
    _copy_sealed(bm25.folder, content / name)
    mark = digest_file(content / name / SEAL)
    return Part(name, LEXICAL, mark, bm25.parameters.model_dump(), VERSION)


def _write_index(name: str, index: Index, content: Path) -> Part:
    files, place = index.manifest["files"], content / name
    copy_tree(index.folder, place, [*files, MANIFEST])
    check_files(place, files, verify=True)
    if read_manifest(place) != index.manifest:
        problem = "this index was changed while it was combined"
        raise InputError(problem, file=index.folder, remedy="combine again")
    kind = index.manifest["spec"].get("kind", "faiss")
    return Part(name, "dense" if kind == "faiss" else kind, digest_file(place / MANIFEST))


def _copy_sealed(source: Path, target: Path) -> None:
    """Copy a sealed folder."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*"))
