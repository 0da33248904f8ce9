"""A small language model that really reads its prompts: it counts words shared with the query.

Enough to rank, by the words in the prompt alone: what a teacher forgets to show it, it cannot use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from retrieval_kd.files import digest_text
from retrieval_kd.store.usage import Usage
from retrieval_kd.teachers.llm.protocol import Completion, Prompt

QUERY = re.compile(r"<query>(.*?)</query>")
PASSAGE = re.compile(r"^\[(\w+)\] <passage>(.*?)</passage>$", re.MULTILINE)
RANK_LLM = re.compile(r"^Search Query: (.*)\.$", re.MULTILINE), re.compile(r"(?m)^\[(\w+)\] (.*)$")


class Reader:
    """`LanguageModel` by word overlap.

    Args:
        lean: log-odds it gives to whatever stands first.
        garbled: which prompts it answers with what was asked not to be written.
        failing: how often the call fails, for each prompt, before it is answered.
    """

    def __init__(self, *, lean: float = 0.0, garbled=lambda prompt: False, failing=None) -> None:
        self.name, self.digest, self.dtype, self.usage = (
            "reader",
            digest_text("reader"),
            "",
            Usage(),
        )
        self.lean, self.garbled, self.failing = lean, garbled, failing or (lambda prompt: 0)
        self.asked: list[Prompt] = []

    def overlaps(self, prompt: Prompt) -> dict[str, float]:
        """Label → words shared with the query."""
        asks, shows = (QUERY, PASSAGE) if "<query>" in prompt.user else RANK_LLM
        [query] = asks.findall(prompt.user)
        words = set(query.split())
        shown = shows.findall(prompt.user)
        overlap = {label: len(words & set(text.split())) + _taste(text) for label, text in shown}
        overlap[shown[0][0]] += self.lean
        return overlap

    def _fails(self, prompt: Prompt) -> bool:
        self.asked.append(prompt)
        return self.asked.count(prompt) <= self.failing(prompt)

    def options(self, prompts: Sequence[Prompt], options: Sequence[str]) -> np.ndarray:
        found = np.full((len(prompts), len(options)), np.nan)
        for row, prompt in enumerate(prompts):
            if not self._fails(prompt):
                overlap = self.overlaps(prompt)
                values = np.array([overlap[label] for label in options])
                found[row] = values - np.log(np.exp(values).sum())
        return found

    def likelihoods(self, prompts, continuations):
        raise NotImplementedError

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> list[Completion]:
        written = []
        for prompt in prompts:
            if self._fails(prompt):
                written.append(Completion("", "failed"))
            elif self.garbled(prompt):
                written.append(Completion("I would rather not rank these passages."))
            else:
                overlap = self.overlaps(prompt)
                best = sorted(overlap, key=lambda label: -overlap[label])
                order = " > ".join(f"[{label}]" for label in best)
                written.append(Completion(best[0] if "letter" in prompt.user else order))
        return written

    def shorten(self, texts: Sequence[str], most_tokens: int, side="end") -> list[str]:
        cut = slice(None, most_tokens) if side == "end" else slice(-most_tokens, None)
        return [" ".join(text.split()[cut]) for text in texts]


def _taste(text: str) -> float:
    """Less than a word's worth, by which passages differ that share as many words."""
    return int(digest_text(text)[:4], 16) / 2**20
