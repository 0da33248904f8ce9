"""From a teacher's name to a teacher. What names look like is in `spec.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.query_files import read_queries
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.models.load import is_encoder_decoder
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import ComparingTeacher, Strategy
from retrieval_kd.teachers.comparing.listwise import ListwiseOptions, ListwiseTeacher
from retrieval_kd.teachers.comparing.pairwise import PairwiseOptions, PairwiseTeacher
from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.llm.encoder_decoder import Seq2SeqModel
from retrieval_kd.teachers.llm.protocol import LanguageModel
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher
from retrieval_kd.teachers.pointwise.likelihood import LikelihoodTeacher
from retrieval_kd.teachers.pointwise.retrievers import BM25Teacher, DenseTeacher, RetrieverTeacher
from retrieval_kd.teachers.pointwise.yes_no import YesNoTeacher, read_told
from retrieval_kd.teachers.spec import (
    CrossEncoderOptions,
    LikelihoodOptions,
    NoOptions,
    PassageOptions,
    TeacherSpec,
    YesNoOptions,
    own_options,
    parse_spec,
)

OpenModel = Callable[[str], LanguageModel]


@runtime_checkable
class Teacher(Protocol):
    """What scoring needs of a pointwise teacher."""

    @property
    def key(self) -> TeacherKey: ...

    def score(self, queries: Sequence[str], documents: Sequence[Document]) -> np.ndarray:
        """Raw scores (n,) of n pairs; a masked array where some were not answered."""
        ...


def open_teacher(
    spec: str,
    collection: Collection,
    *,
    max_length: int | None = None,
    language_model: OpenModel | None = None,
) -> Teacher | ComparingTeacher:
    """The teacher that a spec names: `[KIND:]MODEL[?option=value&…]`, or `bm25`.

    Args:
        collection: whose documents are scored; BM25's scores depend on all of them.
        max_length: tokens of query and document together, for a language model of a passage; an
            option of the spec says it for one teacher.
        language_model: opens the model of a language model's teacher, for instance on a server; by
            default it runs here.

    Raises:
        InputError: the kind, an option or the model is not there.
    """
    asked = parse_spec(spec)
    if asked.kind in ("bm25", "bm25-lucene"):
        asked.checked(NoOptions)
        return BM25Teacher(collection, lucene=asked.kind == "bm25-lucene")
    if asked.kind == "dense":
        asked.checked(NoOptions)
        return DenseTeacher(collection, asked.model, max_length=max_length)
    if asked.kind in ("sparse", "multi_vector"):
        asked.checked(NoOptions)
        return RetrieverTeacher(asked.kind, asked.model, max_length=max_length)
    if asked.kind == "pointwise":
        options = asked.checked(CrossEncoderOptions)
        return CrossEncoderTeacher(
            asked.model,
            max_length=options.max_length or max_length,
            prompt=options.prompt,
            layers=options.layers,
        )
    if max_length is not None:
        asked.options.setdefault("passage_tokens", str(max_length))
    if asked.kind == "yesno":
        return open_yes_no(asked, language_model)
    if asked.kind == "pairwise":
        pairwise = asked.checked(PairwiseOptions)
        return PairwiseTeacher(open_model(asked, pairwise, language_model), pairwise)
    if asked.kind == "listwise":
        listwise = asked.checked(ListwiseOptions)
        return ListwiseTeacher(open_model(asked, listwise, language_model), listwise)
    likelihood = asked.checked(LikelihoodOptions)
    told = own_options(likelihood)
    told["answers"] = likelihood.answers and answers_of(collection, likelihood.answers)
    return LikelihoodTeacher(open_model(asked, likelihood, language_model), **told)


def open_yes_no(
    asked: TeacherSpec,
    language_model: OpenModel | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> YesNoTeacher:
    """A yes/no teacher. One that was trained here is asked as in its training, unless told else.

    Args:
        dtype: of a model in this process; the machine's fast one by default.
    """
    options = asked.checked(YesNoOptions)
    model = open_model(asked, options, language_model, dtype)
    told = {} if language_model else read_told(asked.model)
    usual = own_options(options)
    given = {name: value for name, value in usual.items() if name in options.model_fields_set}
    return YesNoTeacher(model, **{**usual, **told, **given})


def strategy_in(spec: str) -> Strategy | None:
    """What a pairwise or listwise teacher would ask, its model unopened; None: scores one by one.

    Example:
        >>> strategy_in("pairwise:org/model").most_requests(10), strategy_in("yesno:org/model")
        (90, None)
    """
    asked = parse_spec(spec)
    if asked.kind == "pairwise":
        return asked.checked(PairwiseOptions).strategy()
    return asked.checked(ListwiseOptions).strategy() if asked.kind == "listwise" else None


def open_model(
    spec: TeacherSpec,
    options: PassageOptions,
    language_model: OpenModel | None = None,
    dtype: torch.dtype | None = None,
) -> LanguageModel:
    """The language model of a teacher: by `language_model`, or in this process."""
    if language_model is None:
        if not is_encoder_decoder(spec.model):
            return LocalModel(spec.model, dtype=dtype, layers=options.layers)
        if options.layers is None:
            return Seq2SeqModel(spec.model, dtype=dtype)
        raise InputError(
            "an encoder–decoder answers from all its layers",
            id=spec.model,
            remedy="leave ?layers= out",
        )
    if options.layers is not None:
        raise InputError(
            "a server answers from its model's last layer",
            id=spec.model,
            remedy="leave ?layers= out, or run the model here",
        )
    return language_model(spec.model)


def answers_of(collection: Collection, file: str) -> dict[str, str]:
    """Query text → answer, from a file of answers by query ID (JSONL or TSV).

    Raises:
        InputError: an ID is no query of the collection, or two queries of one text have two.
    """
    answers: dict[str, str] = {}
    for id, answer in read_queries(file).items():
        query = collection.queries[id].full
        if answers.setdefault(query, answer) != answer:
            raise InputError(
                f"two answers to the same query {query!r}", file=file, id=id, remedy="keep one"
            )
    return answers
