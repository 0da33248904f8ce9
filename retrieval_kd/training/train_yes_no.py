"""Training of decoders as yes/no re-rankers, by LoRA adapters or of all weights.

What is trained is the number that `teachers/yes_no.py` stores: the log-odds of the two answers
after the same prompt. Slates, objectives and resumption are those of cross-encoders (`pairs.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from torch import Tensor, nn

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_json, read_json
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.models import lora as adapters
from retrieval_kd.models.load import is_encoder_decoder, resolve_model
from retrieval_kd.models.lora import Lora
from retrieval_kd.schema import as_input_error
from retrieval_kd.teachers.kinds import open_yes_no
from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.pointwise.yes_no import YesNoOptions, YesNoTeacher, save_settings
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.training.batches.slates import Pool, digest_pools
from retrieval_kd.training.objective.term_checks import check_for_pairs, check_targets
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_cross_encoder import PairCollator, PairLoss
from retrieval_kd.training.trainer import engine
from retrieval_kd.training.trainer.checkpoints import RECORD, check_replaceable, finished
from retrieval_kd.training.trainer.settings import FIT_DEFAULTS, TrainSettings, check_uncached

TRAINED = "trained.safetensors"  # in a checkpoint: the weights that change, and no others


def fit_yes_no(
    spec: str,
    pools: Sequence[Pool],
    documents: Texts,
    out: Path,
    *,
    lora: Lora | None = None,
    settings: TrainSettings = FIT_DEFAULTS,
    terms: Sequence[Term] = (Term(name="infonce"),),
    max_length: int | None = None,
) -> dict[str, Any]:
    """Train a decoder on slates and save it in `out`; gives what `out/training.json` holds.

    `yesno:OUT` opens it, and asks as it was asked in the training. With `lora` the folder has the
    adapters alone, else the whole model. Resumed, or not run again, as every training.

    Args:
        spec: `yesno:MODEL[?option=value]`, as it would be scored with.
        pools: queries with candidates and targets, from `slates.build_pools`.
        lora: shape of the adapters; none: all weights are trained.
        settings: `max_tokens` is not looked at: how long a passage and a query may be is the spec's
            business, so that training and scoring read the same.
        max_length: tokens of a passage, where the spec does not say.

    Raises:
        InputError: peft is not installed, the model is no decoder, or an objective cannot be
            learnt by logits.
    """
    if lora is not None:
        adapters.need_peft()
    check_terms(terms, settings)
    check_targets(pools, terms)
    dtype = fast_dtype() if lora is not None else torch.float32  # what is trained is float32
    teacher = open_base(spec, dtype, max_length)
    settings = settings.model_copy(update={"max_tokens": teacher.passage_tokens})
    told = {
        "base": teacher.model.digest,
        "asked": [teacher.key.prompt, teacher.passage_tokens],
        "lora": lora and lora.model_dump(),
        "terms": [term.model_dump() for term in terms],
    }
    of_data = [digest_pools(pools), documents.digest]
    dtypes = [dtype_name(dtype), dtype_name(fast_dtype())]
    identity = digest_json(["yes/no", told, of_data, settings.model_dump(), dtypes])
    if finished(out, identity):  # asked before a big model is loaded
        return read_json(out / RECORD)
    check_replaceable(out)
    model = YesNoModel(teacher, lora, dropout=settings.dropout, seed=settings.seed)
    return engine.train(
        model,
        YesNoTrainer,
        CrossEncoderTrainingArguments,
        settings,
        out,
        identity=identity,
        schedule=engine.schedule(len(pools), settings),
        collator=PairCollator(
            preprocess_fn=model.preprocess, pools=pools, texts=documents, settings=settings
        ),
        loss=PairLoss(model, terms),
        facts=lambda: {"queries": len(pools), **told, **model.size()},
    )


def check_terms(terms: Sequence[Term], settings: TrainSettings) -> None:
    """Refuse what a language model's log-odds cannot learn.

    Raises:
        InputError: saying which.
    """
    as_input_error(check_uncached, settings.mini_batch_size)
    as_input_error(check_for_pairs, terms)
    for term in terms:
        if term.kind != "scores":
            raise InputError(
                f"{term.name} compares states with an encoder's; this model learns by its answer",
                remedy="use an objective on scores, such as kl or infonce",
            )


def open_base(spec: str, dtype: torch.dtype, max_length: int | None = None) -> YesNoTeacher:
    """The teacher that training begins from, as it is scored with; its model is not loaded yet.

    Raises:
        InputError: it is no decoder, an adapter already, or answers from a lower layer.
    """
    asked = parse_spec(spec)
    if asked.kind != "yesno":
        raise InputError(f"{spec} is no yes/no teacher", remedy="write yesno:MODEL")
    if "layers" in asked.options:
        problem = "a re-ranker is trained with all its layers"
        raise InputError(problem, id=asked.model, remedy="leave ?layers= out")
    if adapters.base_of(resolve_model(asked.model).location) is not None:
        raise InputError(
            "this is an adapter already",
            id=asked.model,
            remedy="write it and its base as one model with `rkd merge`, and start from that",
        )
    if is_encoder_decoder(asked.model):
        raise InputError(
            "encoder–decoders are scored with, not trained", id=asked.model, remedy="give a decoder"
        )
    if max_length is not None:
        asked.options.setdefault("passage_tokens", str(max_length))
    return open_yes_no(asked.model, asked.validated(YesNoOptions), dtype=dtype)


class YesNoModel(nn.Module):
    """A decoder that gives the log-odds of its two answers, as a model that the engine can train.

    Args:
        teacher: whose model is loaded here, and whose prompts it reads.
        lora: adapters to be trained instead of the model's own weights.
        dropout: of what the adapters read.
        seed: of the adapters' start.
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
        """Tokens (n, L) of pairs of a query and a document's text, and the two answers' (2,).

        Padded on the left, so that all prompts end, and answers begin, in the last column.
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
        """`scores` (n,): log p(yes) − log p(no), in which the softmax over words cancels out."""
        read = {name: value for name, value in features.items() if name != "answers"}
        output = self.language_model(**read, use_cache=False, logits_to_keep=1)
        yes, no = output.logits[:, -1].float()[:, features["answers"]].unbind(-1)  # (n,) each
        return {"scores": yes - no}

    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that training changes, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def size(self) -> dict[str, int]:
        """How many weights there are, and how many of them are trained."""
        trained = sum(p.numel() for p in self.trained().values())
        return {"parameters": sum(p.numel() for p in self.parameters()), "trained": trained}

    def save(self, folder: str, **_: Any) -> None:
        """Write what `yesno:FOLDER` opens: peft's adapter, or a transformers folder."""
        if self.lora is not None:
            reader = self.reader
            adapters.save_adapters(self.language_model, folder, reader.name, reader.digest)
        else:
            self.language_model.save_pretrained(folder, safe_serialization=True)
            self.reader.tokenizer.save_pretrained(folder)
        save_settings(self.teacher, folder)

    def save_pretrained(self, folder: str, **_: Any) -> None:
        """A checkpoint: the trained weights alone, as the trainer asks for it."""
        kept = {name: p.detach().contiguous() for name, p in self.trained().items()}
        save_file(kept, Path(folder) / TRAINED)

    @torch.no_grad()
    def load_trained(self, folder: str) -> None:
        """The weights of a checkpoint."""
        kept = load_file(Path(folder) / TRAINED)
        for name, parameter in self.trained().items():
            parameter.copy_(kept[name])


class YesNoTrainer(CrossEncoderTrainer):
    """Sentence Transformers' trainer for a model that is none of theirs."""

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        trained: Any = self.model
        trained.load_trained(resume_from_checkpoint)
