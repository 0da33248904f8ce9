"""A re-ranker on a server with the `/rerank` of Jina and Cohere, or with TEI's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from retrieval_kd.data.texts import Document
from retrieval_kd.files import digest_json
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.teachers.hosted.answers import SCORES, scores_in
from retrieval_kd.teachers.hosted.options import Cutter, HostedOptions, halves, in_batches
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.responses import Json


class RerankOptions(HostedOptions):
    """Options of `rerank`."""

    form: Literal["jina", "tei"] = Field(
        "jina",
        description="of requests: that of Jina, Cohere, vLLM and Infinity, or TEI's own",
    )
    raw_scores: bool = Field(
        False, description="ask for logits where the server would give probabilities"
    )
    prompt: str = Field("", description="text before every query")


class RerankTeacher:
    """Scores pairs as a server's re-ranker does. A document without a result has no score.

    Args:
        name: the model's name on the server.
        open_calls: opens the calls of the server; they are sent when they are needed.
    """

    def __init__(self, name: str, options: RerankOptions, open_calls: Callable[[], Calls]) -> None:
        self.name, self.options, self.calls = name, options, open_calls()
        self._cutter = Cutter(self.calls.settings, options.passage_tokens)

    @cached_property
    def key(self) -> TeacherKey:
        options = self.options
        about = options.model_dump(exclude={"passage_tokens", "prompt"}, exclude_defaults=True)
        return TeacherKey(
            kind="pointwise",
            model=f"rerank:{self.name}",
            digest=digest_json(["rerank", self.name, about, self._cutter.described]),
            prompt=options.prompt,
            max_length=options.passage_tokens,
        )

    def score(self, queries: Sequence[str], documents: Sequence[Document]) -> np.ma.MaskedArray:
        """The server's scores (n,) float32 of n pairs, masked where one is missing.

        A request has one query and at most `batch` of its documents.

        Raises:
            InputError: the server answers no request.
            Stopped: a limit was reached in an earlier batch.
        """
        texts = self._cutter.cut([document.full for document in documents])
        rows_of: dict[str, list[int]] = {}
        for row, query in enumerate(queries):
            rows_of.setdefault(query, []).append(row)
        size = self.calls.settings.batch
        batches = [batch for rows in rows_of.values() for batch in in_batches(rows, size)]
        scores = np.full(len(queries), np.nan, dtype=np.float32)
        while batches:
            bodies = [
                self._body(queries[rows[0]], [texts[row] for row in rows]) for rows in batches
            ]
            answers = self.calls.query("/rerank", bodies, form=SCORES)
            for rows, answer in zip(batches, answers, strict=True):
                if answer is not None:
                    scores[rows] = scores_in(answer, len(rows))
            batches = halves(batches, bodies, self.calls)
        return np.ma.masked_invalid(scores)

    def _body(self, query: str, texts: list[str]) -> Json:
        query = self.options.prompt + query
        body: Json = {"model": self.name, "query": query, "documents": texts, "top_n": len(texts)}
        if self.options.form == "tei":
            body = {"query": query, "texts": texts, "truncate": True}
        if self.options.raw_scores:  # as TEI and Infinity name it, and as vLLM does
            body |= {"raw_scores": True, "use_activation": False}
        return body
