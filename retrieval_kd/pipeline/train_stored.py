"""`rkd train` and `rkd fit-teacher`: train on stored teacher scores, on judgments, or on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.config.student import Student, check_layer_choice
from retrieval_kd.config.training import (
    Training,
    TrainingStage,
)
from retrieval_kd.config.training_checks import check_cached, check_merge, check_scores
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.scores import ScoreTable
from retrieval_kd.errors import Drops, InputError, log
from retrieval_kd.models.lora import Lora
from retrieval_kd.pipeline.checks import check_start
from retrieval_kd.pipeline.pools import stage_pools
from retrieval_kd.pipeline.stored_ensemble import StoredEnsemble, StoredTeachers
from retrieval_kd.pipeline.train_students import (
    StudentTraining,
    merged_folder,
    stage_folders,
)
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.schema import as_input_error, validate
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.students.make import check_trainable
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.targets import FITTED_ON_DEV
from retrieval_kd.teachers.spec import check_base, parse_spec
from retrieval_kd.training.batches.joined import join_pools
from retrieval_kd.training.batches.pools import Pools
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.objective.terms import Term, parse_terms
from retrieval_kd.training.trainer.checkpoints import at_work, check_replaceable
from retrieval_kd.training.trainer.curve import build_dev_task
from retrieval_kd.training.trainer.devices import is_first
from retrieval_kd.training.trainer.settings import (
    FIT_DEFAULTS,
    LORA_DEFAULTS,
    TrainSettings,
    check_uncached,
)


def train_stored(
    collection: str,
    split: str,
    training: Training,
    start: Student,
    settings: TrainSettings,
    out: Path,
    *,
    teachers: StoredTeachers | None = None,
    candidates: Path | None = None,
    dev_split: str | None = None,
) -> dict[str, Any]:
    """Train all stages of a student and save it in `out`, as `rkd run` does.

    Args:
        start: kind and base of the student, unless the training has its own.
        settings: the settings that the training and its stages do not give themselves.
        teachers: the stored teachers; none, if only judgments are trained on.
        candidates: TREC run file; by default the documents that the teachers have scored.
        dev_split: queries of the learning curve, which a fusion may be fitted on too.

    Raises:
        InputError: something does not fit; before any model is loaded.
    """
    own = {**start.model_dump(exclude_unset=True), **training.student}
    start = validate(Student, own)
    if start.start is not None:
        raise InputError(
            f"student.start: {start.start!r} is a student of `rkd run`", remedy="name a --student"
        )
    check_trainable(start.base, start.kind, start.query)
    _check(training, start, settings, teachers, dev_split)
    check_start(start, training)
    merged = [merged_folder(out)] if training.merge else []
    for folder in [*stage_folders(out, len(training.all_stages)), *merged]:
        check_replaceable(folder)
    with at_work(out):
        opened, drops = open_collection(collection), Drops()
        ensemble = StoredEnsemble(opened, split, candidates, teachers, dev_split, drops)
        drops.warn(f"training on {opened.name}/{split}")
        ensemble.check_scores(training.all_stages)
        dev = None
        if dev_split is not None and start.kind not in RE_RANKS:
            queries = ensemble.queries("dev")
            first = retrieve(opened, queries.texts, "bm25", 20)
            dev = build_dev_task(opened, queries.texts, queries.qrels, first)
        student = StudentTraining(
            training, start, settings, ensemble, out, dev=dev, max_length=own.get("max_length")
        )
        for number in range(len(training.all_stages)):
            record = student.train_stage(number)
            for entry in record["drops"]:
                log.warning("training on %s/%s: %s", opened.name, split, entry)
        if merged and is_first():
            record = {**record, **student.merge()}
        return record


def training_on(objective: str, teachers: StoredTeachers | None) -> Training:
    """Build a one-stage training.

    If a pairwise teacher is given, `pair_kl` learns from its answers.

    Raises:
        InputError: unknown objective, or a pairwise teacher without `pair_kl`.
    """
    terms = parse_terms(objective)
    if teachers is not None and teachers.pairs is not None:
        if not any(term.name == "pair_kl" for term in terms):
            raise InputError(
                "no objective here learns from answers about pairs",
                remedy="add pair_kl, as in --objective kl+pair_kl, or leave --pairs out",
            )
        number = len(teachers.fused())
        terms = [
            validate(Term, {**term.model_dump(), "teacher": f"pairs:{number}"})
            if term.name == "pair_kl"
            else term
            for term in terms
        ]
    return validate(Training, {"objective": terms})


def fit_stored(
    collections: Sequence[str],
    split: str,
    base: str,
    objective: str,
    settings: Mapping[str, Any],
    out: Path,
    *,
    teachers: StoredTeachers | None = None,
    candidates: Sequence[Path] = (),
    layers: Sequence[int] | None = None,
    lora: Lora | None = None,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Fine-tune a teacher on a split of some collections and save it in `out`, see `fit_teacher`.

    Args:
        collections: each gets the same share of the training.
        settings: settings that differ from `FIT_DEFAULTS`, or with `lora` from `LORA_DEFAULTS`.
        teachers: the stored teachers; none, if only judgments are trained on.
        candidates: a TREC run file of each collection; by default the documents that the teachers
            have scored.

    Raises:
        InputError: something does not fit; before any model is loaded.
    """
    terms = parse_terms(objective)
    check_base(base, layers=layers, lora=lora)
    if parse_spec(base).kind == "yesno" and "max_tokens" in settings:
        raise InputError(
            "a decoder is trained on what it is scored with",
            remedy="say how long passages are with --max-length, not max_tokens",
        )
    defaults = LORA_DEFAULTS if lora else FIT_DEFAULTS
    chosen = validate(TrainSettings, {**defaults.model_dump(), **settings})
    as_input_error(check_uncached, chosen.mini_batch_size)
    _check_files(collections, candidates)
    with at_work(out):
        opened, stage = _open_all(collections, split), TrainingStage(objective=terms)
        runs: Sequence[Path | None] = candidates or [None] * len(opened)
        parts = {}
        for (name, one), found in zip(opened.items(), runs, strict=True):
            pools = _fitting_pools(one, split, stage, base, teachers, found)
            parts[name] = (pools, one.documents)
        joined, documents, groups = join_pools(parts)
        return fit_teacher(
            base,
            joined,
            documents,
            out,
            layers=layers,
            lora=lora,
            settings=chosen,
            terms=terms,
            max_length=max_length,
            collections=groups,
        )


def _check_files(collections: Sequence[str], candidates: Sequence[Path]) -> None:
    """Refuse files of candidates that are missing, or not one for each collection."""
    if candidates and len(candidates) != len(collections):
        raise InputError(
            f"{len(collections)} × --collection, but {len(candidates)} × --candidates",
            remedy="give --candidates once for each --collection, in the same order",
        )
    for run in candidates:
        if not run.is_file():
            raise InputError("no such file", file=run, remedy="make it with rkd retrieve")


def _open_all(specs: Sequence[str], split: str) -> dict[str, Collection]:
    """Open collections that all have the split, by name; equal names are numbered."""
    opened = [open_collection(spec) for spec in specs]
    folders, names = [one.folder for one in opened], [one.name for one in opened]
    for spec, one in zip(specs, opened, strict=True):
        if folders.count(one.folder) > 1:
            raise InputError(f"collection {spec} is given twice", remedy="give each once")
        if split not in one.splits and len(opened) > 1:
            raise InputError(
                f"collection {one.name} has no split {split!r}",
                remedy=f"leave the collection out, or name a split that all have: {one.name} has "
                f"{', '.join(one.splits) or 'none, as it has no judgments'}",
            )
    return {
        name if names.count(name) == 1 else f"{name} ({number})": one
        for number, (name, one) in enumerate(zip(names, opened, strict=True), start=1)
    }


def _fitting_pools(
    collection: Collection,
    split: str,
    stage: TrainingStage,
    base: str,
    teachers: StoredTeachers | None,
    candidates: Path | None,
) -> Pools:
    """Build the pools of one collection, and name it with what is wrong or left out."""
    drops, about = Drops(), f"{collection.name}/{split}"
    collection.qrels(split)
    try:
        ensemble = StoredEnsemble(collection, split, candidates, teachers, None, drops)
        ensemble.check_scores([stage])
        made, _ = stage_pools(stage, ensemble, base, drops)
        pools = _with_candidates(made, ensemble, drops)
    except InputError as error:
        raise InputError(
            f"{about}: {error.problem}",
            file=error.file,
            line=error.line,
            id=error.id,
            remedy=error.remedy,
        ) from error
    drops.warn(f"training on {about}")
    return pools


def _with_candidates(pools: Pools, ensemble: StoredEnsemble, drops: Drops) -> Pools:
    """Leave out queries with judgments and no candidates: they would have no negatives."""
    texts = ensemble.queries("train").texts
    found = ScoreTable.of(ensemble.candidates("train"))
    counts = zip(found.queries, found.counts.tolist(), strict=True)
    known = {texts[query] for query, count in counts if count}
    kept = Pools.of(pool for pool in pools if pool.query in known)
    if len(kept) < len(pools):
        lacking = next(pool.query for pool in pools if pool.query not in known)
        drops.add("judged query without candidates", lacking, len(pools) - len(kept))
    if not kept:
        raise InputError(
            "no query to train on: " + "; ".join(drops.summary()),
            remedy="retrieve candidates for the queries of this split",
        )
    return kept


def _check(
    training: Training,
    start: Student,
    settings: TrainSettings,
    teachers: StoredTeachers | None,
    dev_split: str | None,
) -> None:
    """Refuse settings that do not fit together."""
    fits = teachers is not None and teachers.fusion in FITTED_ON_DEV
    if start.kind in RE_RANKS and dev_split is not None and not fits:
        raise InputError(
            f"a {start.kind} student has no learning curve: a point would be too many pairs",
            remedy="leave --dev-split out",
        )
    members = []
    if teachers is not None:
        store = ScoreStore(teachers.store)
        for name in teachers.members():
            key = store.resolve(name.partition("?aggregate=")[0])
            members.append(key.model if key.kind == "pairwise" else name)
    for stage in training.all_stages:
        chosen = training.train_settings(stage, settings)
        as_input_error(check_cached, stage, chosen.mini_batch_size, start.kind)
        as_input_error(check_scores, stage, members, start.kind, start.query)
    as_input_error(check_merge, training.merge, start.kind, dev_split is not None)
    as_input_error(check_layer_choice, start, dev_split is not None)
