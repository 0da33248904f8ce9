"""The policy over teachers: its gradient, what it learns, and that it survives a stop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from retrieval_kd.data.collection import open_collection
from retrieval_kd.models.load import load_encoder
from retrieval_kd.students.make import make_student
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.policy import START, TeacherPolicy
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of
from tests.students.stopping import assert_same_after_a_stop

T, B, F = 2, 4, 3


@pytest.fixture
def states():
    torch.manual_seed(0)
    return torch.randn(T, B, F)


EVERYONE = torch.ones(T, B, dtype=torch.bool)


def test_at_first_it_knows_nothing_and_uses_most(states):
    chances = TeacherPolicy(T, F).probabilities(states)
    torch.testing.assert_close(chances, torch.full((T, B), START).sigmoid())


def test_its_gradient_is_that_of_reinforce(states):
    """(r − r̄) times the gradient of the log-probability of what was chosen one batch before."""
    policy = TeacherPolicy(T, F)
    with torch.no_grad():
        policy.weight.copy_(torch.randn(T, F))
    there = EVERYONE.clone()
    there[0, 0] = False
    _, lesson = policy(states, there, torch.tensor(0.5))  # nothing was chosen before
    assert lesson == 0
    policy(states, there, None)
    torch.manual_seed(1)
    kept, _ = policy(states, there, None)
    assert not kept[0, 0]
    _, lesson = policy(torch.randn(T, B, F), EVERYONE, torch.tensor(2.0))
    assert lesson == 0
    lesson.backward()
    got = policy.weight.grad.clone(), policy.bias.grad.clone()
    policy.zero_grad()
    cost = binary_cross_entropy(policy.probabilities(states), kept.float(), reduction="none")
    log_chance = -(cost * there).sum() / B
    (-(2.0 - 0.5) * log_chance).backward()
    torch.testing.assert_close(got, (policy.weight.grad, policy.bias.grad))


def test_it_learns_whom_to_ask_when():
    """Teacher 0 helps where the state is 1, teacher 1 where it is −1; elsewhere both harm."""
    torch.manual_seed(0)
    policy, reward = TeacherPolicy(T, 1), None
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.05)
    for _ in range(300):
        sign = torch.randint(0, 2, (1, 16, 1)).float() * 2 - 1
        kept, lesson = policy(sign.expand(T, -1, -1), torch.ones(T, 16, dtype=torch.bool), reward)
        helps = torch.stack([sign[0, :, 0], -sign[0, :, 0]])
        reward = (kept * helps).mean()
        optimizer.zero_grad()
        lesson.backward() if lesson.requires_grad else None
        optimizer.step()
    chances = policy.probabilities(torch.tensor([1.0, -1.0])[None, :, None].expand(T, -1, -1))
    assert (chances > 0.5).tolist() == [[True, False], [False, True]]


def test_without_gradients_it_takes_the_likelier_action_and_remembers_nothing(states):
    policy = TeacherPolicy(T, F)
    with torch.no_grad():
        policy.bias.copy_(torch.tensor([2.0, -2.0]))
        before = {name: value.clone() for name, value in policy.state_dict().items()}
        kept, _ = policy(states, EVERYONE, torch.tensor(1.0))
    assert kept[0].all() and not kept[1].any()
    torch.testing.assert_close(dict(policy.state_dict()), before)


def test_checkpoints_keep_it_with_what_it_has_not_been_rewarded_for(tiny_encoder, states):
    terms = [Term(name="reinforced_teachers")]
    model = load_encoder(str(tiny_encoder), dtype=torch.float32)
    loss = ScoreMatrixLoss(model, terms, members=T)
    kept = loss.own_state().state_dict()
    names = {"weight", "bias", "taken_weight", "taken_bias", "baseline", "rewards"}
    assert set(kept) == {f"policies.reinforced_teachers.{name}" for name in names}
    assert kept["policies.reinforced_teachers.weight"].shape == (T, 32 + 3)


def test_a_training_with_it_goes_on_where_it_was_stopped(tiny_collection, tiny_encoder, tmp_path):
    collection = open_collection(str(tiny_collection))
    pools = [
        replace(pool, members=np.stack([pool.teacher, -pool.teacher]))
        for pool in pools_of(collection)
    ]
    terms = [Term(name="reinforced_teachers"), Term(name="infonce")]
    settings = TrainSettings(
        steps=8, batch_queries=4, eval_steps=4, save_steps=4, max_tokens=32, mini_batch_size=5
    )

    def run(out):
        student = make_student(str(tiny_encoder), "dense", [0, 3])
        return train_student(
            TrainingJob(student, pools, collection.documents, terms, settings, out)
        )

    record = assert_same_after_a_stop(run, tmp_path, at=5)
    assert {"reinforced_teachers", "infonce"} <= set(record["curve"][-1])
