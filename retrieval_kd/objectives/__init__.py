"""Objectives: pure functions from score matrices to a loss.

An objective is called as `objective(student, teacher, mask, **settings)` and returns a scalar. What
follows holds for every one; its own docstring says only what is particular to it.

- `student (B, N)`: the student's scores of N candidates for each of B queries, on any scale.
- `teacher (B, N)`: the target scores, on any scale. −inf on an unmasked candidate means "not in
  this query's pool": its probability is zero, and it ranks below every score. Objectives that need
  a number there leave the candidate out. Gradients reach the teacher too: detach it if it is fixed.
- `mask (B, N)`: true where the candidate exists. A masked entry may hold anything, NaN included; it
  changes neither the loss nor a gradient.
- `student_temperature`, `teacher_temperature`: τ_s and τ_t divide the scores. A cosine student
  wants τ_s of 0.02–0.1; a good τ_t is about the spread of one query's teacher scores.
- `labels (B, N)`: judged gains, above zero is relevant. Without them column 0 is relevant. The
  trainer sets them.
- `progress`: share of the training steps done, 0 to 1. The trainer sets it.

`mse` and `bce` are means over all candidates of the batch, pairwise losses over all pairs, all
others over queries. Queries that teach nothing are left out: those with fewer than two candidates
or without any teacher score (an objective on judgments: without a relevant candidate and another
one). A batch of such queries has the loss 0 and no gradient.

Unless its docstring says otherwise, adding a constant to a row of either matrix changes nothing,
and the order of the candidates does not matter.

Objectives on other inputs are in `several` (teachers or layers), `vectors` and `states`. To add an
objective, write the function in its family's file, name it here (on other inputs: in `FAMILIES` of
`training/objective/terms.py`), and claim its properties in `tests/objectives/test_properties.py`.
"""

from retrieval_kd.objectives.contrastive import infonce, rank_contrast, weighted_infonce
from retrieval_kd.objectives.listwise import (
    dynamic_difficulty,
    jsd,
    kl,
    reverse_kl,
    skew_kl,
    skew_pair,
    taid,
)
from retrieval_kd.objectives.pairwise import (
    adaptive_margin,
    bpr,
    margin_mse,
    pair_kl,
    preference,
    ranknet,
)
from retrieval_kd.objectives.regression import bce, mse, pearson
from retrieval_kd.objectives.transport import sinkhorn, sorted_probability

# These read judgments only; the teacher may hold anything.
FROM_LABELS = (infonce,)

__all__ = [
    "adaptive_margin",
    "bce",
    "bpr",
    "dynamic_difficulty",
    "infonce",
    "jsd",
    "kl",
    "margin_mse",
    "mse",
    "pair_kl",
    "pearson",
    "preference",
    "rank_contrast",
    "ranknet",
    "reverse_kl",
    "sinkhorn",
    "skew_kl",
    "skew_pair",
    "sorted_probability",
    "taid",
    "weighted_infonce",
]
