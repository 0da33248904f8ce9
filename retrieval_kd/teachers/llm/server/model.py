"""A language model on an OpenAI-compatible server: vLLM, llama.cpp, `transformers serve`, others.

What is sent and what is made of it. Sending is in `server_calls.py`, reading in
`server_answers.py`, the model's own tokenizer in `server_tokenizer.py`. A call that fails is
missing, never made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.store.usage import Usage
from retrieval_kd.teachers.llm.protocol import Completion, Prompt, Side
from retrieval_kd.teachers.llm.rendering import Renderer
from retrieval_kd.teachers.llm.server import responses as read
from retrieval_kd.teachers.llm.server.budget import Limits
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.client import Server
from retrieval_kd.teachers.llm.server.responses import Json
from retrieval_kd.teachers.llm.server.tokenizer import (
    as_text,
    cut,
    described,
    glue,
    open_renderer,
    spelt,
)

Api = Literal["chat", "completions"]

CHAT, COMPLETIONS = "/chat/completions", "/completions"
ENVELOPE_TOKENS = 32  # of {"answer": "…"}, generously
NO_LOGPROBS = (
    "this server gives no log-probabilities",
    "ask for words (listwise:MODEL, pairwise:MODEL?answer=words), or serve the model with vLLM or "
    "llama.cpp: yesno, likelihood and answer=logits need them",
)
NO_ECHO = (
    "this server gives no log-probabilities of a prompt's own tokens",
    "run the model here (without --server), or serve it with vLLM, whose completions have `echo` "
    "with `logprobs`; only likelihood needs it, all other teachers work without",
)


class ServerModel:
    """Everything that `LanguageModel` asks, as far as the server gives it.

    Args:
        name: of the model, as the server calls it.
        api: `chat` sends turns, which the server puts into the model's format; `completions` sends
            plain text, for models without one. Likelihoods always go through completions.
        tokenizer: the model's (folder or hub name), to put prompts into their format and to cut
            them here, and to send tokens through completions: the very prompts that the model
            would be given in this process. Without it, a token is taken for four characters where
            a text has to be cut.
        logprobs: how many of the likeliest words to ask for. An option that is not among them is
            missing. 20 is the most that many servers allow.
        structured: hold answers to the form that the teacher expects, by `response_format`.
        limits: what may be spent.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        *,
        api: Api = "chat",
        tokenizer: str | None = None,
        logprobs: int = 20,
        structured: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.name, self.api, self.tokenizer = name, api, tokenizer
        self.logprobs, self.structured = logprobs, structured
        self.calls = Calls(server, limits)
        self.usage: Usage = self.calls.usage
        told = [name, api if tokenizer is None else described(self.renderer)]
        self.digest, self.dtype = digest_text("server", *told, str(structured)), ""

    @cached_property
    def renderer(self) -> Renderer:
        assert self.tokenizer is not None
        return open_renderer(self.tokenizer)

    def options(self, prompts: Sequence[Prompt], options: Sequence[str]) -> np.ndarray:
        """Log-probabilities (n, options) of each option's first word as the answer's first word.

        NaN where the server does not name it among the likeliest, and where the call failed.

        Raises:
            InputError: the server gives no log-probabilities, or nothing at all.
            Stopped: a limit was reached before.
        """
        path, bodies = self._requests(prompts, 1)
        wanted: Json = {"logprobs": True, "top_logprobs": self.logprobs}
        if path == COMPLETIONS:
            wanted = {"logprobs": self.logprobs}
        found = np.full((len(prompts), len(options)), np.nan, dtype=np.float32)
        firsts = self._first_words(prompts, options)
        answers = self.calls.ask(path, [body | wanted for body in bodies], _needs_logprobs)
        for row, choice in enumerate(answers):
            if choice is not None:
                words = read.likeliest(choice) or []
                found[row] = (
                    read.option_logs(words, options, self._before_answer(path, prompts[row]))
                    if firsts is None
                    else read.exact_logs(words, firsts)
                )
        return found

    def likelihoods(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[np.ndarray]:
        """Log-probability of each token of a continuation, (its tokens,); empty where it failed.

        Raises:
            InputError: a continuation is empty, or the server does not tell.
            Stopped: a limit was reached before.
        """
        if not all(continuation.strip() for continuation in continuations):
            raise InputError(
                "an empty text has no likelihood",
                remedy="leave queries and answers without text out",
            )
        texts = [self._text(prompt) for prompt in prompts]
        wholes: list[Any]
        lengths: list[int] = []
        if self.tokenizer is not None:  # as in this process, also what stands between the two
            wholes, lengths = self.renderer.continued(texts, continuations)
        else:
            texts = [text + glue(text) for text in texts]
            wholes = [t + c for t, c in zip(texts, continuations, strict=True)]
        # one token more is written and ignored: by none, some servers mean as many as they like
        more = {"max_tokens": 1, "echo": True, "logprobs": 1}
        bodies = [self._body() | {"prompt": whole} | more for whole in wholes]
        found = [np.zeros(0, np.float32)] * len(bodies)
        for row, choice in enumerate(self.calls.ask(COMPLETIONS, bodies, _needs_echo)):
            if choice is None:
                continue
            tokens = read.echoed(choice) or []
            if lengths:
                found[row] = read.last_logs(tokens[: len(wholes[row])], lengths[row])
            else:
                found[row] = read.continuation_logs(tokens, texts[row], continuations[row])
        return found

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> list[Completion]:
        """Greedy answers of at most so many tokens.

        Raises:
            InputError: the server will not answer.
            Stopped: a limit was reached before.
        """
        path, bodies = self._requests(prompts, most_tokens)
        for prompt, body in zip(prompts, bodies, strict=True):
            if self.structured and prompt.form:
                body["response_format"] = read.wrapping(prompt.form)
                body[_most(path)] = most_tokens + ENVELOPE_TOKENS
        answers = self.calls.ask(path, bodies)
        return [self._completion(p, choice) for p, choice in zip(prompts, answers, strict=True)]

    def shorten(self, texts: Sequence[str], most_tokens: int, side: Side = "end") -> list[str]:
        """Texts cut to so many tokens; without a tokenizer, of four characters, between words."""
        if self.tokenizer is not None:
            return self.renderer.shorten(texts, most_tokens, side)
        return [cut(text, most_tokens, side) for text in texts]

    def _requests(self, prompts: Sequence[Prompt], most_tokens: int) -> tuple[str, list[Json]]:
        if self.tokenizer is not None:
            rows = self.renderer.tokens([self._text(p) for p in prompts], most_tokens)
            more = {"max_tokens": most_tokens}
            return COMPLETIONS, [self._body() | more | {"prompt": row} for row in rows]
        path = CHAT if self.api == "chat" else COMPLETIONS
        return path, [self._request(path, prompt, most_tokens) for prompt in prompts]

    def _request(self, path: str, prompt: Prompt, most_tokens: int) -> Json:
        body = self._body() | {_most(path): most_tokens}
        if path == COMPLETIONS:
            return body | {"prompt": as_text(prompt)}
        turns = [{"role": "system", "content": prompt.system}] if prompt.system else []
        turns.append({"role": "user", "content": prompt.user})
        if prompt.start:  # vLLM's and llama.cpp's way to let a model go on from words of ours
            turns.append({"role": "assistant", "content": prompt.start})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body | {"messages": turns}

    def _body(self) -> Json:
        return {"model": self.name, "temperature": 0}

    def _text(self, prompt: Prompt) -> str:
        return as_text(prompt) if self.tokenizer is None else self.renderer.render(prompt)

    def _first_words(
        self, prompts: Sequence[Prompt], options: Sequence[str]
    ) -> list[tuple[str, str]] | None:
        """What the options' first tokens look like, if that is known; see `spelt`."""
        if self.tokenizer is None or not prompts:
            return None
        tokens = self.renderer.first_tokens(self._text(prompts[0]), options)
        return [spelt(self.renderer.tokenizer, token) for token in tokens]

    def _before_answer(self, path: str, prompt: Prompt) -> str:
        """A space, or nothing where a chat's format ends a line."""
        return glue(prompt.start if path == CHAT else as_text(prompt))

    def _completion(self, prompt: Prompt, choice: Json | None) -> Completion:
        if choice is None or read.is_refusal(choice):
            return Completion("", "failed")
        text, broken = read.text_of(choice) or "", choice.get("finish_reason") == "length"
        if self.structured and prompt.form:
            inside = read.unwrapped(text)
            text, broken = (text, True) if inside is None else (inside, False)
        elif prompt.start and "message" in choice:
            text = text.removeprefix(prompt.start)  # some servers repeat what they were given
        return Completion(text, "cut off" if broken else "ok")


def _most(path: str) -> str:
    return "max_completion_tokens" if path == CHAT else "max_tokens"


def _needs_logprobs(choice: Json) -> None:
    if read.likeliest(choice) is None:
        raise InputError(NO_LOGPROBS[0], remedy=NO_LOGPROBS[1])


def _needs_echo(choice: Json) -> None:
    if read.echoed(choice) is None:
        problem, remedy = NO_ECHO if choice.get("logprobs") else NO_LOGPROBS
        raise InputError(problem, remedy=remedy)
