"""A cross-encoder student: what it learns from, its teacher's layers, and what it is refused."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import CrossEncoder

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models.load import load_encoder
from retrieval_kd.objectives.states import hidden_states
from retrieval_kd.pipeline.stages import score_candidates
from retrieval_kd.students.make import make_student
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.objective.terms import Term, parse_terms
from retrieval_kd.training.states import Imitation
from retrieval_kd.training.train_cross_encoder import PairLoss, train_cross_encoder
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of
from tests.students.stopping import assert_same_after_a_stop

SETTINGS = TrainSettings(
    steps=20,
    batch_queries=6,
    slate_size=4,
    slate_depth=10,
    max_tokens=48,
    learning_rate=2e-3,
    eval_steps=10,
    save_steps=10,
)
PAIRS = [["sparrow wing", "feather nest wing"], ["anchor", "harbour mast anchor tide cargo"]]


@pytest.fixture(scope="module")
def collection(tiny_collection):
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def pools(collection):
    return pools_of(collection)


def first_and_last_loss(record):
    losses = [point["loss"] for point in record["curve"] if "loss" in point]
    return losses[0], losses[-1]


def test_it_learns_the_teachers_scores_and_loads_in_plain_sentence_transformers(
    collection, pools, tiny_encoder, tmp_path
):
    student = make_student(str(tiny_encoder), "cross_encoder", [0, 3], max_length=48)
    terms = [Term(name="kl", teacher_temperature=0.5)]
    out = tmp_path / "student"
    record = train_student(TrainingJob(student, pools, collection.documents, terms, SETTINGS, out))
    first, last = first_and_last_loss(record)
    assert last < first
    assert record["student"]["layers"] == 2 and record["student"]["dimensions"] is None
    plain = CrossEncoder(str(out), device="cpu")
    found = score_candidates(
        CrossEncoderTeacher(str(out), max_length=48),
        collection,
        {"q": "sparrow nest"},
        {"q": {"birds0": 1.0, "ships0": 0.0}},
    )
    pairs = [["sparrow nest", collection.documents[id].full] for id in ("birds0", "ships0")]
    logits = plain.predict(pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True)
    torch.testing.assert_close(torch.tensor(list(found["q"].values())), logits, atol=1e-5, rtol=0)


def test_it_learns_the_layers_of_the_encoder_it_was_made_of(
    collection, pools, tiny_encoder, tmp_path
):
    student = make_student(str(tiny_encoder), "cross_encoder", [0, 3], max_length=48)
    terms = [Term(name="hidden_states", teacher=str(tiny_encoder))]
    out = tmp_path / "student"
    record = train_cross_encoder(
        TrainingJob(student, pools, collection.documents, terms, SETTINGS, out)
    )
    first, last = first_and_last_loss(record)
    assert last < 0.9 * first


def test_a_stopped_training_ends_in_the_same_student(collection, pools, tiny_encoder, tmp_path):
    terms = [Term(name="kl"), Term(name="hidden_states", teacher=str(tiny_encoder))]
    settings = SETTINGS.model_copy(update={"steps": 8, "save_steps": 4})

    def run(out):
        student = make_student(str(tiny_encoder), "cross_encoder", [0, 3], max_length=48)
        return train_student(
            TrainingJob(student, pools, collection.documents, terms, settings, out)
        )

    record = assert_same_after_a_stop(run, tmp_path)
    assert {"kl", "hidden_states_from_encoder"} <= set(record["curve"][-1])


def test_a_model_of_all_layers_already_has_their_states(tiny_encoder):
    student = make_student(str(tiny_encoder), "cross_encoder").eval()
    imitation = Imitation(student, [Term(name="hidden_states", teacher=str(tiny_encoder))])
    features = student.preprocess(PAIRS)
    with torch.no_grad(), imitation.watch(student) as seen:
        student(dict(features))
    assert imitation.teachers[0].layers == [(i, i) for i in range(5)]
    [value] = imitation.means([imitation.compare(seen, features)]).values()
    assert float(value) < 1e-10


def test_the_loss_on_states_is_the_mean_over_all_tokens_of_the_batch(tiny_encoder):
    """By the transformer's own hidden states, of groups of different lengths."""
    student = make_student(str(tiny_encoder), "cross_encoder", [0, 3]).eval()
    term = Term(name="hidden_states", teacher=str(tiny_encoder))
    groups = [dict(student.preprocess([pair])) for pair in PAIRS]
    labels = {"mask": torch.ones(1, 2, dtype=torch.bool), "columns": torch.tensor([[0, 1]])}
    with torch.no_grad():
        got = PairLoss(student, [term])(groups, labels)[term.label]
        encoder = load_encoder(str(tiny_encoder), dtype=torch.float32)
        whole = student.preprocess(PAIRS)
        own, other = (
            m[0].auto_model(**whole, output_hidden_states=True).hidden_states
            for m in (student, encoder)
        )
        expected = hidden_states(
            own, other, whole["attention_mask"], layers=[(0, 0), (1, 2), (2, 4)]
        )
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_the_model_whose_layers_are_learnt_goes_where_the_loss_goes(tiny_encoder):
    """The trainer chooses the device, which of several processes is another one for each."""
    student = make_student(str(tiny_encoder), "cross_encoder")
    loss = PairLoss(student, [Term(name="hidden_states", teacher=str(tiny_encoder))]).to("meta")
    parameters = list(loss.imitation.parameters())
    assert {p.device.type for p in parameters} == {"meta"}
    assert not any(p.requires_grad for p in parameters)


def test_cached_gradients_are_refused(collection, pools, tiny_encoder, tmp_path):
    student = make_student(str(tiny_encoder), "cross_encoder")
    settings = SETTINGS.model_copy(update={"mini_batch_size": 4})
    terms, out = parse_terms("kl"), tmp_path / "student"
    with pytest.raises(InputError, match="gradients are not cached"):
        train_cross_encoder(TrainingJob(student, pools, collection.documents, terms, settings, out))


def test_layers_of_a_model_with_another_vocabulary_cannot_be_learnt(tiny_encoder):
    student = make_student(str(tiny_encoder), "cross_encoder")
    student.tokenizer.add_tokens(["zeppelin"])
    with pytest.raises(InputError, match="different vocabularies"):
        PairLoss(student, [Term(name="hidden_states", teacher=str(tiny_encoder))])


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("kl@batch", "candidates: slate"),
        ("teacher_dropping", "not for a cross-encoder"),
        ("flops", "not for a cross-encoder"),
        (
            [Term(name="feature_imitation", teacher="m")],
            "a cross-encoder reads query and document together",
        ),
    ],
)
def test_what_it_cannot_learn_is_said_before_training(
    objective, message, collection, pools, tiny_encoder, tmp_path
):
    student = make_student(str(tiny_encoder), "cross_encoder")
    with pytest.raises(InputError, match=message):
        train_cross_encoder(
            TrainingJob(
                student,
                pools,
                collection.documents,
                parse_terms(objective) if isinstance(objective, str) else objective,
                SETTINGS,
                tmp_path / "student",
            )
        )


def test_hidden_states_are_of_a_model_and_of_pairs():
    with pytest.raises(InputError, match="MODEL whose states are the target"):
        parse_terms("hidden_states")
