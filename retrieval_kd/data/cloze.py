"""Queries with a known answer, from documents alone: a sentence, and the document without it.

The inverse cloze task of Lee, Chang and Toutanova, ACL 2019, https://arxiv.org/abs/1906.00300. How
well a ranker finds these documents says how far it can be trusted on a collection that nobody has
judged.
"""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.draw_queries import FEWEST_WORDS, MOST_WORDS, normalise, sentences
from retrieval_kd.data.qrels import write_qrels
from retrieval_kd.data.texts import Document
from retrieval_kd.files import write_text


def write_cloze(
    collection: Collection,
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    exclude: Set[str] = frozenset(),
) -> int:
    """Write a BEIR folder of at most `count` documents, each without a sentence, its query.

    Documents are drawn at random. Of a document of one sentence, the first half of the words is the
    query and the second half the document; those of fewer than 12 words are skipped.

    Args:
        exclude: texts that no query may have, compared after `normalise`.

    Returns:
        The number of queries, which is that of documents.
    """
    excluded = {normalise(text) for text in exclude}
    generator = np.random.default_rng(seed)
    documents: list[dict[str, str]] = []
    queries: list[dict[str, str]] = []
    qrels: dict[str, dict[str, int]] = {}
    for position in generator.permutation(len(collection.documents)):
        if len(documents) == count:
            break
        document = collection.documents.at(int(position))
        cut = cut_out(document, generator)
        if cut is None or normalise(cut[0]) in excluded:
            continue
        query, rest = cut
        queries.append({"_id": f"cloze:{document.id}", "text": query})
        documents.append({"_id": rest.id, "title": rest.title, "text": rest.text})
        qrels[f"cloze:{document.id}"] = {rest.id: 1}
    for name, rows in {"corpus": documents, "queries": queries}.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / f"{name}.jsonl", "".join(lines))
    write_qrels(qrels, folder / "qrels" / "test.tsv")
    return len(documents)


def cut_out(document: Document, generator: np.random.Generator) -> tuple[str, Document] | None:
    """Return a random sentence of 6 to 45 words and the rest; None for very short documents.

    Example:
        >>> tides = Document("d", "Tides", "The moon pulls on the sea water. It rises. It falls.")
        >>> sentence, rest = cut_out(tides, np.random.default_rng(0))
        >>> sentence, rest.text
        ('The moon pulls on the sea water.', 'It rises. It falls.')
    """
    parts = sentences(document.text)
    fit = [k for k, part in enumerate(parts) if FEWEST_WORDS <= len(part.split()) <= MOST_WORDS]
    if fit and len(parts) > 1:
        k = fit[int(generator.integers(len(fit)))]
        return parts[k], document._replace(text=" ".join(parts[:k] + parts[k + 1 :]))
    words = document.full.split()
    half = min(len(words) // 2, MOST_WORDS)
    if half < FEWEST_WORDS:
        return None
    return " ".join(words[:half]), Document(document.id, "", " ".join(words[half:]))
