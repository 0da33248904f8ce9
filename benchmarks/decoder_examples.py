"""Training examples for `decoders.py`: prompts of the real teachers with the correct answers.

Queries are judged questions, or made of a passage's own words, which gives any number of them.
Negatives are random passages, or BM25's if a query has some.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval_kd import Collection
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
from retrieval_kd.teachers.options import SetOptions
from retrieval_kd.teachers.pointwise.likelihood import TEMPLATES as LIKELIHOOD
from retrieval_kd.teachers.pointwise.yes_no import TEMPLATES as YES_NO

WORD = re.compile(r"\w+")
TASKS = ("yes/no", "likelihood", "pair", "order", "first")


@dataclass(frozen=True)
class Example:
    """A prompt and its answer."""

    task: str
    prompt: Prompt
    answer: str


@dataclass(frozen=True)
class JudgedQuery:
    """A query, a positive passage, and negative passages from BM25."""

    query: str
    positive: str
    negatives: tuple[str, ...]


def judged_queries(collection: Collection, split: str, negatives: int = 8) -> list[JudgedQuery]:
    """Return a split's judged queries, each with BM25's first unjudged passages as negatives."""
    queries, qrels = collection.query_texts(split), collection.qrels(split)
    run = bm25_run(collection, queries, negatives + 4)
    judged = []
    for id, query in queries.items():
        others = [d for d in run.results.get(id, {}) if d not in qrels[id]][:negatives]
        texts = tuple(collection.documents[d].full for d in others)
        for document in (d for d, gain in qrels[id].items() if gain > 0):
            judged.append(JudgedQuery(query, collection.documents[document].full, texts))
    return judged


def texts_of(collection: Collection, most: int) -> list[str]:
    """The texts of the first documents."""
    return [document.full for document in collection.documents.iterate(0, most)]


def examples(
    judged: Sequence[JudgedQuery],
    texts: Sequence[str],
    model: LocalModel,
    seed: int,
    *,
    tasks: Sequence[str] = TASKS,
    lengths: Sequence[int] = (12, 20, 28, 40, 60, 80),
    made: float = 0.5,
    hard: float = 0.3,
) -> Iterator[Example]:
    """Draw examples without end.

    Args:
        texts: passages for made questions and for random negatives.
        lengths: words per passage, drawn for each example. Longer passages are cut around the words
            that they share with the query, because a small model cannot read more.
        made: share of examples with a made question.
        hard: share of negatives that are BM25's.
    """
    rng = random.Random(seed)
    while True:
        one = make_question(rng.choice(texts), rng) if rng.random() < made else rng.choice(judged)
        if one is None:
            continue
        task, words = rng.choice(tasks), rng.choice(lengths)
        several = rng.choice((1, 2, 3))
        count = {"yes/no": 1, "likelihood": 0, "pair": 1}.get(task, several)
        negatives: list[str] = []
        while len(negatives) < count:
            other = rng.choice(one.negatives if one.negatives and rng.random() < hard else texts)
            if other != one.positive and other not in negatives:
                negatives.append(other)
        shown = [excerpt(text, one.query, words, rng) for text in (one.positive, *negatives)]
        yield example(task, one.query, shown, model, rng)


def make_question(text: str, rng: random.Random) -> JudgedQuery | None:
    """Make a query of 3 to 7 longer words of a passage, in order; None if it has too few."""
    distinct = list(dict.fromkeys(w for w in WORD.findall(text) if len(w) > 3))
    if len(distinct) < 6:
        return None
    start = rng.randrange(max(1, len(distinct) - 10))
    chosen = set(rng.sample(distinct[start : start + 12], min(rng.randint(3, 7), 6)))
    return JudgedQuery(" ".join(word for word in distinct if word in chosen), text, ())


def excerpt(text: str, query: str, words: int, rng: random.Random) -> str:
    """Cut `words` words out of a passage where it shares most words with the query."""
    spans = [found.span() for found in re.finditer(r"\S+", text)]
    if len(spans) <= words:
        return text
    query_words = {word.lower() for word in WORD.findall(query) if len(word) > 3}
    shared = [bool(query_words & {w.lower() for w in WORD.findall(text[a:b])}) for a, b in spans]
    starts = range(len(spans) - words + 1)
    scores = [sum(shared[start : start + words]) for start in starts]
    best = rng.choice([start for start in starts if scores[start] == max(scores)])
    return text[spans[best][0] : spans[best + words - 1][1]]


def example(
    task: str, query: str, shown: Sequence[str], model: LocalModel, rng: random.Random
) -> Example:
    """Make the example of a query whose positive passage is `shown[0]`.

    In an order it comes first, then the others as shown: which of them is better is unknown, and a
    random order would train the model to write random numbers. `first` is an order by letters, of
    which the teacher reads the first letter's logits.
    """
    if task == "likelihood":
        return Example(task, LIKELIHOOD[0].fill(query="", passage=quote(shown[0])), query)
    if task == "yes/no":
        right = rng.random() < 0.5
        passage = quote(shown[0] if right else shown[1])
        prompt = YES_NO[0].fill(query=quote(query), passage=passage)
        return Example(task, prompt, YES_NO[0].answers[0 if right else 1])
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
        SetOptions(query_tokens=128, passage_tokens=256),
        start=start,
    )
    if task != "order":
        return Example(task, prompt, labels[order.index(0)])
    ranked = sorted(range(len(order)), key=lambda place: order[place] != 0)  # the others as shown
    return Example(task, prompt, " > ".join(f"[{labels[place]}]" for place in ranked))
