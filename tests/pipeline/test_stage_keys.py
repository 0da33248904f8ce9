"""Which stages of `rkd run` run again when one setting changes: every setting is in the table."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from retrieval_kd.config.methods import Method
from retrieval_kd.config.run import Config
from retrieval_kd.config.training import Training, TrainingStage
from retrieval_kd.pipeline.plan import plan
from retrieval_kd.schema import apply_overrides, models_in, validate
from retrieval_kd.workspace import Workspace

INDEXES = Path(__file__).parents[2] / "indexes"
METHOD = {
    "paper": {"title": "T", "authors": "A", "year": 2020},
    "section": "A",
    "new": "nothing",
    "needs": ["labels"],
    "settings_from": {},
}

CONFIG: dict[str, Any] = {
    "name": "Keys",
    "collection": "COLLECTION",
    "out": "FOLDER/run",
    "encoder": "ENCODER",
    "splits": {"dev": "dev", "dev_queries": 10},
    "unlabelled": {"kind": "sentences", "limit": 20},
    "first_stage": {"with": "bm25+ENCODER", "depth": 12},
    "teacher": {
        "fit": {"base": "ENCODER"},
        "fuse_with": ["bm25", "dense:ENCODER"],
        "max_length": 48,
    },
    "student": {"base": "ENCODER", "layers": [0, 3], "max_length": 32},
    "students": {
        "labels": {"objective": "infonce@batch"},
        "distilled": {"objective": "kl+infonce:0.5@batch"},
        "of_bm25": {"objective": "kl", "teachers": {"bm25": 1.0}, "uses_unlabelled": False},
        "staged": {
            "stages": [
                {"objective": "infonce"},
                {"objective": "kl", "refresh": 5, "select": {"by": "divergence"}},
            ]
        },
        "live": {
            "objective": [{"name": "kl", "teacher": "big"}],
            "live": {"big": {"model": "ENCODER", "kind": "cross_encoder", "fit": {"steps": 3}}},
        },
        "ranker": {"objective": "infonce", "student": {"kind": "cross_encoder"}},
    },
    "index": str(INDEXES / "flat.yaml"),
}

# Patterns of stage names; one that begins with ! takes stages out again.
NOTHING, EVERYTHING = "", "*"
RESULTS = "measure evaluate report"
STUDENTS = f"train:* search:*-seed0 {RESULTS}"
SEARCHED_STUDENTS = f"search:*-seed0 !search:ranker-* {RESULTS}"
LABELS, DISTILLED, OF_BM25, LIVE = (
    f"train:{name}-* search:{name}-* {RESULTS}"
    for name in ("labels", "distilled", "of_bm25", "live")
)
MERGED = f"merge:labels-* search:labels-* {RESULTS}"
LAST_STAGE = f"train:staged-seed0 search:staged-seed0 {RESULTS}"
WEIGHTS = f"weights score:* teacher {DISTILLED} {LAST_STAGE}"
CROSS_ENCODER = f"fit-teacher try:cross-encoder {WEIGHTS}"
DECODER = f"fit-teacher try:decoder {WEIGHTS}"

# Settings without which another one has no effect, or is refused
CALIBRATED = ("teacher.fusion=calibrated",)
SERVED = (
    "teacher.fuse_with=[bm25, 'yesno:served', 'listwise:served']",
    "teacher.server.url=http://127.0.0.1:9/v1",
)
PRICED = (*SERVED, "teacher.server.prompt_price=1", "teacher.server.answer_price=1")
LORA = ("teacher.fit.base=yesno:DECODER", "teacher.fit.lora.rank=2")
LIVE_ENCODER = ("students.live.live.big={model: ENCODER, kind: encoder}",)
DENOISED = ("students.distilled.denoised={below: 0, above: 1}",)
ALONE = ("students={distilled: {objective: kl}}", "compare=[distilled, bm25]")
SPARSE, TOKENS = (*ALONE, "student.kind=sparse"), (*ALONE, "student.kind=multi_vector")
CHOSEN = (*ALONE, "student.layers={keep: 2}")
IMITATING = ("students.distilled.objective=[{name: embedding_mse, teacher: ENCODER}]",)

# A setting with another value, the stages that run again, and the settings it needs
TABLE: list[tuple[str, str] | tuple[str, str, tuple[str, ...]]] = [
    ("name=Another", "report"),
    ("collection=OTHER_COLLECTION", EVERYTHING),
    ("out=FOLDER/elsewhere", NOTHING),
    ("results=own", "measure:own evaluate:own report:own"),
    (f"method={json.dumps(METHOD)}", NOTHING),
    ("encoder=OTHER", f"search:encoder {RESULTS}"),
    ("splits.train=dev", EVERYTHING, ("splits.dev=null",)),
    ("splits.dev=null", EVERYTHING),
    ("splits.test=dev", EVERYTHING, ("splits.dev=null",)),
    ("splits.dev_queries=11", EVERYTHING),
    ("splits.train_queries=11", EVERYTHING),
    ("splits.test_queries=11", EVERYTHING),
    ("splits.drop_overlap=false", EVERYTHING),
    ("unlabelled.kind=titles", EVERYTHING),
    ("unlabelled.limit=21", EVERYTHING),
    ("unlabelled.log=LOG", EVERYTHING, ("unlabelled.kind=queries",)),
    ("unlabelled.share=0.4", f"{DISTILLED} {LAST_STAGE} {LIVE}"),
    ("first_stage.with=bm25", f"{EVERYTHING} !queries !search:bm25 !search:encoder"),
    ("first_stage.depth=13", f"{EVERYTHING} !queries !search:bm25 !search:encoder"),
    ("teacher.model=bm25-lucene", f"try:bm25-lucene {WEIGHTS}",
     ("teacher.fit=null", "teacher.model=dense:OTHER")),
    ("teacher.max_length=64", CROSS_ENCODER),
    ("teacher.max_length=64", NOTHING, LORA),
    ("teacher.fuse_with=[bm25]", WEIGHTS),
    ("teacher.store=FOLDER/store", NOTHING),  # scores are known by their teacher and texts
    ("teacher.aggregate={'listwise:served': borda}", WEIGHTS, SERVED),
    ("teacher.weights=[1, 0, 0]", WEIGHTS),
    ("teacher.fusion=ranks", f"{WEIGHTS} {OF_BM25}"),
    ("teacher.calibration=isotonic", NOTHING),
    ("teacher.calibration=isotonic", f"{WEIGHTS} {OF_BM25}", CALIBRATED),
    ("teacher.fit.base=OTHER", CROSS_ENCODER),
    ("teacher.fit.layers=[0, 2]", CROSS_ENCODER),
    ("teacher.fit.train.steps=9", CROSS_ENCODER),
    ("teacher.fit.lora.rank=3", DECODER, LORA),
    ("teacher.fit.lora.alpha=3", DECODER, LORA),
    ("teacher.fit.lora.targets=[q_proj]", DECODER, LORA),
    ("teacher.server.url=http://10.0.0.1:80/v1", NOTHING, SERVED),
    ("teacher.server.members=['listwise:served', 'yesno:served']", NOTHING, SERVED),
    ("teacher.server.api=completions", f"try:*:served {WEIGHTS}", SERVED),
    ("teacher.server.tokenizer=DECODER", f"try:*:served {WEIGHTS}", SERVED),
    ("teacher.server.logprobs=40", f"try:*:served {WEIGHTS}", SERVED),
    ("teacher.server.structured=true", f"try:*:served {WEIGHTS}", SERVED),
    ("teacher.server.concurrency=2", NOTHING, SERVED),
    ("teacher.server.batch=2", NOTHING, SERVED),
    ("teacher.server.timeout=9", NOTHING, SERVED),
    ("teacher.server.retries=9", NOTHING, SERVED),
    ("teacher.server.per_minute=9", NOTHING, SERVED),
    ("teacher.server.max_tokens=9", NOTHING, SERVED),
    ("teacher.server.max_cost=9", NOTHING, PRICED),
    ("teacher.server.prompt_price=9", NOTHING, SERVED),
    ("teacher.server.answer_price=9", NOTHING, SERVED),
    ("student.kind=sparse", f"{STUDENTS} !*:ranker-*"),
    ("student.base=OTHER", STUDENTS),
    ("student.start=null", NOTHING),  # one student of another: test_start.py
    ("student.layers=[0, 2]", STUDENTS),
    ("student.layers.keep=3", DISTILLED, CHOSEN),
    ("student.layers.choose=dev", NOTHING, CHOSEN),  # its only value
    ("student.max_length=48", f"{EVERYTHING} !queries !search:bm25"),
    ("student.dimensions=8", DISTILLED, TOKENS),
    ("student.query=idf", DISTILLED, SPARSE),
    ("student.options={top_k: 8}", DISTILLED, SPARSE),
    ("train.steps=9", STUDENTS),
    ("train.batch_queries=9", STUDENTS),
    ("train.slate_size=9", STUDENTS),
    ("train.slate_depth=9", STUDENTS),
    ("train.sampling=hardest", STUDENTS),
    ("train.learning_rate=0.5", STUDENTS),
    ("train.head_learning_rate=0.5", STUDENTS),
    ("train.warmup=0.5", STUDENTS),
    ("train.weight_decay=0.5", STUDENTS),
    ("train.max_grad_norm=0.5", STUDENTS),
    ("train.max_tokens=32", STUDENTS),
    ("train.dropout=0.5", STUDENTS),
    ("train.seed=9", NOTHING),  # the seed is that of `seeds`
    ("train.eval_steps=9", STUDENTS),
    ("train.save_steps=9", STUDENTS),
    ("train.mini_batch_size=2", DISTILLED, ALONE),
    ("train.group_size=9", STUDENTS),
    ("students.another={objective: infonce}", LABELS.replace("labels", "another")),
    ("students.labels.student={layers: [0, 1]}", LABELS),
    ("students.labels.train={steps: 9}", LABELS),
    ("students.labels.merge.with=start", MERGED),
    ("students.labels.merge.share=0.4", MERGED, ("students.labels.merge.with=start",)),
    ("students.distilled.objective=margin_mse", DISTILLED),
    ("students.distilled.objective=[{name: kl, teacher: 'stored:2'}]", DISTILLED),
    ("students.distilled.teachers={bm25: 1}", DISTILLED),
    ("students.distilled.judged=5", DISTILLED),
    ("students.distilled.texts=[documents]", DISTILLED, IMITATING),
    ("students.staged.stages.1.confused=3", LAST_STAGE),
    ("students.staged.stages.1.refresh=6", LAST_STAGE),
    ("students.staged.stages.1.select.by=uncertainty", LAST_STAGE),
    ("students.staged.stages.1.select.share=0.4", LAST_STAGE),
    ("students.staged.stages.0.train={steps: 9}", LABELS.replace("labels", "staged")),
    ("students.distilled.false_negatives=0.1", DISTILLED),
    ("students.distilled.denoised.below=-1", DISTILLED, DENOISED),
    ("students.distilled.denoised.above=2", DISTILLED, DENOISED),
    ("students.distilled.denoised.share=0.4", DISTILLED, DENOISED),
    ("students.distilled.uses_unlabelled=false", DISTILLED),
    ("students.labels.uses_unlabelled=false", NOTHING),  # labels draw none anyway
    ("students.live.live.big.model=OTHER", LIVE),
    ("students.live.live.big.kind=multi_vector", LIVE, LIVE_ENCODER),
    ("students.live.live.big.layers=[0, 2]", LIVE),
    ("students.live.live.big.trains=true", LIVE),
    ("students.live.live.big.fit={steps: 4}", LIVE),
    ("students.live.objective.0.name=margin_mse", LIVE),
    ("students.live.objective.0.weight=0.5", LIVE),
    ("students.live.objective.0.candidates=batch", LIVE, LIVE_ENCODER),
    ("students.live.objective.0.student=exit1", LIVE),
    ("students.live.objective.0.teacher=big.exit1", LIVE, LIVE_ENCODER),
    ("students.live.objective.0.joint=true", LIVE),
    ("students.live.objective.0.dimensions=[16, 8]", LIVE),
    ("compare=[of_bm25, labels]", "evaluate report"),
    ("compare=[distilled, bm25]", "evaluate report"),
    ("seeds=[0, 1]", "train:*-seed1* search:*-seed1 evaluate report"),
    (f"index={INDEXES / 'hnsw.yaml'}", f"search:encoder {SEARCHED_STUDENTS}"),
    ("widths=[16]", f"search:*@16-seed0 {RESULTS}"),
    ("depth=20", f"search:bm25 search:encoder {SEARCHED_STUDENTS}"),
    ("measures=[mrr@10]", "evaluate report"),
]  # fmt: skip


@pytest.fixture(scope="module")
def planned(tmp_path_factory, tiny_collection, tiny_encoder, tiny_dot_encoder, tiny_decoder):
    """Return a function that plans the configuration with overrides."""
    folder = tmp_path_factory.mktemp("keys")
    other = shutil.copytree(tiny_collection, folder / "other")
    corpus = (other / "corpus.jsonl").read_text().splitlines()
    (other / "corpus.jsonl").write_text("\n".join(reversed(corpus)) + "\n")
    (folder / "log.txt").write_text("the birds of the sea\n")
    paths = {
        "LOG": folder / "log.txt",
        "OTHER_COLLECTION": other, "COLLECTION": tiny_collection, "FOLDER": folder,
        "ENCODER": tiny_encoder, "OTHER": tiny_dot_encoder, "DECODER": tiny_decoder,
    }  # fmt: skip

    def plan_of(*overrides: str) -> Workspace:
        text = json.dumps(apply_overrides(deepcopy(CONFIG), overrides))
        for placeholder, path in paths.items():
            text = text.replace(placeholder, str(path))
        return plan(validate(Config, json.loads(text)))

    return plan_of


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_a_changed_setting_runs_exactly_the_stages_it_decides(row, planned):
    setting, patterns, *needed = row
    given = needed[0] if needed else ()
    before, after = planned(*given).keys, planned(*given, setting).keys
    changed = {name for name, key in after.items() if before.get(name) != key}
    assert changed == matching(after, patterns)


def test_a_model_that_is_fine_tuned_counts_by_its_weights_though_a_server_has_it_too(planned):
    local = ("teacher.fit.base=yesno:DECODER", "teacher.fuse_with=[bm25, 'yesno:DECODER']")
    served = (*local, "teacher.server.url=http://127.0.0.1:9/v1")
    assert planned(*served).keys["fit-teacher"] == planned(*local).keys["fit-teacher"]


def test_users_see_a_seed_only_where_there_are_several(planned):
    alone = {stage.name: stage.title for stage in planned().stages}
    assert alone["train:labels-seed0"] == "train:labels"
    assert alone["train:staged-seed0-stage1"] == "train:staged stage 1"
    assert not any("seed" in title for title in alone.values())
    several = {stage.name: stage.title for stage in planned("seeds=[0, 1]").stages}
    assert several["search:labels-seed1"] == "search:labels (seed 1)"


def matching(names: Any, patterns: str) -> set[str]:
    """The names that match a pattern and no pattern with a ! before it."""
    wanted, unwanted = [], []
    for pattern in patterns.split():
        (unwanted if pattern.startswith("!") else wanted).append(pattern.removeprefix("!"))
    return {
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in wanted)
        and not any(fnmatchcase(name, pattern) for pattern in unwanted)
    }


def test_every_setting_is_in_the_table():
    """A new field of any part of the configuration fails here until the table has it."""
    settings = {setting.partition("=")[0] for setting, *_ in TABLE}
    assert settings_of(Config) - set(map(field_at, settings)) == set()


def settings_of(model: type[BaseModel]) -> set[tuple[str, str]]:
    """All fields of a model and of the models in it, as (model, field), that hold no model."""
    found = set()
    for name, field in model.model_fields.items():
        inner = [m for m in models_in(field.annotation) if m is not Method]
        found |= set() if inner else {owner(model, name)}
        for part in inner:
            found |= settings_of(part)
    return found


def field_at(path: str) -> tuple[str, str]:
    """The model and field that a setting's path leads to.

    Example:
        >>> field_at("students.staged.stages.1.select.share"), field_at("train.steps")
        (('Select', 'share'), ('TrainSettings', 'steps'))
    """
    model: type[BaseModel] = Config
    parts = path.split(".")
    while True:
        part = parts.pop(0)
        [name] = [n for n, f in model.model_fields.items() if part in (n, f.alias)]
        field = model.model_fields[name]
        inner = [m for m in models_in(field.annotation) if m is not Method]
        if inner and parts and not holds_one_model(field.annotation):
            parts.pop(0)  # the key of a mapping or the number in a list
        if not parts or not inner:
            return owner(model, name)
        model = inner[0]


def holds_one_model(annotation: Any) -> bool:
    """Whether a field holds a model itself, or none, rather than a collection of models."""
    options = [annotation, *getattr(annotation, "__args__", ())]
    collection = getattr(annotation, "__origin__", None) in (list, dict, tuple)
    return not collection and any(isinstance(o, type) and issubclass(o, BaseModel) for o in options)


def owner(model: type[BaseModel], name: str) -> tuple[str, str]:
    """A model and its field; a training's fields are those of its only stage."""
    if model is Training and name in TrainingStage.model_fields:
        model = TrainingStage
    return model.__name__, name
