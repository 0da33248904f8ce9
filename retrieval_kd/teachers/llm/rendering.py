"""From a prompt to tokens: the chat template, what passages may not write, where an answer begins.

What is done with the tokens is in `local_model.py` and `seq2seq_model.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.llm.protocol import Prompt, Side

OPENING = "([{<\"'“‘"  # characters after which an answer goes on without a space


class Renderer:
    """A fast tokenizer, used on prompts.

    Args:
        tokenizer: of transformers, with offsets.
        positions: tokens that the model reads; None if it says no number.
        name: of the model, for messages.
    """

    def __init__(self, tokenizer: Any, positions: int | None, name: str) -> None:
        self.tokenizer, self.positions, self.name = tokenizer, positions, name

    def render(self, prompt: Prompt) -> str:
        """The text a decoder reads: by its chat template, or a prompt's parts one after another.

        Control words of the tokenizer are broken up in what the prompt says, so that no passage can
        end its turn; only `start`, which no passage is part of, is put in as it is.
        """
        user, system = self.plain(prompt.user), self.plain(prompt.system)
        if not self.tokenizer.chat_template:
            text = "\n".join(part for part in (system, user) if part)
            glue = " " if prompt.start and not prompt.start[0].isspace() else ""
            return text + glue + prompt.start
        text = self._chat(system, user)
        return text if prompt.start and text.endswith(prompt.start) else text + prompt.start

    def _chat(self, system: str, user: str) -> str:
        turns = [{"role": "system", "content": system}] if system else []
        turns.append({"role": "user", "content": user})
        settings = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        try:
            return self.tokenizer.apply_chat_template(turns, **settings)
        except TemplateError:
            if not system:
                raise
            return self._chat("", f"{system}\n\n{user}")  # a template without that role

    def plain(self, text: str) -> str:
        """`text` without control words: `<|end|>` becomes `< |end|>`, which are other tokens."""
        return self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        words = {token.content for token in added if token.special or token.content[0] in "<["}
        found = sorted((w for w in words if len(w.strip()) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, found)) or r"(?!)")

    def tokens(self, texts: Sequence[str], most_tokens: int = 1) -> list[list[int]]:
        """Tokens of rendered prompts.

        Raises:
            InputError: a prompt and `most_tokens` of an answer are more than the model reads.
        """
        if not texts:
            return []
        sequences, _ = self._encode(texts)
        self.check_lengths(sequences, most_tokens)
        return sequences

    def continued(
        self, texts: Sequence[str], continuations: Sequence[str]
    ) -> tuple[list[list[int]], list[int]]:
        """Tokens of each prompt with its continuation, and how many of them are the continuation's.

        Both are tokenised as one text, as the model has seen texts. A token that has characters of
        both sides counts to the continuation.

        Raises:
            InputError: a continuation is empty, or the two are more than the model reads.
        """
        if not texts:
            return [], []
        if not all(continuation.strip() for continuation in continuations):
            raise InputError(
                "an empty text has no likelihood",
                remedy="leave queries and answers without text out",
            )
        whole = [t + self._glue(t) + c for t, c in zip(texts, continuations, strict=True)]
        sequences, spans = self._encode(whole)
        self.check_lengths(sequences, 0)
        lengths = [
            sum(1 for _, end in span if end > len(text))
            for text, span in zip(texts, spans, strict=True)
        ]
        return sequences, lengths

    def first_tokens(self, text: str, options: Sequence[str]) -> list[int]:
        """The token that each option begins with where `text` ends.

        Raises:
            InputError: two begin with the same.
        """
        sequences, lengths = self.continued([text] * len(options), options)
        first = [s[-n] for s, n in zip(sequences, lengths, strict=True)]
        if len(set(first)) < len(first):
            raise InputError(
                f"some of the answers {', '.join(map(repr, options))} begin with the same token",
                id=self.name,
                remedy="choose answers whose first tokens differ in this model's tokenizer",
            )
        return first

    def shorten(self, texts: Sequence[str], most_tokens: int, side: Side = "end") -> list[str]:
        """Texts cut to `most_tokens` tokens, at their end or at their beginning."""
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [
            _cut(text, spans, most_tokens, side)
            for text, spans in zip(texts, encoded["offset_mapping"], strict=True)
        ]

    def check_lengths(self, sequences: Sequence[Sequence[int]], more: int) -> None:
        """Refuse what the model has no positions for: it is never cut in silence."""
        longest = max(map(len, sequences)) + more
        if self.positions and longest > self.positions:
            raise InputError(
                f"a prompt and its answer have {longest} tokens, the model reads {self.positions}",
                id=self.name,
                remedy="cut passages shorter (?passage_tokens=), or show fewer at once",
            )

    def _glue(self, text: str) -> str:
        """What stands between a prompt and its answer: a space, where a word has just ended."""
        ends = any(text.endswith(word) for word in self.tokenizer.all_special_tokens)
        return "" if not text or text[-1].isspace() or text[-1] in OPENING or ends else " "

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[Any]]]:
        """Tokens of each text and their places in it; a first token is added if models expect it.

        A chat template has written it already.
        """
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=not self.tokenizer.chat_template,
            return_offsets_mapping=True,
            verbose=False,
        )
        rows, spans = list(encoded["input_ids"]), list(encoded["offset_mapping"])
        for i, row in enumerate(rows):
            if row and row[-1] == self.tokenizer.eos_token_id and spans[i][-1][1] == 0:
                rows[i], spans[i] = row[:-1], spans[i][:-1]  # an end that the tokenizer added
        return rows, spans


def _cut(text: str, spans: Sequence[tuple[int, int]], most: int, side: Side) -> str:
    """`text` without the tokens after the first `most`, or before the last `most`."""
    if len(spans) <= most:
        return text
    if most <= 0:
        return ""
    if side == "end":  # a character of several tokens goes whole
        return text[: min(spans[most - 1][1], spans[most][0])]
    return text[max(spans[-most][0], spans[-most - 1][1]) :]
