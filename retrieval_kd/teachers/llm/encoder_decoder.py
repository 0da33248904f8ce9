"""An encoder–decoder in this process, such as monoT5; the encoder reads the prompt.

Prompts share no computation, since the encoder reads them in both directions; they are batched by
length. Decoders are in `decoder.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.models.load import load_language_model, model_digest
from retrieval_kd.store.usage import Usage
from retrieval_kd.teachers.llm.decoder import check_finite, greedy
from retrieval_kd.teachers.llm.prefix_cache import padded
from retrieval_kd.teachers.llm.protocol import Completion, Prompt, Side
from retrieval_kd.teachers.llm.rendering import Renderer, check_distinct, check_not_empty


class Seq2SeqModel:
    """A `LanguageModel` that is a T5-style encoder–decoder. It is loaded at the first call.

    A prompt's `start` is the beginning of the decoder's answer.

    Args:
        spec: folder or hub name.
        dtype: float32 or bfloat16; by default the machine's fast one.
        batch_tokens: rows × tokens of a batch, padding included.
    """

    def __init__(
        self, spec: str, *, dtype: torch.dtype | None = None, batch_tokens: int | None = None
    ) -> None:
        self.name, self.digest = spec, model_digest(spec)
        self._dtype = dtype or fast_dtype()
        self.dtype = dtype_name(self._dtype)
        self.batch_tokens = batch_tokens or (65_536 if torch.cuda.is_available() else 8_192)
        self.usage = Usage()

    @cached_property
    def _loaded(self) -> tuple[Any, Renderer]:
        model, tokenizer = load_language_model(self.name, dtype=self._dtype)
        return model, Renderer(tokenizer, None, self.name)  # T5's positions are relative

    @property
    def model(self) -> Any:
        return self._loaded[0]

    @property
    def tokenizer(self) -> Any:
        return self._loaded[1].tokenizer

    @torch.inference_mode()
    def options(self, prompts: Sequence[Prompt], options: Sequence[str]) -> np.ndarray:
        """As in `LanguageModel`.

        Raises:
            InputError: two options begin with the same token.
        """
        started, sources = time.monotonic(), self._sources(prompts)
        results = np.empty((len(prompts), len(options)), dtype=np.float32)
        first = [self._tokens(option)[0] for option in options]
        check_distinct(first, options, self.name)
        for rows, words in self._logs(sources, prompts, [[] for _ in prompts]):
            last = [len(self._decoder_prefix(prompts[row])) - 1 for row in rows]
            results[rows] = words[torch.arange(len(rows)), last][:, first].cpu().numpy()
        check_finite(self.name, results)
        self.usage.add(sources, len(prompts), started)
        return results

    @torch.inference_mode()
    def likelihoods(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[np.ndarray]:
        """As in `LanguageModel`.

        Raises:
            InputError: a continuation is empty.
        """
        started, sources = time.monotonic(), self._sources(prompts)
        wanted = [self._tokens(continuation) for continuation in continuations]
        results: list[np.ndarray] = [np.zeros(0, np.float32)] * len(prompts)
        for rows, words in self._logs(sources, prompts, wanted):
            for number, row in enumerate(rows):
                start = len(self._decoder_prefix(prompts[row])) - 1
                target = torch.tensor(wanted[row], device=words.device)
                logs = words[number, start : start + len(target)]  # (tokens, V)
                results[row] = logs.gather(1, target[:, None])[:, 0].cpu().numpy()
        check_finite(self.name, *results)
        self.usage.add(sources, 0, started)
        return results

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> list[Completion]:
        started, sources = time.monotonic(), self._sources(prompts)
        results: list[Completion] = [Completion("", "failed")] * len(prompts)
        end, written = self.tokenizer.eos_token_id, 0
        start = self.model.config.decoder_start_token_id
        how = greedy(most_tokens, end, self.tokenizer.pad_token_id, decoder_start_token_id=start)
        for rows, ids, mask in self._batches(sources, most_tokens):
            for begun in {tuple(self._decoder_prefix(prompts[row])) for row in rows}:
                alike = [
                    i
                    for i, r in enumerate(rows)
                    if tuple(self._decoder_prefix(prompts[r])) == begun
                ]
                answers = self.model.generate(
                    input_ids=ids[alike],
                    attention_mask=mask[alike],
                    decoder_input_ids=torch.tensor([begun] * len(alike), device=ids.device),
                    generation_config=how,
                )[:, len(begun) :]
                for place, answer in zip(alike, answers.tolist(), strict=True):
                    stop = answer.index(end) if end in answer else None
                    text = self.tokenizer.decode(answer[:stop], skip_special_tokens=True)
                    results[rows[place]] = Completion(text, "cut off" if stop is None else "ok")
                    written += len(answer) if stop is None else stop + 1
        self.usage.add(sources, written, started)
        return results

    def shorten(self, texts: Sequence[str], most_tokens: int, side: Side = "end") -> list[str]:
        return self._loaded[1].shorten(texts, most_tokens, side)

    def _tokens(self, text: str) -> list[int]:
        """An answer's tokens, without an end token."""
        check_not_empty([text])
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _decoder_prefix(self, prompt: Prompt) -> list[int]:
        """The decoder's tokens before the answer."""
        start = int(self.model.config.decoder_start_token_id)
        return [start, *self._tokens(prompt.start)] if prompt.start.strip() else [start]

    def _sources(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        if not prompts:
            return []
        plain = self._loaded[1].plain
        texts = ["\n".join(plain(t) for t in (p.system, p.user) if t) for p in prompts]
        return [list(ids) for ids in self.tokenizer(texts, verbose=False)["input_ids"]]

    def _batches(
        self, sources: Sequence[Sequence[int]], answer_tokens: int
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Batches of rows, longest first, with their tokens (rows, L) and mask."""
        order = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
        while order:
            longest = len(sources[order[0]])
            size = max(1, self.batch_tokens // (longest + answer_tokens))
            rows, order = order[:size], order[size:]
            yield rows, *padded([sources[row] for row in rows], self.model.device)

    def _logs(
        self,
        sources: Sequence[Sequence[int]],
        prompts: Sequence[Prompt],
        wanted: Sequence[Sequence[int]],
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of rows, with log-probabilities (rows, T, V) at each of the decoder's tokens."""
        most = max((len(tokens) for tokens in wanted), default=0) + 1
        for rows, ids, mask in self._batches(sources, most):
            tokens = [[*self._decoder_prefix(prompts[row]), *wanted[row]] for row in rows]
            decoder, _ = padded(tokens, self.model.device)
            output = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder)
            yield rows, output.logits.float().log_softmax(dim=-1)  # (rows, T, V)
