"""Answers that give no score because their likeliest first words lack the options, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from retrieval_kd.errors import shown

MOST_WORDS = 3  # shown of an answer, and of all answers together


@dataclass
class Unlisted:
    """Counts such answers, the options they lack, and the words that they have instead.

    Example:
        >>> unlisted = Unlisted(logprobs=20)
        >>> unlisted.note([("Yes", -0.1), ("No", -2.5)], ["yes", "no"], np.array([np.nan, np.nan]))
        >>> unlisted.why().partition(". ")[0]
        "neither 'yes' nor 'no' is among the 20 likeliest first words; the likeliest: 'Yes', 'No'"
    """

    logprobs: int
    lacking: Counter[tuple[str, ...]] = field(default_factory=Counter)
    unnumbered: Counter[str] = field(default_factory=Counter)  # options, listed all the same
    words: Counter[str] = field(default_factory=Counter)

    def note(
        self,
        tokens: Sequence[tuple[str, float]],
        options: Sequence[str],
        logs: np.ndarray,
        unnumbered: Sequence[str] = (),
    ) -> None:
        """Note an answer if fewer than two options have a log-probability in `logs`.

        `unnumbered` are the words that the server lists without a number.
        """
        lacking = tuple(option for option, log in zip(options, logs, strict=True) if np.isnan(log))
        if len(options) - len(lacking) < 2:
            self.lacking[lacking] += 1
            listed = {word.strip() for word in unnumbered}
            self.unnumbered.update(option for option in lacking if option.strip() in listed)
            likeliest = sorted(tokens, key=lambda token: -token[1])[:MOST_WORDS]
            self.words.update(word for word, _ in likeliest)

    def clear(self) -> None:
        self.lacking.clear()
        self.words.clear()
        self.unnumbered.clear()

    @property
    def count(self) -> int:
        """How many answers were noted."""
        return self.lacking.total()

    def why(self) -> str:
        """The most frequent reason, and the remedy."""
        if self.unnumbered:
            [(option, count)] = self.unnumbered.most_common(1)
            return (
                f"{option!r} is listed, but its log-probability is not a number (null, NaN or "
                f"-9999, in {count} answers). To fix: see what is wrong with the model on the "
                "server; in float16 some models overflow, which bfloat16 or float32 prevents"
            )
        names = [repr(option) for option in self.lacking.most_common(1)[0][0]]
        who = f"{', '.join(names)} is not" if len(names) == 1 else f"none of {', '.join(names)} is"
        who = f"neither {' nor '.join(names)} is" if len(names) == 2 else who
        words = ", ".join(repr(shown(word, 30)) for word, _ in self.words.most_common(MOST_WORDS))
        return (
            f"{who} among the {self.logprobs} likeliest first words; the likeliest: "
            f"{words or 'none at all'}. To fix: give a prompt file (?prompt=FILE.yaml) whose "
            "`answers` are the words that the model writes, such as [Yes, No]; for a model that "
            r'thinks first, add start: "<think>\n\n</think>\n\n"; or list more words with '
            "--logprobs. Asking again without a change gives the same"
        )
