"""Terms know which score matrices they read, and refuse names that do not fit them."""

from __future__ import annotations

import pytest

from retrieval_kd.training.objective.score_names import ScoreName
from retrieval_kd.training.objective.terms import FAMILIES, KINDS, Term


def test_a_term_on_layers_reads_all_scores_it_names():
    term = Term(name="layer_relevance", student="exit0,score", teacher="big.exit2,big")
    assert term.students == [ScoreName("exit0"), ScoreName("score")]
    assert term.teachers == [ScoreName("big", "exit2"), ScoreName("big")]
    assert not term.members and term.learns_from == "itself"


def test_a_model_as_teacher_is_not_a_name_of_scores():
    term = Term(name="embedding_mse", teacher="org/model@main")
    assert term.learns_model and term.scores == []


def test_members_are_those_named_alone():
    assert Term(name="kl", teacher="stored:2").members == [2]
    pairs = Term(name="pair_kl", teacher="pairs:1")
    assert pairs.pairs_of == 1 and pairs.members == [] and pairs.named_members == [1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "kl", "student": "exit0,exit2"}, "reads one score matrix"),
        ({"name": "teacher_dropping", "student": "score@x"}, "number of dimensions"),
        ({"name": "layer_relevance", "student": "exit0", "teacher": "a,b"}, "as many"),
        ({"name": "layer_relevance", "student": "exit0"}, "layers such as"),
        ({"name": "kl", "student": "score@8", "dimensions": [4]}, "cut already"),
        ({"name": "kl", "joint": True}, "gradient could reach"),
    ],
)
def test_scores_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Term(**fields)


def test_every_objective_has_one_kind():
    assert len(KINDS) == sum(map(len, FAMILIES.values()))
