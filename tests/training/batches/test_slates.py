"""Pools and the slates drawn from them, with answers of a pairwise teacher up to the objective."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.objectives import pair_kl
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.students.make import make_student
from retrieval_kd.teachers.comparing.conclude import conclude_pairs
from retrieval_kd.teachers.score import score
from retrieval_kd.teachers.spec import open_teacher
from retrieval_kd.teachers.stored import stored_pairs, stored_scores
from retrieval_kd.training.batches.collate import slate_tensors
from retrieval_kd.training.batches.pools import build_pools
from retrieval_kd.training.batches.selection import without_false_negatives
from retrieval_kd.training.batches.slates import Pool, PoolPairs, digest_pools, draw, draw_slates
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.objective.batch import Batch, evaluate_term
from retrieval_kd.training.objective.term_checks import check_targets
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of

NAMES = [f"d{i}" for i in range(7)]
PAIRWISE = Term(name="pair_kl", teacher="pairs:0", student_temperature=0.5)


@st.composite
def answers(draw: st.DrawFn) -> np.ndarray:
    """P(i is better than j) of all documents in NAMES, of which some pairs were asked."""
    better = np.full((len(NAMES), len(NAMES)), np.nan)
    for i in range(len(NAMES)):
        for j in range(i):
            if draw(st.booleans()):
                better[i, j] = draw(st.floats(0, 1, width=32))
                better[j, i] = 1 - better[i, j]
    return better


@given(answers(), st.permutations(NAMES), st.data())
def test_pairs_follow_their_documents_into_pools_and_slates(better, listed, data):
    listed = listed[: data.draw(st.integers(2, len(NAMES)))]
    pairs = PoolPairs.of(listed, NAMES, better)
    chosen = np.array(data.draw(st.permutations(range(len(listed)))))[
        : data.draw(st.integers(1, 7))
    ]
    at = [NAMES.index(listed[place]) for place in chosen]
    np.testing.assert_allclose(pairs.among(chosen), better[np.ix_(at, at)], rtol=1e-6)
    kept = np.array([data.draw(st.booleans()) for _ in listed])
    left = [NAMES.index(name) for name, keep in zip(listed, kept, strict=True) if keep]
    found = pairs.select(kept).among(np.arange(len(left)))
    np.testing.assert_allclose(found, better[np.ix_(left, left)], rtol=1e-6)


@pytest.fixture(scope="module")
def collection(tiny_collection):
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def asked(collection, tiny_decoder, tmp_path_factory):
    """A store in which a decoder of random weights compared some queries' candidates."""
    teacher = open_teacher(f"pairwise:{tiny_decoder}?passage_tokens=8&pairs=adjacent", collection)
    queries = dict(list(collection.query_texts("train").items())[:4])
    run = bm25_run(collection, queries, 5)
    store = ScoreStore(tmp_path_factory.mktemp("pairs"))
    compared = {query: list(found) for query, found in list(run.results.items())[:3]}
    score(collection, queries, compared, teacher, store)
    return queries, run.results, AnswerStore(store.folder(teacher.key), teacher.key), store


@pytest.fixture(scope="module")
def pools(collection, asked):
    queries, candidates, stored, _ = asked
    found = conclude_pairs(collection, queries, {q: list(c) for q, c in candidates.items()}, stored)
    drops = Drops()
    made = build_pools(
        queries, candidates, collection, collection.qrels("train"), None, drops, pairs=found
    )
    assert len(found) == 3
    assert any("query without an answer about pairs" in line for line in drops.summary())
    return made


def test_the_objective_sees_the_stored_answers_of_its_slates(collection, pools):
    """Also where a pool of some has no pair: it teaches nothing."""
    slates = draw_slates(
        pools, [(0, 0), (1, 3), (3, 1)], TrainSettings(slate_size=4, slate_depth=5)
    )
    columns = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [4, 5, 6, 7]])
    labels = slate_tensors(slates, columns)
    scores = torch.randn(3, 8, generator=torch.manual_seed(0))
    wanted = np.full((3, 4, 4), np.nan, np.float32)
    for row, index in enumerate((0, 1)):
        pool, slate = pools[index], slates[row]
        places = [pool.positions.tolist().index(position) for position in slate.positions]
        for a, i in enumerate(places):
            for b, j in enumerate(places):
                same = (pool.pairs.first == i) & (pool.pairs.second == j)
                wanted[row, a, b] = pool.pairs.better[same][0] if same.any() else np.nan
    assert np.isfinite(wanted).any()
    own = scores.gather(1, labels["columns"])
    expected = pair_kl(
        own, own, labels["mask"], preferences=torch.tensor(wanted), student_temperature=0.5
    )
    assert expected > 0
    found = evaluate_term(PAIRWISE, Batch.of_scores(scores, labels))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["dense", "cross_encoder"])
def test_a_student_learns_what_the_pairwise_teacher_prefers(
    kind, collection, tiny_encoder, tmp_path
):
    """A teacher that is sure of the relevant document, whatever it is compared with."""
    sure = []
    for pool in pools_of(collection)[:6]:
        right = pool.gains > 0
        better = np.where(right[:, None] == right, np.nan, np.where(right[:, None], 0.95, 0.05))
        names = [str(position) for position in pool.positions]
        sure.append(replace(pool, pairs=PoolPairs.of(names, names, better)))
    settings = TrainSettings(
        steps=20, batch_queries=6, slate_size=5, max_tokens=16, learning_rate=3e-3, warmup=0
    )
    term = Term(name="pair_kl", teacher="pairs:0", student_temperature=0.1)
    record = train_student(
        TrainingJob(
            make_student(str(tiny_encoder), kind),
            sure,
            collection.documents,
            [term],
            settings,
            tmp_path / "s",
        )
    )
    losses = [point["loss"] for point in record["curve"] if "loss" in point]
    assert losses[-1] < 0.8 * losses[0]


def test_what_was_compared_with_a_relevant_document_is_learnt_though_the_run_lacks_it(
    collection, asked
):
    """Training makes it a candidate, and column 0."""
    queries, candidates, stored, store = asked
    [query] = list(candidates)[:1]
    [*others, lacking] = list(candidates[query])
    run = {query: dict.fromkeys(others, 1.0)}
    qrels = {query: {lacking: 1, "not in the collection": 1}}
    found = stored_pairs(collection, queries, store.path, stored.key.fingerprint, run, qrels)
    listed, better = found[query]
    assert listed == [*others, lacking] and np.isfinite(better[-1]).any()
    drops = Drops()
    bm25 = open_teacher("bm25", collection)
    score(collection, queries, {query: [*others, lacking]}, bm25, store)
    [scores] = stored_scores(
        collection, queries, store.path, ["bm25"], {query: others}, drops, qrels
    )
    assert lacking in scores[query] and not drops.summary()


def test_left_out_candidates_take_their_pairs_along_and_answers_are_part_of_what_is_trained_on():
    better = np.array([[np.nan, 0.9, np.nan], [0.1, np.nan, 0.3], [np.nan, 0.7, np.nan]])
    pairs = PoolPairs.of(["a", "b", "c"], ["a", "b", "c"], better)
    scores = np.array([1.0, 3.0, 0.0], np.float32)
    pool = Pool("q", np.arange(3), scores, np.array([1, 0, 0]), pairs=pairs)
    [kept] = without_false_negatives([pool], 0.0, Drops())
    assert kept.positions.tolist() == [0, 2] and not len(kept.pairs.better)
    other = PoolPairs(pairs.first, pairs.second, 1 - pairs.better)
    digests = {
        digest_pools([Pool("q", pool.positions, scores, pool.gains, pairs=told)])
        for told in (pairs, other, None)
    }
    assert len(digests) == 3


def test_without_answers_about_pairs_nothing_is_trained(collection, pools, asked, tiny_encoder):
    queries, candidates, _, _ = asked
    alone = build_pools(queries, candidates, collection, collection.qrels("train"), None, Drops())
    with pytest.raises(InputError, match="answers about pairs; no pool has any"):
        check_targets(alone, [PAIRWISE])


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"name": "kl", "teacher": "pairs:0"}, "use pair_kl"),
        ({"name": "pair_kl", "teacher": "pairs"}, "number of a teacher"),
        ({"name": "pair_kl", "teacher": "pairs:0", "candidates": "batch"}, "own candidates"),
        ({"name": "pair_kl", "teacher": "pairs:0", "teacher_temperature": 2}, "probabilities"),
        ({"name": "pair_kl", "teacher": "pairs:0", "joint": True}, "joint"),
    ],
)
def test_what_answers_about_pairs_cannot_teach_is_refused(told, message):
    with pytest.raises(ValueError, match=message):
        Term(**told)


def pool(size: int, relevant: int | None = 0) -> Pool:
    """Candidates 0, 1, … with falling teacher scores."""
    gains = np.zeros(size, np.int64)
    if relevant is not None:
        gains[relevant] = 1
    return Pool("q", np.arange(size), -np.arange(size, dtype=np.float32), gains)


@given(
    st.integers(2, 30),
    st.integers(2, 10),
    st.sampled_from(["random", "stratified", "hardest"]),
    st.integers(0, 5),
)
def test_a_slate_has_its_positive_first_and_nobody_twice(candidates, size, sampling, seed):
    rng = np.random.default_rng(seed)
    relevant = int(rng.integers(candidates))
    slate = draw(pool(candidates, relevant), size, 30, rng, sampling)
    assert slate.positions[0] == relevant
    assert len(set(slate.positions.tolist())) == len(slate.positions) == min(size, candidates)


def test_the_hardest_are_the_teachers_best():
    slate = draw(pool(10, 3), 4, 10, np.random.default_rng(0), "hardest")
    assert slate.positions.tolist() == [3, 0, 1, 2]


@given(st.integers(0, 50))
def test_a_stratified_slate_spans_the_scores(seed):
    slate = draw(pool(13, 0), 4, 13, np.random.default_rng(seed), "stratified")
    first, middle, last = slate.positions[1:]
    assert 1 <= first <= 4 < middle <= 8 < last <= 12


def test_bands_draw_as_often_from_few_close_calls_as_from_many_easy_ones():
    """90 candidates at about 0, two at about 1: a slate of two others has one of each."""
    scores = np.concatenate([[1.0, 0.99], np.linspace(0.01, 0.0, 90)]).astype(np.float32)
    gains = np.zeros(93, np.int64)
    gains[92] = 1
    many = Pool("q", np.arange(93), np.append(scores, np.float32(-1.0)), gains)
    many.teacher[92] = np.nan
    rng = np.random.default_rng(0)
    drawn = [draw(many, 3, 93, rng, "bands").positions[1:] for _ in range(200)]
    close = np.mean([position < 2 for slate in drawn for position in slate])
    assert 0.4 < close < 0.6
    assert all(len(set(slate)) == 2 for slate in drawn)


def test_bands_without_scores_draw_from_everything():
    unscored = Pool("q", np.arange(5), np.full(5, np.nan, np.float32), np.array([1, 0, 0, 0, 0]))
    drawn = draw(unscored, 5, 5, np.random.default_rng(0), "bands")
    assert sorted(drawn.positions) == [0, 1, 2, 3, 4]
