"""A language model in this process, run with transformers, and the kind that is a decoder.

`rendering.py` turns prompts into tokens, `prefix_cache.py` batches them and computes shared
beginnings once. Encoder–decoders are in `encoder_decoder.py`.
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.models.layers import check_exit
from retrieval_kd.models.load import load_language_model, model_digest
from retrieval_kd.store.usage import Usage
from retrieval_kd.teachers.llm.prefix_cache import last_logits
from retrieval_kd.teachers.llm.protocol import Completion, Prompt, Side
from retrieval_kd.teachers.llm.rendering import Renderer


class InProcess:
    """A `LanguageModel` in this process.

    It is loaded at the first call, so nothing is loaded where all answers are stored.

    Args:
        spec: folder or hub name.
        dtype: float32 or bfloat16; by default the machine's fast one.
        batch_tokens: rows × tokens of a batch, padding included; by default 65,536 on a GPU, and
            elsewhere `on_cpu`.
    """

    on_cpu: ClassVar[int]

    def __init__(
        self, spec: str, *, dtype: torch.dtype | None = None, batch_tokens: int | None = None
    ) -> None:
        self.name, self.digest = spec, model_digest(spec)
        self._dtype = dtype or fast_dtype()
        self.dtype = dtype_name(self._dtype)
        self.batch_tokens = batch_tokens or (65_536 if torch.cuda.is_available() else self.on_cpu)
        self.usage = Usage()

    @cached_property
    def _loaded(self) -> tuple[Any, Renderer]:
        model, tokenizer = load_language_model(self.name, dtype=self._dtype)
        # T5's configuration names none: its positions are relative
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        return model, Renderer(tokenizer, positions, self.name)

    @property
    def model(self) -> Any:
        return self._loaded[0]

    @property
    def renderer(self) -> Renderer:
        return self._loaded[1]

    @property
    def tokenizer(self) -> Any:
        return self.renderer.tokenizer

    def shorten(self, texts: Sequence[str], most_tokens: int, side: Side = "end") -> list[str]:
        return self.renderer.shorten(texts, most_tokens, side)

    def completion(self, answer: Sequence[int], ends: Container[int]) -> tuple[Completion, int]:
        """Return a generated answer without its end token, and how many tokens were written."""
        end = next((i for i, token in enumerate(answer) if token in ends), None)
        text = self.tokenizer.decode(answer[:end], skip_special_tokens=True)
        written = len(answer) if end is None else end + 1
        return Completion(text, "cut off" if end is None else "ok"), written


class LocalModel(InProcess):
    """A Llama-style decoder.

    Args:
        spec, dtype, batch_tokens: see `InProcess`.
        share_prefixes: whether to compute the common beginning of prompts only once.
        layers: answer from this layer, with the model's final norm and output layer, as models
            trained for early exit allow (LayerSkip, Elhoushi et al. 2024, section 4.2,
            https://arxiv.org/abs/2404.16710); the layers above are not computed.
    """

    on_cpu = 2_048  # larger activations do not fit the processor's cache

    def __init__(
        self, spec: str, *, share_prefixes: bool = True, layers: int | None = None, **more: Any
    ) -> None:
        super().__init__(spec, **more)
        self.layers, self.share_prefixes = layers, share_prefixes
        if layers is not None:
            self.digest = digest_text(self.digest, f"layers {layers}")

    @cached_property
    def _loaded(self) -> tuple[Any, Renderer]:
        model, renderer = super()._loaded
        if self.layers is not None:
            _exit_at(model, self.layers, self.name)
        return model, renderer

    @torch.inference_mode()
    def options(self, prompts: Sequence[Prompt], options: Sequence[str]) -> np.ndarray:
        """As in `LanguageModel`."""
        started = time.monotonic()
        results = np.empty((len(prompts), len(options)), dtype=np.float32)
        if not prompts:
            return results
        texts = [self.renderer.render(prompt) for prompt in prompts]
        sequences = self.renderer.tokens(texts)
        first = self.renderer.first_tokens(texts[0], options)
        for rows, logits in self._logits(sequences, [1] * len(sequences)):
            words = logits[:, -1].log_softmax(dim=-1)  # (rows, V)
            results[rows] = words[:, torch.tensor(first, device=words.device)].cpu().numpy()
        check_finite(self.name, results)
        self.usage.add(sequences, len(sequences), started)
        return results

    @torch.inference_mode()
    def likelihoods(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[np.ndarray]:
        """As in `LanguageModel`."""
        started = time.monotonic()
        texts = [self.renderer.render(prompt) for prompt in prompts]
        sequences, lengths = self.renderer.continued(texts, continuations)
        results: list[np.ndarray] = [np.zeros(0, np.float32)] * len(sequences)
        # the prediction after the last token is not needed
        for rows, logits in self._logits([sequence[:-1] for sequence in sequences], lengths):
            kept = logits.shape[1]
            for number, row in enumerate(rows):
                target = torch.tensor(sequences[row][-lengths[row] :], device=logits.device)
                words = logits[number, kept - lengths[row] :].log_softmax(dim=-1)  # (tokens, V)
                results[row] = words.gather(1, target[:, None])[:, 0].cpu().numpy()
        check_finite(self.name, *results)
        self.usage.add(sequences, 0, started)
        return results

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> list[Completion]:
        """Greedy answers of at most `most_tokens` tokens, without end-of-turn tokens."""
        started = time.monotonic()
        texts = [self.renderer.render(prompt) for prompt in prompts]
        sequences = self.renderer.tokens(texts, most_tokens)
        order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
        results: list[Completion] = [Completion("", "failed")] * len(sequences)
        written = 0
        while order:
            size = max(1, self.batch_tokens // (len(sequences[order[0]]) + most_tokens))
            rows, order = order[:size], order[size:]
            answers = self._answers([sequences[row] for row in rows], most_tokens)
            for row, answer in zip(rows, answers.tolist(), strict=True):
                results[row], tokens = self.completion(answer, self._ends)
                written += tokens
        self.usage.add(sequences, written, started)
        return results

    @cached_property
    def _ends(self) -> set[int]:
        """Tokens that end an answer."""
        declared = self.model.generation_config.eos_token_id
        ends = {*declared} if isinstance(declared, list) else {declared}
        return {int(end) for end in (*ends, self.tokenizer.eos_token_id) if end is not None}

    def _logits(self, sequences: Sequence[Sequence[int]], keep: Sequence[int]) -> Any:
        return last_logits(
            self.model,
            sequences,
            keep,
            batch_tokens=self.batch_tokens,
            share=self.share_prefixes,
        )

    def _answers(self, sequences: Sequence[Sequence[int]], most_tokens: int) -> Tensor:
        """Generate tokens after each sequence, (rows, at most `most_tokens`)."""
        longest, device = max(map(len, sequences)), self.model.device
        pad = self.tokenizer.pad_token_id
        pad = min(self._ends) if pad is None else pad
        ids = torch.full((len(sequences), longest), pad)
        mask = torch.zeros_like(ids)
        for number, sequence in enumerate(sequences):
            ids[number, longest - len(sequence) :] = torch.tensor(sequence)
            mask[number, longest - len(sequence) :] = 1
        written = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=greedy(most_tokens, sorted(self._ends), pad),
        )
        return written[:, longest:]


def greedy(most_tokens: int, ends: int | list[int], pad: int, **more: Any) -> GenerationConfig:
    """Greedy decoding, whatever the model's own generation configuration says."""
    return GenerationConfig(
        max_new_tokens=most_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=ends,
        pad_token_id=pad,
        **more,
    )


def check_finite(name: str, *results: np.ndarray) -> None:
    """Raise InputError if a log-probability is NaN or infinite."""
    if not all(np.isfinite(values).all() for values in results):
        raise InputError(
            "the model gave probabilities that are not finite",
            id=name,
            remedy="try RETRIEVAL_KD_DTYPE=float32, and check the model's weights for NaN",
        )


def _exit_at(model: Any, layers: int, spec: str) -> None:
    """Drop the layers above; the final norm and the output layer read the last one left."""
    body = model.base_model
    stack = getattr(body, "layers", None)
    if stack is None:
        raise InputError("cannot find this model's layers", id=spec, remedy="leave ?layers= out")
    check_exit(layers, len(stack), spec)
    body.layers = stack[:layers]
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]
