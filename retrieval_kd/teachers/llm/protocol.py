"""The interface between teachers and language models, wherever a model runs.

`decoder.py` and `encoder_decoder.py` implement it with transformers in this process,
`server/model.py` through an OpenAI-compatible server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from retrieval_kd.store.usage import Usage

Status = Literal["ok", "cut off", "failed"]
Side = Literal["end", "beginning"]


@dataclass(frozen=True)
class Prompt:
    """One chat turn. Prompts with the same beginning share its computation.

    Args:
        user: instruction, query and passages, in this order if possible, so that the prompts of a
            query's candidates share the longest beginning.
        system: the system message, if any.
        start: the prefilled beginning of the answer, which the model continues.
        form: a regular expression for the whole answer, used by servers with structured output.
    """

    user: str
    system: str = ""
    start: str = ""
    form: str = ""


@dataclass(frozen=True)
class Completion:
    """A generated answer. `text` is empty if the call failed."""

    text: str
    status: Status = "ok"


class LanguageModel(Protocol):
    """A model that answers prompts. All methods return answers in the order of the prompts."""

    name: str  # as the user named it
    digest: str  # of the weights, or of the name on the server and the settings
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
        """Log-probability of each token of a continuation (its tokens,); empty after a failure."""
        ...

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> list[Completion]:
        """Greedy answers of at most `most_tokens` tokens."""
        ...

    def shorten(self, texts: Sequence[str], most_tokens: int, side: Side = "end") -> list[str]:
        """Cut texts to `most_tokens` tokens, at the end or at the beginning."""
        ...
