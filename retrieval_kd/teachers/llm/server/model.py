"""A language model on an OpenAI-compatible server: vLLM, llama.cpp, `transformers serve`, others.

This file writes the requests; `calls.py` sends them, `responses.py` reads what comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.store.usage import Usage
from retrieval_kd.teachers.llm.protocol import Completion, Prompt, Side
from retrieval_kd.teachers.llm.rendering import (
    Renderer,
    as_text,
    check_not_empty,
    glue,
    open_renderer,
)
from retrieval_kd.teachers.llm.server import responses as read
from retrieval_kd.teachers.llm.server.budget import Budget
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.responses import Json
from retrieval_kd.teachers.llm.server.settings import ServerSettings
from retrieval_kd.teachers.llm.server.unlisted import Unlisted

CHAT, COMPLETIONS = "/chat/completions", "/completions"
CHARACTERS = 4  # per token, about right for English in most tokenizers
SENTENCEPIECE_SPACE = "▁"  # begins a word in SentencePiece tokenizers
ENVELOPE_TOKENS = 32  # more than enough for {"answer": "…"}
NO_LOGPROBS = (
    "this server returns no log-probabilities",
    "ask for words (listwise:MODEL, pairwise:MODEL?answer=words), or serve the model with vLLM or "
    "llama.cpp: yesno, likelihood and answer=logits need them",
)
NO_ECHO = (
    "this server returns no log-probabilities of a prompt's own tokens",
    "run the model here (without --server), or serve it with vLLM, whose completions have `echo` "
    "with `logprobs`; only likelihood needs it, all other teachers work without",
)


class ServerModel:
    """A `LanguageModel` on a server. The answer of a failed call is missing, never made up.

    With `api="chat"` the server puts turns into the model's format; `completions` sends plain text,
    for models without a chat template. Likelihoods always use completions. With a `tokenizer`
    prompts are formatted and cut here and sent as tokens: exactly what a model in this process
    would read. Without one, a token counts as four characters where a text has to be cut. An option
    that is not among the `logprobs` likeliest tokens is missing; many servers allow 20 at most.

    Args:
        name: the model's name on the server.
        budget: shared by the models of one command; by default a new one.
    """

    def __init__(self, name: str, settings: ServerSettings, budget: Budget | None = None) -> None:
        self.name, self.settings = name, settings
        self.calls = Calls(settings, budget)
        self.usage: Usage = self.calls.usage
        self.unlisted = Unlisted(settings.logprobs)
        prompts = settings.api if settings.tokenizer is None else self.renderer.described()
        self.digest = digest_text("server", name, prompts, str(settings.structured))
        self.dtype = ""

    @cached_property
    def renderer(self) -> Renderer:
        assert self.settings.tokenizer is not None
        return open_renderer(self.settings.tokenizer)

    def options(self, prompts: Sequence[Prompt], options: Sequence[str]) -> np.ndarray:
        """As in `LanguageModel`; NaN where an option is not among the likeliest tokens.

        Raises:
            InputError: the server returns no log-probabilities, or answers no request.
            Stopped: a limit was reached in an earlier batch.
        """
        path, bodies = self._requests(prompts, 1)
        wanted: Json = {"logprobs": True, "top_logprobs": self.settings.logprobs}
        if path == COMPLETIONS:
            wanted = {"logprobs": self.settings.logprobs}
        results = np.full((len(prompts), len(options)), np.nan, dtype=np.float32)
        firsts = self._first_tokens(prompts, options)
        answers = self.calls.query(path, [body | wanted for body in bodies], _needs_logprobs)
        for row, choice in enumerate(answers):
            if choice is not None and not read.is_refusal(choice):
                tokens = read.likeliest(choice) or []
                if firsts is not None:
                    results[row] = read.exact_logs(tokens, firsts)
                else:
                    prompt = prompts[row]
                    before = glue(prompt.start if path == CHAT else as_text(prompt))
                    results[row] = read.option_logs(tokens, options, before)
                self.unlisted.note(tokens, options, results[row], read.unnumbered(choice))
        return results

    def likelihoods(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[np.ndarray]:
        """As in `LanguageModel`.

        Raises:
            InputError: a continuation is empty, or the server does not return likelihoods.
            Stopped: a limit was reached in an earlier batch.
        """
        check_not_empty(continuations)
        texts = [self._text(prompt) for prompt in prompts]
        wholes: list[Any]
        lengths: list[int] = []
        if self.settings.tokenizer is not None:  # the same space between the two as in this process
            wholes, lengths = self.renderer.continued(texts, continuations)
        else:
            texts = [text + glue(text) for text in texts]
            wholes = [t + c for t, c in zip(texts, continuations, strict=True)]
        # one written token, which is ignored: some servers take 0 for "no limit"
        more = {"max_tokens": 1, "echo": True, "logprobs": 1}
        bodies = [self._body() | {"prompt": whole} | more for whole in wholes]
        results = [np.zeros(0, np.float32)] * len(bodies)
        for row, choice in enumerate(self.calls.query(COMPLETIONS, bodies, _needs_echo)):
            if choice is None:
                continue
            tokens = read.echoed(choice) or []
            if lengths:
                results[row] = read.last_logs(tokens, len(wholes[row]), lengths[row])
            else:
                results[row] = read.continuation_logs(tokens, texts[row], continuations[row])
        return results

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> list[Completion]:
        """Greedy answers of at most `most_tokens` tokens.

        Raises:
            InputError: the server answers no request.
            Stopped: a limit was reached in an earlier batch.
        """
        path, bodies = self._requests(prompts, most_tokens)
        for prompt, body in zip(prompts, bodies, strict=True):
            if self.settings.structured and prompt.form:
                body["response_format"] = read.wrapping(prompt.form)
                body[_most(path)] = most_tokens + ENVELOPE_TOKENS
        answers = self.calls.query(path, bodies)
        return [self._completion(p, choice) for p, choice in zip(prompts, answers, strict=True)]

    def shorten(self, texts: Sequence[str], most_tokens: int, side: Side = "end") -> list[str]:
        """Cut texts to `most_tokens` tokens; without a tokenizer, a token is four characters."""
        if self.settings.tokenizer is not None:
            return self.renderer.shorten(texts, most_tokens, side)
        return [cut(text, most_tokens, side) for text in texts]

    def _requests(self, prompts: Sequence[Prompt], most_tokens: int) -> tuple[str, list[Json]]:
        if self.settings.tokenizer is not None:
            rows = self.renderer.tokens([self._text(p) for p in prompts], most_tokens)
            more = {"max_tokens": most_tokens}
            return COMPLETIONS, [self._body() | more | {"prompt": row} for row in rows]
        path = CHAT if self.settings.api == "chat" else COMPLETIONS
        return path, [self._request(path, prompt, most_tokens) for prompt in prompts]

    def _request(self, path: str, prompt: Prompt, most_tokens: int) -> Json:
        body = self._body() | {_most(path): most_tokens}
        if path == COMPLETIONS:
            return body | {"prompt": as_text(prompt)}
        turns = [{"role": "system", "content": prompt.system}] if prompt.system else []
        turns.append({"role": "user", "content": prompt.user})
        if prompt.start:  # vLLM's and llama.cpp's way to prefill an answer
            turns.append({"role": "assistant", "content": prompt.start})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body | {"messages": turns}

    def _body(self) -> Json:
        return {"model": self.name, "temperature": 0}

    def _text(self, prompt: Prompt) -> str:
        return as_text(prompt) if self.settings.tokenizer is None else self.renderer.render(prompt)

    def _first_tokens(
        self, prompts: Sequence[Prompt], options: Sequence[str]
    ) -> list[tuple[str, str]] | None:
        """The spellings of the options' first tokens (see `_spelt`); None without a tokenizer."""
        if self.settings.tokenizer is None or not prompts:
            return None
        tokens = self.renderer.first_tokens(self._text(prompts[0]), options)
        return [_spelt(self.renderer.tokenizer, token) for token in tokens]

    def _completion(self, prompt: Prompt, choice: Json | None) -> Completion:
        if choice is None or read.is_refusal(choice):
            return Completion("", "failed")
        text, broken = read.text_of(choice) or "", choice.get("finish_reason") == "length"
        if self.settings.structured and prompt.form:
            inside = read.unwrapped(text)
            text, broken = (text, True) if inside is None else (inside, False)
        elif prompt.start and "message" in choice:
            text = text.removeprefix(prompt.start)  # some servers repeat the prefilled text
        return Completion(text, "cut off" if broken else "ok")


def _spelt(tokenizer: Any, token: int) -> tuple[str, str]:
    """A token's text with its leading space, and as servers may spell it.

    The two differ where a tokenizer marks spaces by ▁ (Llama 2, Mistral): decoding a single token
    drops its space as if it began the whole text, here and on some servers.
    """
    decoded = tokenizer.decode([token])
    marked = tokenizer.convert_ids_to_tokens(token).startswith(SENTENCEPIECE_SPACE)
    spaced = f" {decoded}" if marked and not decoded[:1].isspace() else decoded
    return spaced, decoded


def cut(text: str, most_tokens: int, side: Side) -> str:
    """Cut a text between words to the length of `most_tokens` tokens of average size.

    Example:
        >>> cut("violin chord tempo", 3, "end"), cut("violin chord tempo", 3, "beginning")
        ('violin chord', 'chord tempo')
    """
    most = most_tokens * CHARACTERS
    if len(text) <= most:
        return text
    if side == "end":
        kept = text[: most + 1]
        return (kept.rpartition(" ")[0] or kept[:most]).rstrip()
    kept = text[len(text) - most - 1 :]
    return (kept.partition(" ")[2] or kept[1:]).lstrip()


def _most(path: str) -> str:
    return "max_completion_tokens" if path == CHAT else "max_tokens"


def _needs_logprobs(choice: Json) -> None:
    if read.likeliest(choice) is None:
        raise InputError(NO_LOGPROBS[0], remedy=NO_LOGPROBS[1])


def _needs_echo(choice: Json) -> None:
    if read.echoed(choice) is None:
        problem, remedy = NO_ECHO if choice.get("logprobs") else NO_LOGPROBS
        raise InputError(problem, remedy=remedy)
