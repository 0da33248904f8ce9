"""Objectives: pure functions of `student (B, N)`, `teacher (B, N)`, `mask (B, N)` and settings.

One that reads judgments has a keyword `labels (B, N)`, one that changes during training a keyword
`progress` (share of the steps done); the trainer gives both. To add an objective, write the
function in its family's file and name it here.
"""

from retrieval_kd.objectives.contrastive import (
    bpr,
    filtered_infonce,
    infonce,
    soft_nearest_neighbour,
    weighted_infonce,
)
from retrieval_kd.objectives.listwise import jsd, kl, listnet, reverse_kl
from retrieval_kd.objectives.pairwise import (
    adaptive_margin,
    margin_mse,
    margin_mse_pairs,
    pair_kl,
    ranknet,
    weighted_ranknet,
)
from retrieval_kd.objectives.permutation import (
    list_mle,
    partial_plackett_luce,
    position_list_mle,
    rank_contrast,
)
from retrieval_kd.objectives.pointwise import bce, mse
from retrieval_kd.objectives.preferences import lambda_loss, preference
from retrieval_kd.objectives.ranks import adr_mse, approx_ndcg, pearson
from retrieval_kd.objectives.schedules import (
    annealed_kl,
    dynamic_difficulty,
    label_mixing,
    label_smoothing,
    taid,
)
from retrieval_kd.objectives.skewed import skew_kl, skew_pair, skew_reverse_kl
from retrieval_kd.objectives.transport import sinkhorn, sorted_probability

# These read column 0 as the positive, and need one there; in a batch it is each query's own.
POSITIVE_FIRST = (adaptive_margin, margin_mse)
# These learn from judgments alone; the teacher may have said nothing.
FROM_LABELS = (infonce, label_smoothing, soft_nearest_neighbour)
# These follow the judgments of a query of which the teacher said nothing.
OR_FROM_LABELS = (label_mixing,)

__all__ = [
    "adaptive_margin",
    "adr_mse",
    "annealed_kl",
    "approx_ndcg",
    "bce",
    "bpr",
    "dynamic_difficulty",
    "filtered_infonce",
    "infonce",
    "jsd",
    "kl",
    "label_mixing",
    "label_smoothing",
    "lambda_loss",
    "list_mle",
    "listnet",
    "margin_mse",
    "margin_mse_pairs",
    "mse",
    "pair_kl",
    "partial_plackett_luce",
    "pearson",
    "position_list_mle",
    "preference",
    "rank_contrast",
    "ranknet",
    "reverse_kl",
    "sinkhorn",
    "skew_kl",
    "skew_pair",
    "skew_reverse_kl",
    "soft_nearest_neighbour",
    "sorted_probability",
    "taid",
    "weighted_infonce",
    "weighted_ranknet",
]
