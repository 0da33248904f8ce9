"""A server of `/embeddings` and `/rerank`, with a real encoder and cross-encoder behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import nn

from tests.teachers.llm.server.echo_server import serving


@contextlib.contextmanager
def model_server(encoder: Path, cross_encoder: Path) -> Iterator[str]:
    """Its address. Answers have the forms of the servers named in `_answer`."""
    dense, cross = SentenceTransformer(str(encoder), device="cpu"), CrossEncoder(str(cross_encoder))

    def answer(body: dict[str, Any]) -> Any:
        if "input" in body:
            return _embeddings(dense, body)
        texts = body.get("documents") or body["texts"]
        pairs = [(body["query"], text) for text in texts]
        logits = cross.predict(pairs, activation_fn=nn.Identity(), show_progress_bar=False)
        ranked = sorted(enumerate(map(float, logits)), key=lambda item: -item[1])
        if "texts" in body:  # TEI
            return [{"index": index, "score": score} for index, score in ranked]
        results = [{"index": i, "relevance_score": s, "document": None} for i, s in ranked]
        words = sum(len(text.split()) for text in texts)
        return {"model": body["model"], "results": results[: body["top_n"]],
                "usage": {"total_tokens": words}}  # fmt: skip

    with serving(answer) as url:
        yield url


def _embeddings(model: SentenceTransformer, body: dict[str, Any]) -> dict[str, Any]:
    """As OpenAI, in any order: `index` says whose a vector is."""
    texts = [body.get("input_type", "") + text for text in body["input"]]
    vectors = model.encode(texts, normalize_embeddings=False)[:, : body.get("dimensions")]
    data = [
        {"object": "embedding", "index": index, "embedding": vector.tolist()}
        for index, vector in enumerate(vectors)
    ]
    words = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": words, "total_tokens": words}
    return {"object": "list", "model": body["model"], "data": data[::-1], "usage": usage}
