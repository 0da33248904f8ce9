"""Objectives: pure functions of `student (B, N)`, `teacher` or `labels (B, N)`, `mask (B, N)`.

The second parameter's name says what an objective learns from: `teacher` scores or judged `labels`.
To add one, write the function in its family's file and name it here.
"""

from retrieval_kd.objectives.contrastive import infonce
from retrieval_kd.objectives.listwise import kl
from retrieval_kd.objectives.pairwise import margin_mse

# These read column 0 as the positive, so they need slates and cannot see a whole batch.
POSITIVE_FIRST = (margin_mse,)

__all__ = ["infonce", "kl", "margin_mse"]
