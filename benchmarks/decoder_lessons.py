"""What `decoders.py` trains on: prompts of the real teachers, with the answers they should get.

Judged questions with their passages, and questions made of a passage's own words, of which any
collection has as many as one likes. Negatives are random passages, and BM25's where there are some.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.store.requests import RequestTexts
from retrieval_kd.teachers.comparing.set_prompts import (
    LETTER_TEMPLATES,
    LETTERS,
    NUMBERS,
    ORDER_TEMPLATES,
    PAIR_TEMPLATES,
    set_prompts,
)
from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.llm.prompts import quote
from retrieval_kd.teachers.llm.protocol import Prompt
from retrieval_kd.teachers.pointwise.likelihood import TEMPLATES as LIKELIHOOD
from retrieval_kd.teachers.pointwise.yes_no import TEMPLATES as YES_NO

WORD = re.compile(r"\w+")
TASKS = ("yes/no", "likelihood", "pair", "order", "first")


@dataclass(frozen=True)
class TrainingStage:
    """A prompt and its answer."""

    task: str
    prompt: Prompt
    answer: str


@dataclass(frozen=True)
class Known:
    """A query, a passage that answers it, and passages that do not, BM25's first."""

    query: str
    right: str
    wrong: tuple[str, ...]


def known_of(collection: Collection, split: str, negatives: int = 8) -> list[Known]:
    """The judged queries of a split, each with BM25's first passages that are not judged right."""
    queries, qrels = collection.query_texts(split), collection.qrels(split)
    run = bm25_run(collection, queries, negatives + 4)
    found = []
    for id, query in queries.items():
        right = [d for d, gain in qrels[id].items() if gain > 0]
        wrong = [d for d in run.results.get(id, {}) if d not in qrels[id]][:negatives]
        for document in right:
            texts = tuple(collection.documents[d].full for d in wrong)
            found.append(Known(query, collection.documents[document].full, texts))
    return found


def texts_of(collection: Collection, most: int) -> list[str]:
    """The first documents' texts."""
    return [document.full for document in collection.documents.iterate(0, most)]


def lessons(
    known: Sequence[Known],
    texts: Sequence[str],
    model: LocalModel,
    seed: int,
    *,
    tasks: Sequence[str] = TASKS,
    lengths: Sequence[int] = (12, 20, 28, 40, 60, 80),
    made: float = 0.5,
    hard: float = 0.3,
) -> Iterator[TrainingStage]:
    """Lessons without end, drawn by `seed`.

    Args:
        texts: passages for questions made of their own words, and for random negatives.
        lengths: words of a passage, one of these at a time; a longer one is cut around the words
            it shares with the query. What is longer than any of them a small model cannot read.
        made: share of lessons with a made question.
        hard: share of negatives that are BM25's.
    """
    rng = random.Random(seed)
    while True:
        one = made_question(rng.choice(texts), rng) if rng.random() < made else rng.choice(known)
        if one is None:
            continue
        task, words = rng.choice(tasks), rng.choice(lengths)
        several = rng.choice((1, 2, 3))
        count = {"yes/no": 1, "likelihood": 0, "pair": 1}.get(task, several)
        wrong: list[str] = []
        while len(wrong) < count:
            other = rng.choice(one.wrong if one.wrong and rng.random() < hard else texts)
            if other != one.right and other not in wrong:
                wrong.append(other)
        shown = [around(text, one.query, words, rng) for text in (one.right, *wrong)]
        yield lesson(task, one.query, shown, model, rng)


def made_question(text: str, rng: random.Random) -> Known | None:
    """Three to seven of the longer words of a passage, in its order; None if it has too few."""
    distinct = list(dict.fromkeys(w for w in WORD.findall(text) if len(w) > 3))
    if len(distinct) < 6:
        return None
    start = rng.randrange(max(1, len(distinct) - 10))
    chosen = set(rng.sample(distinct[start : start + 12], min(rng.randint(3, 7), 6)))
    return Known(" ".join(word for word in distinct if word in chosen), text, ())


def around(text: str, query: str, words: int, rng: random.Random) -> str:
    """So many words of a passage, where it shares most with the query: where an answer may be."""
    spans = [found.span() for found in re.finditer(r"\S+", text)]
    if len(spans) <= words:
        return text
    asked = {word.lower() for word in WORD.findall(query) if len(word) > 3}
    shared = [bool(asked & {w.lower() for w in WORD.findall(text[a:b])}) for a, b in spans]
    starts = range(len(spans) - words + 1)
    scores = [sum(shared[start : start + words]) for start in starts]
    best = rng.choice([start for start in starts if scores[start] == max(scores)])
    return text[spans[best][0] : spans[best + words - 1][1]]


def lesson(
    task: str, query: str, shown: Sequence[str], model: LocalModel, rng: random.Random
) -> TrainingStage:
    """The lesson of a query whose right passage is `shown[0]`.

    An order has it first and the others as they are shown: nobody knows which of them is better,
    and a random order of theirs would teach to write numbers at random. `first` is such an order by
    letters, of which the teacher reads the first one's logits.
    """
    if task == "likelihood":
        return TrainingStage(task, LIKELIHOOD[0].fill(query="", passage=quote(shown[0])), query)
    if task == "yes/no":
        right = rng.random() < 0.5
        passage = quote(shown[0] if right else shown[1])
        prompt = YES_NO[0].fill(query=quote(query), passage=passage)
        return TrainingStage(task, prompt, YES_NO[0].answers[0 if right else 1])
    order = list(range(len(shown)))
    rng.shuffle(order)
    documents = tuple(Document(str(i), "", shown[i]) for i in order)
    template, labels, start = {
        "pair": (PAIR_TEMPLATES[0], LETTERS, ""),
        "order": (ORDER_TEMPLATES[0], NUMBERS, ""),
        "first": (LETTER_TEMPLATES[0], LETTERS, "["),
    }[task]
    [prompt] = set_prompts(
        model,
        [RequestTexts(query, documents)],
        template,
        labels,
        query_tokens=128,
        passage_tokens=256,
        cut="end",
        start=start,
    )
    if task != "order":
        return TrainingStage(task, prompt, labels[order.index(0)])
    ranked = sorted(range(len(order)), key=lambda place: order[place] != 0)  # others as shown
    return TrainingStage(task, prompt, " > ".join(f"[{labels[place]}]" for place in ranked))
