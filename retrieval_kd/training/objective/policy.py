"""The policy that chooses teachers query by query and is trained by the student's progress."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retrieval_kd.training.trainer.devices import mean_over_processes

START = 1.0  # σ(1) = 0.73: at first most teachers are used
FACTS = 3  # numbers in a state beside the query's vector
MEMORY = 0.9  # share of the past in the baseline of rewards


class TeacherPolicy(nn.Module):
    r"""Uses teacher k with probability p_k = σ(A_k f_k + b_k) of its state f_k.

    Yuan et al. 2021, https://arxiv.org/abs/2012.06048: it is trained by REINFORCE. A and b follow
    (r − r̄) ∇ log π(a | f), the mean over a batch's queries with their actions a. The reward r is
    known only after the student has trained on them: at the next batch. The baseline r̄, the mean of
    earlier rewards, is ours; it removes from r what no choice changed. The gradient of log π is
    (a − p) f for A and a − p for b, so their means are all that is kept of a batch. They are
    buffers, so that a resumed training equals an uninterrupted one; several processes share them
    and the rewards.

    Args:
        teachers: T, number of teachers.
        width: F, width of a state.
    """

    def __init__(self, teachers: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(teachers, width))
        self.bias = nn.Parameter(torch.full((teachers,), START))
        self.register_buffer("taken_weight", torch.zeros(teachers, width))
        self.register_buffer("taken_bias", torch.zeros(teachers))
        self.register_buffer("baseline", torch.zeros(()))
        self.register_buffer("rewards", torch.zeros(()))
        self.taken_weight: Tensor
        self.taken_bias: Tensor
        self.baseline: Tensor
        self.rewards: Tensor

    def probabilities(self, states: Tensor) -> Tensor:
        """p (T, B) of states (T, B, F)."""
        return (torch.einsum("tbf,tf->tb", states, self.weight) + self.bias[:, None]).sigmoid()

    def forward(
        self, states: Tensor, there: Tensor, reward: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the teachers kept (T, B), and a loss of value 0 whose gradient trains the policy.

        Without gradients (evaluation) the likelier action is taken and the policy is not trained.

        Args:
            states: (T, B, F).
            there: (T, B), false where a teacher has no scores: it is neither chosen nor left out.
            reward: the reward of the previous choice; None if it is unknown.
        """
        chances = self.probabilities(states)
        if not torch.is_grad_enabled():
            return there & (chances >= 0.5), chances.new_zeros(())
        loss = chances.new_zeros(())
        value = chances.new_zeros(()) if reward is None else reward.detach().float()
        pair = torch.stack([value, torch.full_like(value, float(reward is not None))])
        value, rewarded = mean_over_processes(pair).unbind()
        if rewarded > 0:
            loss = self._loss(value / rewarded)
        kept = there & (torch.rand_like(chances) < chances)
        with torch.no_grad():
            surprise = (kept.float() - chances) * there / there.shape[1]  # (T, B)
            taken = torch.einsum("tb,tbf->tf", surprise, states)
            self.taken_weight.copy_(mean_over_processes(taken))
            self.taken_bias.copy_(mean_over_processes(surprise.sum(1)))
        return kept, loss

    def _loss(self, reward: Tensor) -> Tensor:
        """−(r − r̄) log π of the last actions, minus its own value."""
        earlier = self.rewards > 0
        advantage = torch.where(earlier, reward - self.baseline, torch.zeros_like(reward))
        log_chance = (self.taken_weight.clone() * self.weight).sum()
        log_chance = log_chance + (self.taken_bias.clone() * self.bias).sum()
        loss = -advantage * log_chance
        with torch.no_grad():
            mixed = MEMORY * self.baseline + (1 - MEMORY) * reward
            self.baseline.copy_(torch.where(earlier, mixed, reward))
            self.rewards += 1
        return loss - loss.detach()
