"""Trains decoders as yes/no re-rankers: LoRA adapters, or all weights.

The score that is trained is the one that `teachers/pointwise/yes_no.py` stores: the log-odds of the
two answers after the same prompt. Slates and objectives are those of cross-encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.models import lora as adapters
from retrieval_kd.models.load import is_encoder_decoder, resolve_model
from retrieval_kd.models.lora import Lora
from retrieval_kd.teachers.kinds import open_yes_no
from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.pointwise.yes_no import YesNoOptions, YesNoTeacher, save_settings
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.train_cross_encoder import check_for_cross_encoder, train_on_pairs
from retrieval_kd.training.trainer.checkpoints import RECORD, check_replaceable, finished

TRAINED = "trained.safetensors"  # file of a checkpoint with the trained weights only


def train_yes_no(
    spec: str, job: TrainingJob, *, lora: Lora | None = None, max_length: int | None = None
) -> dict[str, Any]:
    """Train a decoder on slates and save it in `job.out`.

    `yesno:OUT` opens the result and scores with the prompt that it was trained with. With `lora`
    the folder holds the adapters only, otherwise the whole model. A stopped training is resumed and
    a finished one is not run again, as in `train_student`.

    Args:
        job: its `student` is set here. `settings.max_tokens` is ignored: the spec says how long a
            passage and a query may be, so that training and scoring read the same text.
        max_length: maximum number of tokens of a passage, if the spec does not give one.

    Returns:
        The content of `out/training.json`.

    Raises:
        InputError: peft is not installed, the model is not a decoder, or an objective cannot be
            applied to its logits.
    """
    if lora is not None:
        adapters.need_peft()
    check_for_cross_encoder(job)
    for term in job.terms:
        if term.kind != "scores":
            raise InputError(
                f"{term.name} compares states with an encoder's; a decoder has none to compare",
                remedy="use an objective on scores, such as kl or infonce",
            )
    dtype = fast_dtype() if lora is not None else torch.float32  # trained weights are float32
    teacher = open_base(spec, dtype, max_length)
    facts = {
        "base": teacher.model.digest,
        "asked": [teacher.key.prompt, teacher.passage_tokens],
        "lora": lora and lora.model_dump(),
    }
    settings = job.settings.model_copy(update={"max_tokens": teacher.passage_tokens})
    start = ["yes/no", facts, dtype_name(dtype)]
    job = replace(job, settings=settings, start=start, dev=None, live={})
    if finished(job.out, job.identity):  # before the model is loaded
        return read_json(job.out / RECORD)
    check_replaceable(job.out)
    model = YesNoModel(teacher, lora, dropout=settings.dropout, seed=settings.seed)
    return train_on_pairs(
        replace(job, student=model), YesNoTrainer, lambda: {**facts, **model.size()}
    )


def open_base(spec: str, dtype: torch.dtype, max_length: int | None = None) -> YesNoTeacher:
    """Open the teacher that the training starts from, without loading its model."""
    base = parse_spec(spec)
    if base.kind != "yesno":
        raise InputError(f"{spec} is not a yes/no teacher", remedy="write yesno:MODEL")
    if "layers" in base.options:
        problem = "a re-ranker is trained with all its layers"
        raise InputError(problem, id=base.model, remedy="leave ?layers= out")
    if adapters.base_of(resolve_model(base.model).location) is not None:
        raise InputError(
            "this is an adapter already",
            id=base.model,
            remedy="write it and its base as one model with `rkd merge`, and start from that",
        )
    if is_encoder_decoder(base.model):
        raise InputError(
            "encoder–decoders can score, but cannot be trained",
            id=base.model,
            remedy="give a decoder",
        )
    if max_length is not None:
        base.options.setdefault("passage_tokens", str(max_length))
    return open_yes_no(base.model, base.validated(YesNoOptions), dtype=dtype)


class YesNoModel(nn.Module):
    """A decoder as a trainable model that returns the log-odds of its two answers.

    Args:
        teacher: the teacher to train. Its model is loaded here, and its prompts are used.
    """

    def __init__(
        self, teacher: YesNoTeacher, lora: Lora | None = None, *, dropout: float = 0, seed: int = 0
    ) -> None:
        super().__init__()
        assert isinstance(teacher.model, LocalModel)
        self.teacher, self.lora = teacher, lora
        self.max_seq_length = teacher.passage_tokens
        self.reader: LocalModel = teacher.model
        torch.manual_seed(seed)
        model: Any = self.reader.model
        if lora is not None:
            ref = resolve_model(self.reader.name)
            model = adapters.add_adapters(model, lora, dropout, ref.location, ref.revision)
        self.language_model = model

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def preprocess(self, pairs: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Tokenise n pairs (query, document text) as (n, L), and the two answers as (2,).

        Padding is on the left, so that all prompts end in the last column.
        """
        renderer = self.reader.renderer
        prompts = self.teacher.prompts([q for q, _ in pairs], [text for _, text in pairs])
        texts = [renderer.render(prompt) for prompt in prompts]
        sequences = renderer.tokens(texts)
        longest = max(map(len, sequences))
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask, places = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            start = longest - len(sequence)
            ids[row, start:] = torch.tensor(sequence)
            mask[row, start:] = 1
            places[row, start:] = torch.arange(len(sequence))
        words = torch.tensor(renderer.first_tokens(texts[0], self.teacher.template.answers))
        return {"input_ids": ids, "attention_mask": mask, "position_ids": places, "answers": words}

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `scores` (n,): log p(yes) − log p(no). The softmax's denominator cancels out."""
        read = {name: value for name, value in features.items() if name != "answers"}
        output = self.language_model(**read, use_cache=False, logits_to_keep=1)
        yes, no = output.logits[:, -1].float()[:, features["answers"]].unbind(-1)  # (n,) each
        return {"scores": yes - no}

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained weights by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def size(self) -> dict[str, int]:
        """Number of weights, and of trained weights."""
        trained = sum(p.numel() for p in self.trained().values())
        return {"parameters": sum(p.numel() for p in self.parameters()), "trained": trained}

    def save(self, folder: str, **_: Any) -> None:
        """Save a folder that `yesno:FOLDER` opens: a peft adapter, or a transformers model."""
        if self.lora is not None:
            reader = self.reader
            adapters.save_adapters(self.language_model, folder, reader.name, reader.digest)
        else:
            self.language_model.save_pretrained(folder, safe_serialization=True)
            self.reader.tokenizer.save_pretrained(folder)
        save_settings(self.teacher, folder)

    def save_pretrained(self, folder: str, **_: Any) -> None:
        """Save a checkpoint, which the trainer calls for: the trained weights only."""
        kept = {name: p.detach().contiguous() for name, p in self.trained().items()}
        save_file(kept, Path(folder) / TRAINED)

    @torch.no_grad()
    def load_trained(self, folder: str) -> None:
        """Load the weights of a checkpoint."""
        kept = load_file(Path(folder) / TRAINED)
        for name, parameter in self.trained().items():
            parameter.copy_(kept[name])


class YesNoTrainer(CrossEncoderTrainer):
    """Sentence Transformers' trainer for a model that is not one of its own classes."""

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        trained: Any = self.model
        trained.load_trained(resume_from_checkpoint)
