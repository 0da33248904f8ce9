"""Stages that could not do what they say are refused before anything is scored or trained."""

from __future__ import annotations

import pytest

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import FitTeacher
from retrieval_kd.config.training import TrainingStage
from retrieval_kd.errors import InputError
from retrieval_kd.schema import validate
from retrieval_kd.training.trainer.settings import FIT_DEFAULTS, LORA_DEFAULTS

FROZEN = {"big": {"model": "m"}}
CROSS, CACHED = {"kind": "cross_encoder"}, {"mini_batch_size": 8}
FEATURES = [{"name": "feature_imitation", "teacher": "m"}]
FREE = {"kind": "sparse", "query": "idf"}
STATES = [{"name": "hidden_states", "teacher": "m"}]
HIDDEN = [{"name": "hidden_states", "teacher": "m"}]
TOKENS = {"kind": "multi_vector"}
VECTORS = {"name": "embedding_mse", "teacher": "m"}
TRAINED = {"big": {"model": "m", "kind": "cross_encoder", "trains": True}}


def config(training: dict, **more) -> Config:
    given = {
        "name": "n",
        "collection": "c",
        "out": "o",
        "encoder": "m",
        "teacher": {"model": "cross", "fuse_with": ["bm25"]},
        "student": {"base": "m"},
        "students": {"labels": {"objective": "infonce"}, "distilled": training},
    }
    return validate(Config, {**given, **more})


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"objective": [{"name": "kl", "teacher": "bigg"}]}, "no scores named 'bigg'"),
        ({"objective": [{"name": "kl", "teacher": "integrated"}]}, "no scores named"),
        ({"objective": [{"name": "kl", "teacher": "stored:2"}]}, "there are 2 teachers"),
        ({"objective": [{"name": "kl", "teacher": "stored:x"}]}, "number of a teacher"),
        ({"objective": [{"name": "kl", "student": "score@x"}]}, "number of dimensions"),
        ({"objective": [{"name": "pair_kl", "student": "pairs:1"}]}, "no scores named 'pairs:1'"),
        ({"objective": "kl", "live": FROZEN}, "no term names the live teacher 'big'"),
        ({"objective": "kl", "live": {"score": {"model": "m"}}}, "cannot be called 'score'"),
        ({"objective": "kl", "live": {"exit1": {"model": "m"}}}, "cannot be called"),
        ({"objective": [{"name": "kl", "student": "big"}], "live": FROZEN}, "trains: true"),
        (
            {
                "objective": [{"name": "infonce", "student": "big", "candidates": "batch"}],
                "live": TRAINED,
            },
            "scores slates only",
        ),
        ({"objective": "kl", "teachers": {"bm52": 1.0}}, "no teacher 'bm52'"),
        ({"objective": "kl", "denoised": {"below": 2, "above": 1}}, "must not be above"),
        ({"objective": "kl", "teachers": {"bm25": 0.0}}, "above 0"),
        ({"stages": [{"objective": "kl"}, {"objective": []}]}, "each stage needs"),
        ({"stages": [{"objective": "kl"}], "uses_unlabelled": False}, "give 'uses_unlabelled' in"),
        ({"stages": [{"objective": "kl"}], "live": FROZEN}, "no term names|give 'live' in"),
        ({"objective": "kl@batch", "student": CROSS}, "candidates: slate"),
        ({"objective": [{"name": "kl", "dimensions": [8]}], "student": CROSS}, "no dimensions"),
        (
            {"objective": [{"name": "kl", "teacher": "big"}], "live": FROZEN, "student": CROSS},
            "trains on stored scores",
        ),
        (
            {"stages": [{"objective": "kl"}, {"objective": "kl", "refresh": 5}], "student": CROSS},
            "a cross-encoder student cannot use 'refresh'",
        ),
        ({"objective": "kl", "student": CROSS, "train": CACHED}, "gradients are not cached"),
        ({"objective": "reinforced_teachers", "student": TOKENS}, "reinforced_teachers reads one"),
        ({"objective": "kl+flops", "student": TOKENS}, "a multi_vector student has one per token"),
        ({"objective": [VECTORS], "student": TOKENS}, "vector per text"),
        ({"objective": [VECTORS], "student": {"kind": "sparse"}}, "have a weight per word"),
        ({"objective": [VECTORS], "texts": "all", "student": FREE}, "have a weight per word"),
        ({"objective": "kl", "student": {"kind": "residul"}}, "did you mean 'residual'"),
        ({"objective": "kl+flops", "student": {"kind": "multi_function"}}, "`student: sparse`"),
        ({"objective": [{"name": "flops", "student": "sparse"}]}, "`student: score`"),
        (
            {"objective": FEATURES, "student": CROSS},
            "a cross-encoder reads query and document together",
        ),
        ({"objective": FEATURES}, "it is for interaction"),
        ({"objective": "kl", "student": {"query": "idf"}}, "dense student cannot have `query"),
        ({"objective": "kl", "student": {**FREE, "query": "bm25"}}, "query"),
        ({"objective": "kl", "student": {**FREE, "options": {"activation": "x"}}}, "activation"),
        ({"objective": STATES, "student": FREE}, "`query: idf` queries have none"),
        ({"objective": "kl", "texts": "all"}, "kl needs queries with candidates"),
        ({"objective": "flops", "texts": "all"}, "flops needs queries with candidates"),
        ({"objective": [VECTORS], "texts": "all", "judged": 3}, "no slates: leave 'judged' out"),
        ({"objective": [VECTORS], "texts": ["titles", "titles"]}, "has one twice"),
        ({"objective": [VECTORS], "texts": ["heads"]}, "texts.0: Input should be 'queries'"),
        (
            {"objective": HIDDEN, "texts": "all", "student": CROSS},
            "a cross-encoder student cannot use 'texts'",
        ),
        ({"objective": "kl", "student": {"layers": {"keep": 0}}}, "keep: Input should be greater"),
        ({"objective": "kl", "student": {"layers": {"kep": 2}}}, "did you mean 'keep'"),
        ({"objective": "kl", "student": {"layers": 3}}, "layers: Input should be a valid list"),
        ({"objective": "kl", "student": {"layers": {"keep": 2}, "kind": "static"}}, "no layers"),
        (
            {"objective": "kl", "student": {"layers": {"keep": 2}, **CROSS}},
            "a cross_encoder student is not tried on dev: name them",
        ),
        (
            {
                "objective": [{"name": "infonce", "student": "big"}],
                "live": TRAINED,
                "train": CACHED,
            },
            "trains a live model and none the student",
        ),
    ],
)
def test_what_a_stage_does_not_have_is_named(training, message):
    with pytest.raises(InputError, match=message):
        config(training)


def test_layers_are_not_chosen_where_there_are_no_dev_queries():
    training = {"objective": "kl", "student": {"layers": {"keep": 2, "choose": "dev"}}}
    given = {"students": {"distilled": training}, "compare": ("distilled", "bm25")}
    assert config({}, **given)  # dev queries are set aside of the train split
    unjudged = {"splits": {"train": None}, "unlabelled": {"kind": "titles"}}
    with pytest.raises(InputError, match=r"students.distilled: layers are chosen on dev queries"):
        config({}, **given, **unjudged)
    assert config({}, **given, **{**unjudged, "splits": {"train": None, "dev": "dev"}})


def test_a_teacher_that_is_fitted_has_no_cached_gradients():
    fit = {"base": "m", "train": {"mini_batch_size": 8}}
    with pytest.raises(InputError, match=r"teacher.fit: mini_batch_size: .*leave it out"):
        config({"objective": "kl"}, teacher={"fit": fit})


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"fit": {"base": "m"}, "fuse_with": ["cross-encoder"]}, "named twice"),
        ({"model": "bm25", "fuse_with": ["bm25"]}, "named twice"),
        ({"fit": {"base": "pointwise:m?layers=2"}}, "write m;"),
        ({"fit": {"base": "yesno:m", "train": {"max_tokens": 64}}}, "passage_tokens"),
        (
            {"model": "yesno:m", "server": {"url": "http://localhost:1/v1", "max_cost": 1}},
            "give prompt_price and answer_price",
        ),
    ],
)
def test_teachers_that_cannot_be_are_refused(told, message):
    with pytest.raises(InputError, match=message):
        config({"objective": "kl"}, teacher=told)


def test_what_is_not_said_of_a_fitted_teachers_training_is_as_on_the_command_line():
    """Not as of students: 150 steps of slates of 8, for adapters at their own rate."""
    rank = {"rank": 2}
    told = [{"base": "m", "train": {"dropout": 0.1}}, {"base": "yesno:m", "lora": rank}]
    plain, adapters = (validate(FitTeacher, one).train for one in told)
    assert plain == FIT_DEFAULTS.model_copy(update={"dropout": 0.1})
    assert adapters == LORA_DEFAULTS
    again = validate(FitTeacher, validate(FitTeacher, told[1]).model_dump())
    assert again.train == LORA_DEFAULTS


def test_what_it_has_is_taken():
    assert config({"objective": "kl+infonce", "student": TOKENS})
    term = {"name": "kl", "teacher": "big.exit1", "candidates": "batch"}
    assert config({"objective": [term], "live": FROZEN})
    parts = [{"name": "kl", "student": "dense", "teacher": "integrated"}]
    assert config({"objective": parts, "student": {"kind": "multi_function"}})
    assert config({"objective": [{"name": "kl", "teacher": "stored:1"}]})
    hidden = [{"name": "hidden_states", "teacher": "m", "distance": "cosine"}]
    for kind in ("cross_encoder", "dense", "sparse", "multi_vector"):
        assert config({"objective": hidden, "student": {"kind": kind}})
    assert config({"objective": FEATURES, "student": {"kind": "interaction"}})
    both = [VECTORS, {**HIDDEN[0]}, {"name": "embedding_similarity", "teacher": "m"}]
    [stage] = config({"objective": both, "texts": "all"}).students["distilled"].all_stages
    assert stage.texts == ["queries", "titles", "sentences", "documents"]
    assert not stage.uses_scores and stage.other_models == ["m"] * 3


def test_cached_gradients_need_only_some_term_that_trains_the_student():
    joint = {"name": "kl", "student": "big", "teacher": "score", "joint": True}
    terms = [joint, {"name": "infonce", "student": "big"}]
    assert config({"objective": terms, "live": TRAINED, "train": CACHED})
    detached = [{**joint, "joint": False}]
    with pytest.raises(InputError, match="trains a live model"):
        config({"objective": detached, "live": TRAINED, "train": CACHED})


@pytest.mark.parametrize("name", ["layer_relevance", "teacher_dropping", "flops"])
def test_dimensions_are_of_score_matrices(name):
    term = {"name": name, "dimensions": [8], "student": "exit0", "teacher": "score"}
    with pytest.raises(InputError, match="no dimensions to cut"):
        validate(TrainingStage, {"objective": [term]})


def test_a_teacher_that_chooses_is_asked_though_labels_teach():
    """Denoised negatives for a loss on labels: without the teacher nothing would be left out."""

    def needs_scores(**settings: object) -> bool:
        return TrainingStage(objective="infonce", **settings).needs_teacher_scores

    assert not needs_scores()
    assert needs_scores(false_negatives=0.0)
    assert needs_scores(select={"by": "divergence"})
    assert needs_scores(denoised={"below": 0, "above": 1})
    assert not needs_scores(select={"by": "uncertainty"})


def test_judgments_of_some_queries_only_are_the_same_ones_always():
    from retrieval_kd.pipeline.pools import fewer_judged
    from retrieval_kd.pipeline.queries import Queries

    texts = {f"q{i}": "text" for i in range(9)}
    queries = Queries(texts, {query: {"d": 1} for query in texts}, {})
    some = fewer_judged(queries, 4)
    assert len(some.qrels) == 4 and some.texts == texts
    assert fewer_judged(queries, 4) == some and fewer_judged(queries, 9) == queries


def test_a_regulariser_needs_no_unlabelled_queries():
    def learns(objective: str) -> bool:
        return TrainingStage(objective=objective).learns_unjudged

    assert not learns("infonce@batch+flops:0.001") and learns("kl+flops:0.001")
