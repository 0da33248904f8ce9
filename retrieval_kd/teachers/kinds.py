"""The kinds of teachers: one table of their options and of the functions that open them.

A new kind is a file with its teacher and an entry of `KINDS`. Opening functions import model
libraries when they are called; importing this file imports none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.query_files import read_queries
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.schema import Part
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import ComparingTeacher
from retrieval_kd.teachers.comparing.listwise import ListwiseOptions, ListwiseTeacher
from retrieval_kd.teachers.comparing.pairwise import PairwiseOptions, PairwiseTeacher
from retrieval_kd.teachers.comparing.set_prompts import PAIR_TEMPLATES, list_templates
from retrieval_kd.teachers.hosted.embeddings import EmbeddingOptions, EmbeddingTeacher
from retrieval_kd.teachers.hosted.options import HostedOptions
from retrieval_kd.teachers.hosted.rerank import RerankOptions, RerankTeacher
from retrieval_kd.teachers.llm.prompts import Template
from retrieval_kd.teachers.llm.protocol import LanguageModel
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.options import (
    CrossEncoderOptions,
    NoOptions,
    PassageOptions,
    teacher_arguments,
)
from retrieval_kd.teachers.pointwise import yes_no
from retrieval_kd.teachers.pointwise.likelihood import (
    LikelihoodOptions,
    LikelihoodTeacher,
    templates_for,
)
from retrieval_kd.teachers.pointwise.yes_no import YesNoOptions, YesNoTeacher

if TYPE_CHECKING:
    import torch

OpenModel = Callable[[str], LanguageModel]
OpenCalls = Callable[[], Calls]


@runtime_checkable
class PointwiseTeacher(Protocol):
    """A teacher that scores pairs of a query and a document."""

    @property
    def key(self) -> TeacherKey: ...

    def score(self, queries: Sequence[str], documents: Sequence[Document]) -> np.ndarray:
        """Raw scores (n,) of n pairs; a masked array where some calls failed."""
        ...


Teacher = PointwiseTeacher | ComparingTeacher
LanguageModelTeacher = YesNoTeacher | LikelihoodTeacher | PairwiseTeacher | ListwiseTeacher
HostedTeacher = EmbeddingTeacher | RerankTeacher


@dataclass(frozen=True)
class Context:
    """What a teacher may need besides its model and options.

    Args:
        collection: the documents to score.
        max_length: tokens of query and document together.
        open_model: opens a language model, for instance on a server; by default in this process.
        open_calls: opens the calls of a server, for teachers that exist only there.
    """

    collection: Collection
    max_length: int | None = None
    open_model: OpenModel | None = None
    open_calls: OpenCalls | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of teacher.

    Args:
        options: the model of its options.
        open: opens a teacher from its model's name, its options and a context.
        needs_model: whether a model is named, as in `KIND:MODEL`.
        templates: of a language model, which may run on a server: the prompt templates that its
            option `prompt` may name.
        compares: whether it compares documents by a strategy (`options.strategy()`), instead of
            scoring them one by one.
    """

    options: type[Part]
    open: Callable[[str, Any, Context], Teacher]
    needs_model: bool = True
    templates: Callable[[Any], Sequence[Template]] | None = None
    compares: bool = False

    @property
    def is_language_model(self) -> bool:
        return self.templates is not None

    @property
    def is_hosted(self) -> bool:
        """Whether it exists on a server only."""
        return issubclass(self.options, HostedOptions)

    @property
    def may_be_served(self) -> bool:
        """Whether a server can run it."""
        return self.is_language_model or self.is_hosted


def _open_cross_encoder(model: str, options: CrossEncoderOptions, context: Context) -> Teacher:
    from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher

    return CrossEncoderTeacher(
        model,
        max_length=options.max_length or context.max_length,
        prompt=options.prompt,
        layers=options.layers,
        backend=options.backend,
    )


def open_yes_no(
    model: str,
    options: YesNoOptions,
    open_model: OpenModel | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> YesNoTeacher:
    """Open a yes/no teacher. A model trained by this package keeps the settings of its training
    where `options` leaves them out.

    Args:
        dtype: precision of a model in this process; by default the machine's fast one.
    """
    saved = {} if open_model else yes_no.read_settings(model)
    defaults = teacher_arguments(options)
    explicit = {name: defaults[name] for name in defaults if name in options.model_fields_set}
    opened = open_language_model(model, options, open_model, dtype)
    return YesNoTeacher(opened, **{**defaults, **saved, **explicit})


def _open_likelihood(model: str, options: LikelihoodOptions, context: Context) -> Teacher:
    opened = open_language_model(model, options, context.open_model)
    arguments = teacher_arguments(options)
    if options.answers:
        arguments["answers"] = read_answers(context.collection, options.answers)
    return LikelihoodTeacher(opened, **arguments)


def _open_comparing(
    teacher: Callable[..., ComparingTeacher], model: str, options: PassageOptions, context: Context
) -> Teacher:
    return teacher(open_language_model(model, options, context.open_model), options)


def _open_bm25(name: str, options: NoOptions, context: Context) -> Teacher:
    from retrieval_kd.teachers.pointwise.retrievers import BM25Teacher

    return BM25Teacher(context.collection, lucene=name == "bm25-lucene")


def _open_dense(model: str, options: NoOptions, context: Context) -> Teacher:
    from retrieval_kd.teachers.pointwise.retrievers import DenseTeacher

    return DenseTeacher(context.collection, model, max_length=context.max_length)


def _open_retriever(kind: str, model: str, options: NoOptions, context: Context) -> Teacher:
    from retrieval_kd.teachers.pointwise.retrievers import RetrieverTeacher

    return RetrieverTeacher(kind, model, max_length=context.max_length)


def _open_hosted(
    teacher: Callable[..., HostedTeacher], model: str, options: HostedOptions, context: Context
) -> Teacher:
    if context.open_calls is None:
        raise need_server(model)
    return teacher(model, options, context.open_calls)


def need_server(spec: str) -> InputError:
    """The error where a teacher that exists on a server only has none."""
    return InputError(
        "this teacher is on a server, and none is named",
        id=spec,
        remedy="give its address with --server URL, or as teacher.server in a configuration",
    )


KINDS: dict[str, Kind] = {
    "pointwise": Kind(CrossEncoderOptions, _open_cross_encoder),
    "yesno": Kind(
        YesNoOptions,
        lambda model, options, context: open_yes_no(model, options, context.open_model),
        templates=lambda options: yes_no.TEMPLATES,
    ),
    "likelihood": Kind(
        LikelihoodOptions,
        _open_likelihood,
        templates=lambda options: templates_for(options.answers),
    ),
    "pairwise": Kind(
        PairwiseOptions,
        partial(_open_comparing, PairwiseTeacher),
        templates=lambda options: PAIR_TEMPLATES,
        compares=True,
    ),
    "listwise": Kind(
        ListwiseOptions,
        partial(_open_comparing, ListwiseTeacher),
        templates=lambda options: list_templates(options.how, options.answer),
        compares=True,
    ),
    "rerank": Kind(RerankOptions, partial(_open_hosted, RerankTeacher)),
    "dense": Kind(NoOptions, _open_dense),
    "dense:server": Kind(EmbeddingOptions, partial(_open_hosted, EmbeddingTeacher)),
    "sparse": Kind(NoOptions, partial(_open_retriever, "sparse")),
    "multi_vector": Kind(NoOptions, partial(_open_retriever, "multi_vector")),
    "bm25": Kind(NoOptions, _open_bm25, needs_model=False),
    "bm25-lucene": Kind(NoOptions, _open_bm25, needs_model=False),
}
WITH_MODEL = tuple(name for name, kind in KINDS.items() if kind.needs_model)
WITHOUT_MODEL = tuple(name for name, kind in KINDS.items() if not kind.needs_model)


def open_language_model(
    name: str,
    options: PassageOptions,
    open_model: OpenModel | None = None,
    dtype: torch.dtype | None = None,
) -> LanguageModel:
    """Open the language model of a teacher with `open_model`, or in this process.

    Raises:
        InputError: the model cannot answer from the layer that `options` names.
    """
    if open_model is not None:
        if options.layers is not None:
            raise InputError(
                "a server answers from its model's last layer",
                id=name,
                remedy="leave ?layers= out, or run the model here",
            )
        return open_model(name)
    from retrieval_kd.models.load import is_encoder_decoder
    from retrieval_kd.teachers.llm.decoder import LocalModel
    from retrieval_kd.teachers.llm.encoder_decoder import Seq2SeqModel

    if not is_encoder_decoder(name):
        return LocalModel(name, dtype=dtype, layers=options.layers)
    if options.layers is not None:
        raise InputError(
            "an encoder–decoder answers from all its layers", id=name, remedy="leave ?layers= out"
        )
    return Seq2SeqModel(name, dtype=dtype)


def read_answers(collection: Collection, file: str) -> dict[str, str]:
    """Read a file of answers by query ID (JSONL or TSV), as query text → answer.

    Raises:
        InputError: an ID is not a query of the collection, or queries of one text have two answers.
    """
    answers: dict[str, str] = {}
    for id, answer in read_queries(file).items():
        query = collection.queries[id].full
        if answers.setdefault(query, answer) != answer:
            raise InputError(
                f"two answers to the same query {query!r}", file=file, id=id, remedy="keep one"
            )
    return answers
