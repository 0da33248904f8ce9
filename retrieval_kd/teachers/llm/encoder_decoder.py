"""An encoder–decoder in this process, such as monoT5; the encoder reads the prompt.

Prompts share no computation, since the encoder reads them in both directions; they are batched by
length. Decoders are in `decoder.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from retrieval_kd.teachers.llm.decoder import InProcess, check_finite, greedy
from retrieval_kd.teachers.llm.prefix_cache import padded
from retrieval_kd.teachers.llm.protocol import Completion, Prompt
from retrieval_kd.teachers.llm.rendering import check_distinct, check_not_empty


class Seq2SeqModel(InProcess):
    """A T5-style encoder–decoder. A prompt's `start` is the beginning of the decoder's answer."""

    on_cpu = 8_192

    @torch.inference_mode()
    def options(self, prompts: Sequence[Prompt], options: Sequence[str]) -> np.ndarray:
        """As in `LanguageModel`."""
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
        """As in `LanguageModel`."""
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
                    results[rows[place]], tokens = self.completion(answer, [end])
                    written += tokens
        self.usage.add(sources, written, started)
        return results

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
        plain = self.renderer.plain
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
