"""Turn prompts into tokens: the chat template, escaped control words, where an answer begins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.llm.protocol import Prompt, Side

OPENING = "([{<\"'“‘"  # no space follows these characters


class Renderer:
    """Renders prompts with a model's tokenizer.

    Args:
        tokenizer: a fast tokenizer of transformers, which returns offsets.
        positions: most tokens that the model reads; None if unknown.
        name: the model's name, for messages.
    """

    def __init__(self, tokenizer: Any, positions: int | None, name: str) -> None:
        self.tokenizer, self.positions, self.name = tokenizer, positions, name

    def described(self) -> str:
        """Everything in the tokenizer that changes the model's input."""
        return f"{self.tokenizer.backend_tokenizer.to_str()} {self.tokenizer.chat_template}"

    def render(self, prompt: Prompt) -> str:
        """The text a decoder reads: the chat template filled in, or the prompt's parts joined.

        Control words of the tokenizer are escaped, so that no passage can end its turn; only
        `start`, which contains no passage, keeps them.
        """
        user, system = self.plain(prompt.user), self.plain(prompt.system)
        if not self.tokenizer.chat_template:
            return as_text(Prompt(user, system, prompt.start))
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
            return self._chat("", f"{system}\n\n{user}")  # the template has no system role

    def plain(self, text: str) -> str:
        """Escape control words: `<|end|>` becomes `< |end|>`, which are ordinary tokens."""
        return self._control.sub(lambda word: f"{word[0][0]} {word[0][1:]}", text)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        words = {token.content for token in added if token.special or token.content[0] in "<["}
        longest_first = sorted((w for w in words if len(w.strip()) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def tokens(self, texts: Sequence[str], most_tokens: int = 1) -> list[list[int]]:
        """Tokens of rendered prompts."""
        if not texts:
            return []
        sequences, _ = self._encode(texts)
        self.check_lengths(sequences, most_tokens)
        return sequences

    def continued(
        self, texts: Sequence[str], continuations: Sequence[str]
    ) -> tuple[list[list[int]], list[int]]:
        """Tokens of each prompt with its continuation, and the continuation's number of tokens.

        Both are tokenised as one text, as in training. A token with characters of both sides
        belongs to the continuation.
        """
        if not texts:
            return [], []
        check_not_empty(continuations)
        whole = [t + self._glue(t) + c for t, c in zip(texts, continuations, strict=True)]
        sequences, spans = self._encode(whole)
        self.check_lengths(sequences, 0)
        lengths = [
            sum(1 for _, end in span if end > len(text))
            for text, span in zip(texts, spans, strict=True)
        ]
        return sequences, lengths

    def first_tokens(self, text: str, options: Sequence[str]) -> list[int]:
        """The first token of each option as a continuation of `text`."""
        sequences, lengths = self.continued([text] * len(options), options)
        first = [s[-n] for s, n in zip(sequences, lengths, strict=True)]
        check_distinct(first, options, self.name)
        return first

    def shorten(self, texts: Sequence[str], most_tokens: int, side: Side = "end") -> list[str]:
        """Cut texts to `most_tokens` tokens, at the end or at the beginning."""
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
        """Raise InputError for sequences longer than the model reads; nothing is cut silently."""
        longest = max(map(len, sequences)) + more
        if self.positions and longest > self.positions:
            raise InputError(
                f"a prompt and its answer have {longest} tokens, the model reads {self.positions}",
                id=self.name,
                remedy="cut passages shorter (?passage_tokens=), or show fewer at once",
            )

    def _glue(self, text: str) -> str:
        """Like `glue`, but nothing after a special token."""
        ends = any(text.endswith(word) for word in self.tokenizer.all_special_tokens)
        return "" if ends else glue(text)

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[Any]]]:
        """Tokens of each text and their offsets, with a first special token if the model has one.

        A chat template writes that token itself.
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
                rows[i], spans[i] = row[:-1], spans[i][:-1]  # an end token that the tokenizer added
        return rows, spans


def open_renderer(spec: str) -> Renderer:
    """Open the tokenizer of the model with this name or folder."""
    from transformers import AutoTokenizer

    from retrieval_kd.models.checks import check_offsets, check_vocabulary
    from retrieval_kd.models.load import opening, resolve_model

    ref = resolve_model(spec)
    with opening(ref, "model with a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(ref.location, revision=ref.revision)
    check_vocabulary(ref, tokenizer)
    check_offsets(
        ref,
        tokenizer,
        remedy="leave --tokenizer out: the server formats the prompts, and texts are cut at four "
        "characters a token",
    )
    return Renderer(tokenizer, None, spec)  # the server knows how much the model reads


def as_text(prompt: Prompt) -> str:
    """Join the parts of a prompt for a model without a chat template.

    Example:
        >>> as_text(Prompt("Query: tides", system="You judge.", start="Relevant:"))
        'You judge.\\nQuery: tides Relevant:'
    """
    text = "\n".join(part for part in (prompt.system, prompt.user) if part)
    space = " " if prompt.start and not prompt.start[0].isspace() else ""
    return text + space + prompt.start


def glue(text: str) -> str:
    """What separates a text from its continuation: a space after a word, else nothing."""
    return "" if not text or text[-1].isspace() or text[-1] in OPENING else " "


def check_not_empty(texts: Sequence[str]) -> None:
    """Raise InputError for an empty text, which has no likelihood."""
    if not all(text.strip() for text in texts):
        raise InputError(
            "an empty text has no likelihood", remedy="leave queries and answers without text out"
        )


def check_distinct(first: Sequence[int], options: Sequence[str], model: str) -> None:
    """Raise InputError if two options begin with the same token."""
    if len(set(first)) < len(first):
        raise InputError(
            f"some of the answers {', '.join(map(repr, options))} begin with the same token",
            id=model,
            remedy="choose answers whose first tokens differ in this model's tokenizer",
        )


def _cut(text: str, spans: Sequence[tuple[int, int]], most: int, side: Side) -> str:
    """Keep the first, or the last, `most` tokens of a text."""
    if len(spans) <= most:
        return text
    if most <= 0:
        return ""
    if side == "end":  # a character of several tokens is removed as a whole
        return text[: min(spans[most - 1][1], spans[most][0])]
    return text[max(spans[-most][0], spans[-most - 1][1]) :]
