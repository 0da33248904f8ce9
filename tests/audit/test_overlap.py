"""Which pairs of texts the checks find, and which they do not."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval_kd.audit import near, ngrams
from retrieval_kd.audit.near import bands, jaccard, near_pairs
from retrieval_kd.audit.neighbours import Encoder
from retrieval_kd.audit.ngrams import ngram_pairs
from retrieval_kd.audit.normalise import normalise, shingles, word_ngrams
from retrieval_kd.audit.overlap import DOCUMENTS, QUERIES, Limits, find_overlaps
from retrieval_kd.audit.texts import DistinctTexts, TextList, same_texts
from retrieval_kd.errors import Drops
from tests.tiny_models import TOPICS

WORDS = [word for line in TOPICS.values() for word in line.split()]
TEXTS = st.lists(st.sampled_from(WORDS[:12]), min_size=1, max_size=14).map(" ".join)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def listed(texts, source="a", scope=""):
    return TextList(source, scope, {f"{source}{i}": text for i, text in enumerate(texts)})


def distinct(texts, source="a"):
    return DistinctTexts(listed(texts, source))


def sentence(rng, words=40):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def found(evaluated, trained, limits=QUERIES, **more):
    return find_overlaps(distinct(evaluated, "e"), distinct(trained, "t"), limits, Drops(), **more)


@QUICK
@given(st.lists(TEXTS, min_size=1, max_size=6), st.lists(TEXTS, max_size=6))
def test_a_text_that_is_in_both_is_found_by_every_check(shared, others):
    """With other case and punctuation, among others, and however short."""
    evaluated = [f"  {text.upper()}?" for text in shared]
    for i, partners in found(evaluated, [*others, *shared], Limits(0.6, 1, most=20)).items():
        kinds = partners[len(others) + i]
        assert kinds["exact"] == kinds["near"] == kinds["ngram"] == 1.0
    assert len(found(evaluated, shared)) == len(shared)


@QUICK
@given(st.lists(TEXTS, max_size=6), st.lists(TEXTS, max_size=6))
def test_the_checks_are_symmetric(left, right):
    a, b = distinct(left, "a"), distinct(right, "b")
    for check in (
        lambda x, y: near_pairs(x, y, 0.5, 50),
        lambda x, y: ngram_pairs(x, y, 3, 0.5, 50),
        same_texts,
    ):
        assert {(i, j, s) for i, j, s in check(a, b)} == {(i, j, s) for j, i, s in check(b, a)}


@QUICK
@given(st.lists(TEXTS, max_size=8), st.lists(TEXTS, max_size=8))
def test_ngram_pairs_are_those_that_comparing_all_gives(left, right):
    a, b = distinct(left, "a"), distinct(right, "b")
    expected = {}
    for i in range(len(a)):
        for j in range(len(b)):
            x, y = (set(word_ngrams(t, 2).tolist()) for t in (a.form(i), b.form(j)))
            if x and y and len(x & y) / min(len(x), len(y)) >= 0.5:
                expected[i, j] = len(x & y) / min(len(x), len(y))
    assert {(i, j): s for i, j, s in ngram_pairs(a, b, 2, 0.5, 50)} == pytest.approx(expected)


def test_near_pairs_have_their_exact_jaccard_and_none_is_below_the_threshold():
    rng = random.Random(1)
    base = [sentence(rng) for _ in range(30)]
    cut = [" ".join(text.split()[k % 25 :]) for k, text in enumerate(base)]
    a, b = distinct(cut), distinct(base)
    pairs = list(near_pairs(a, b, 0.5, 20))
    assert len(pairs) >= 15
    for i, j, similarity in pairs:
        assert similarity == jaccard(shingles(a.form(i)), shingles(b.form(j))) >= 0.5


def test_texts_of_unrelated_words_are_never_tied():
    rng = random.Random(2)
    first, second = WORDS[::2], WORDS[1::2]
    left = [" ".join(rng.choices(first, k=30)) for _ in range(60)]
    right = [" ".join(rng.choices(second, k=30)) for _ in range(60)]
    assert found(left, right) == {} and found(left, right, DOCUMENTS) == {}


@pytest.mark.parametrize(("rate", "least"), [(0.05, 0.99), (0.1, 0.99), (0.2, 0.9)])
def test_edited_copies_are_tied_to_their_originals_and_to_nothing_else(rate, least):
    """What benchmarks/audit.py measures on real texts."""
    rng = random.Random(3)
    vocabulary = [f"{a}{b}" for a in WORDS for b in ("", "ing", "ed", "s", "like", "less")]
    originals = [" ".join(rng.choices(vocabulary, k=120)) for _ in range(80)]
    copies = [
        " ".join(rng.choice(vocabulary) if rng.random() < rate else w for w in text.split())
        for text in originals
    ]
    a, b = distinct(copies), distinct(originals)
    by_text = {normalise(text): i for i, text in enumerate(originals)}
    tied = {
        (int(a.first[i]), by_text[b.form(j)]) for i, j, _ in near_pairs(a, b, DOCUMENTS.near, 20)
    }
    assert len({i for i, j in tied if i == j}) >= least * len(originals)
    assert all(i == j for i, j in tied)


def test_a_copied_part_is_found_by_its_ngrams_only():
    rng = random.Random(4)
    passage = sentence(rng, 30)
    [partners] = found([passage], [f"{sentence(rng, 200)} {passage}"], DOCUMENTS).values()
    assert partners == {0: {"ngram": 1.0}}


def test_blocks_change_nothing(monkeypatch):
    rng = random.Random(5)
    texts = [sentence(rng) for _ in range(25)]
    whole = found(texts, texts[::-1])
    monkeypatch.setattr(near, "BLOCK", 4)
    monkeypatch.setattr(ngrams, "BLOCK", 50)
    assert found(texts, texts[::-1]) == whole


def test_ids_count_within_one_collection_only():
    for scope, expected in (("digest", {0: {1: {"id": 1.0}}}), ("", {}), ("other", {})):
        evaluated = DistinctTexts(TextList("e", "digest", {"7": "why are there tides"}))
        trained = TextList("t", scope, {"6": "yeast", "7": "bread and butter"})
        assert find_overlaps(evaluated, DistinctTexts(trained), QUERIES, Drops()) == expected


def test_what_could_not_be_compared_is_counted():
    drops = Drops()
    find_overlaps(
        distinct(["tides", "  "], "e"), distinct(["two short", "ones"], "t"), QUERIES, drops
    )
    assert drops.counts == {
        "empty evaluated text of e, compared by ID only": 1,
        "evaluated text of e under 8 words: no n-gram check": 1,
        "trained text of t under 8 words: no n-gram check": 2,
    }


def test_a_text_that_is_everywhere_lists_its_strongest_partners_and_says_so():
    drops = Drops()
    trained = ["the tide of the moon is high", *["the tide of the moon is"] * 30]
    limits = Limits(0.6, 8, most=5)
    [partners] = find_overlaps(
        distinct(["The tide of the moon is"]), distinct(trained, "t"), limits, drops
    ).values()
    assert len(partners) == 5 and all("exact" in kinds for kinds in partners.values())
    assert drops.counts["evaluated text with more overlaps than are listed"] == 1


def test_embeddings_of_equal_texts_are_neighbours(tiny_encoder, tiny_dot_encoder):
    texts = ["sparrow wing feather", "violin chord tempo"]
    for model in (tiny_encoder, tiny_dot_encoder):
        for documents in (False, True):
            pairs = found(
                texts, texts[::-1], Limits(0.6, 8, cosine=0.999), documents=documents,
                encoder=Encoder(str(model)),
            )  # fmt: skip
            assert pairs[0][1]["embedding"] == pytest.approx(1, abs=1e-5)
            assert pairs[1][0]["embedding"] == pytest.approx(1, abs=1e-5)


def test_bands_catch_a_pair_at_the_threshold():
    for threshold in np.linspace(0.05, 1, 20):
        count, rows = bands(float(threshold))
        assert count * rows <= near.PERMUTATIONS
        assert 1 - (1 - threshold**rows) ** count >= near.RECALL
