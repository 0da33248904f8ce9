"""What an LLM teacher needs of a language model, wherever it runs: three questions about prompts.

`local_model.py` answers them with transformers in this process, `server_model.py` through an
OpenAI-compatible server. Teachers know neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from retrieval_kd.store.usage import Usage

Status = Literal["ok", "cut off", "failed"]


@dataclass(frozen=True)
class Prompt:
    """One chat turn. Consecutive prompts that begin alike share that part's computation.

    Args:
        user: instruction, query and passages, in this order where the teacher can choose, so that
            a query's candidates share the longest beginning.
        system: the role; empty for models without one.
        start: words put into the model's mouth, after which it goes on.
        form: a regular expression that the whole answer should match, for servers that can hold a
            model to one; others do not look at it.
    """

    user: str
    system: str = ""
    start: str = ""
    form: str = ""


@dataclass(frozen=True)
class Completion:
    """What a model wrote. `text` is empty where the call failed."""

    text: str
    status: Status = "ok"


class LanguageModel(Protocol):
    """A model that reads prompts. All methods keep the order of what they are given."""

    name: str  # as the user named it
    digest: str  # of the weights, or of what the server calls its model
    dtype: str
    usage: Usage

    def options(self, prompts: Sequence[Prompt], options: Sequence[str]) -> np.ndarray:
        """Log-probabilities (n, options) of each option's first token as the answer's first token.

        Not normalised over the options; a row of NaN where the call failed.
        """
        ...

    def likelihoods(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[np.ndarray]:
        """Log-probability of each token of a continuation (its tokens,); empty where it failed."""
        ...

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> list[Completion]:
        """Greedy answers of at most so many tokens."""
        ...

    def shorten(self, texts: Sequence[str], most_tokens: int, side: Side = "end") -> list[str]:
        """Texts cut to so many tokens, at their end or at their beginning."""
        ...


Side = Literal["end", "beginning"]
