"""Calls of a server by a run's teachers: how many, their tokens and their price.

A prompt has the query, the passages that it shows, and a template of about `TEMPLATE` tokens.
Nothing is sent: texts are counted with the server's tokenizer if the configuration names one that
is here, else 4/3 tokens a word.
"""

from __future__ import annotations

from typing import Any

from retrieval_kd.pipeline.costs import calls_of
from retrieval_kd.pipeline.forecast.amounts import Amounts
from retrieval_kd.pipeline.forecast.work import Calls
from retrieval_kd.teachers.kinds import KINDS
from retrieval_kd.teachers.spec import TeacherSpec, parse_spec

TEMPLATE = 60  # tokens of instructions around the texts
NUMBER_TOKENS = 4  # tokens of an answer for each passage that is named in it, as "[12] > "


def calls(amounts: Amounts, member: str, parts: list[str]) -> Calls:
    """Count a served teacher's calls for some parts of the run, without repeated ones."""
    server, spec = amounts.config.teacher.server, parse_spec(member)
    assert server is not None
    tokenizer = server.tokenizer or ""
    query = amounts.query_tokens(tokenizer, None)
    depths = [depth for part in parts for depth in amounts.depths(part)]
    options: Any = spec.validated(KINDS[spec.kind].options)
    passage = amounts.candidate_tokens(tokenizer, options.passage_tokens)
    if KINDS[spec.kind].is_hosted:
        requests, read = _hosted(amounts, spec, depths, parts, query, passage, server.batch)
        written = 0.0
    else:
        requests = calls_of(member, depths)
        shown = _shown(spec, options)
        read = requests * (TEMPLATE + query + shown * passage)
        words = getattr(options, "answer", "logits") == "words"
        written = requests * (shown * NUMBER_TOKENS if words else 1)
    priced = server.prompt_price or server.answer_price
    return Calls(
        requests,
        round(read),
        round(written),
        round(server.cost(round(read), round(written)), 4) if priced else None,
        requests / server.per_minute if server.per_minute else None,
    )


def _hosted(
    amounts: Amounts, spec: TeacherSpec, depths: list[int], parts: list[str], query: float,
    passage: float, batch: int,
) -> tuple[int, float]:  # fmt: skip
    """Requests and tokens read of an embedding or re-ranking server."""
    if spec.kind == "rerank":
        requests = sum(-(-depth // batch) for depth in depths)
        return requests, requests * query + sum(depths) * passage
    texts = min(amounts.documents, sum(depths)) + sum(map(amounts.query_count, parts))
    return -(-texts // batch), texts * passage


def _shown(spec: TeacherSpec, options: Any) -> int:
    """Number of passages in a prompt."""
    if spec.kind == "pairwise":
        return 2
    if spec.kind != "listwise":
        return 1
    sizes = {"windows": options.window, "heap": options.children + 1}
    return int(sizes.get(options.how, options.group))
