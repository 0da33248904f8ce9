"""Pairs and lists are compared once, stored, and become the scores that the answers support."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.comparing.listwise import ListwiseOptions, ListwiseTeacher
from retrieval_kd.teachers.comparing.pairwise import PairwiseOptions, PairwiseTeacher
from retrieval_kd.teachers.score import score, scores_of
from retrieval_kd.teachers.spec import open_teacher
from retrieval_kd.teachers.stored import stored_scores
from tests.teachers.reader import Reader

PAIRWISE = {
    "all": PairwiseOptions(),
    "in words": PairwiseOptions(answer="words"),
    "adjacent": PairwiseOptions(pairs="adjacent", reach=2),
    "sorting": PairwiseOptions(pairs="sorting"),
}
LISTWISE = {
    "windows": ListwiseOptions(window=4, stride=2),
    "first logits": ListwiseOptions(window=4, stride=2, answer="logits"),
    "heap": ListwiseOptions(how="heap", top=8),
    "heap by logits": ListwiseOptions(how="heap", top=8, answer="logits"),
    "tournament": ListwiseOptions(how="tournament", group=4),
}


def make(name: str, reader: Reader, **more):
    if name in PAIRWISE:
        return PairwiseTeacher(reader, PAIRWISE[name], **more)
    return ListwiseTeacher(reader, LISTWISE[name], **more)


every_teacher = pytest.mark.parametrize("name", [*PAIRWISE, *LISTWISE])


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def queries(collection: Collection) -> dict[str, str]:
    return dict(list(collection.query_texts("train").items())[:6])


@pytest.fixture(scope="module")
def candidates(collection: Collection, queries: dict[str, str]) -> dict[str, list[str]]:
    """Eight documents per query, those with least in common first: to keep that is to fail."""
    wanted = {}
    for query in queries:
        topic = query.removeprefix("q-")[:-1]
        ids = [f"{topic}{number}" for number in range(2, 10)]
        overlap = overlaps(collection, queries, query, ids)
        wanted[query] = sorted(ids, key=overlap.__getitem__)
    return wanted


def overlaps(collection, queries, query_id, ids) -> dict[str, int]:
    words = set(queries[query_id].split())
    return {id: len(words & set(collection.documents[id].full.split())) for id in ids}


@every_teacher
def test_what_the_teacher_prefers_is_ranked_first(name, collection, queries, candidates, tmp_path):
    store, teacher = ScoreStore(tmp_path), make(name, Reader())
    score(collection, queries, candidates, teacher, store)
    found = scores_of(collection, queries, candidates, store, teacher.key)
    assert set(found) == set(candidates)
    for query, scores in found.items():
        overlap = overlaps(collection, queries, query, candidates[query])
        assert set(scores) == set(candidates[query])
        best = max(scores, key=scores.__getitem__)
        assert overlap[best] == max(overlap.values())
    judged = collection.qrels("train")
    shown, ranked = [], []
    for query, ids in candidates.items():
        relevant = max(judged[query], key=judged[query].__getitem__)
        shown.append(ids.index(relevant))
        ranked.append(sum(score > found[query][relevant] for score in found[query].values()))
    assert np.mean(ranked) < np.mean(shown) - 2


@every_teacher
def test_stored_answers_are_not_requested_again(name, collection, queries, candidates, tmp_path):
    store, reader = ScoreStore(tmp_path), Reader()
    some = dict(list(candidates.items())[:3])
    first = score(collection, queries, some, make(name, reader), store)
    assert first.scored == len(reader.asked)
    everything = score(collection, queries, candidates, make(name, reader), ScoreStore(tmp_path))
    assert everything.reused >= first.pairs
    assert everything.scored + first.scored == len(reader.asked) == len(set(reader.asked))
    again = score(collection, queries, candidates, make(name, reader), ScoreStore(tmp_path))
    assert (again.scored, again.reused) == (0, everything.pairs)
    assert store.verify() == []


@every_teacher
@pytest.mark.parametrize("killed_after", [0, 7, 14])
def test_a_killed_job_goes_on_where_it_stopped(
    name, killed_after, collection, queries, candidates, tmp_path
):
    class Killed(Reader):
        def kill(self, prompts):
            if len(self.asked) + len(prompts) > killed_after:
                raise KeyboardInterrupt

        def options(self, prompts, options):
            self.kill(prompts)
            return super().options(prompts, options)

        def generate(self, prompts, most_tokens):
            self.kill(prompts)
            return super().generate(prompts, most_tokens)

    store, killed = ScoreStore(tmp_path / "a"), Killed()
    with pytest.raises(KeyboardInterrupt):
        score(collection, queries, candidates, make(name, killed, at_once=7), store)
    reader = Reader()
    teacher = make(name, reader)
    score(collection, queries, candidates, teacher, ScoreStore(tmp_path / "a"))
    assert not set(killed.asked) & set(reader.asked)
    whole = ScoreStore(tmp_path / "b")
    score(collection, queries, candidates, make(name, Reader()), whole)
    assert len(AnswerStore(store.folder(teacher.key), teacher.key)) == len(
        AnswerStore(whole.folder(teacher.key), teacher.key)
    )
    assert scores_of(collection, queries, candidates, store, teacher.key) == scores_of(
        collection, queries, candidates, whole, teacher.key
    )


@every_teacher
def test_a_failed_call_is_reported_and_repeated_and_no_answer_is_invented(
    name, collection, queries, candidates, tmp_path
):
    """Every fifth prompt fails, the first time."""
    store = ScoreStore(tmp_path / "a")
    failing = Reader(failing=lambda prompt: int(int(digest(prompt), 16) % 5 == 0))
    teacher = make(name, failing)
    made = score(collection, queries, candidates, teacher, store)
    assert made.missing > 0 and made.unfinished > 0
    stored = AnswerStore(store.folder(teacher.key), teacher.key)
    assert len(stored) == made.scored
    if name in LISTWISE:  # what a strategy cannot finish has no conclusion
        found = scores_of(collection, queries, candidates, store, teacher.key)
        assert len(found) == len(candidates) - made.unfinished
    for _ in range(20):
        if not made.missing:
            break
        made = score(collection, queries, candidates, teacher, store)
    assert made.missing == made.unfinished == 0
    whole = ScoreStore(tmp_path / "b")
    score(collection, queries, candidates, make(name, Reader()), whole)
    assert scores_of(collection, queries, candidates, store, teacher.key) == scores_of(
        collection, queries, candidates, whole, teacher.key
    )


def digest(prompt) -> str:
    from retrieval_kd.files import digest_text

    return digest_text(prompt.user)


@pytest.mark.parametrize("name", ["in words", "windows", "heap", "tournament"])
def test_garbage_is_stored_as_garbage_and_ranks_nothing(
    name, collection, queries, candidates, tmp_path
):
    store, teacher = ScoreStore(tmp_path), make(name, Reader(garbled=lambda prompt: True))
    made = score(collection, queries, candidates, teacher, store)
    assert made.unparsable == made.scored > 0
    assert scores_of(collection, queries, candidates, store, teacher.key) == {}
    answers = [row.answer for row in AnswerStore(store.folder(teacher.key), teacher.key).rows()]
    words = {answer.text for answer in answers if answer is not None}
    assert words == {"I would rather not rank these passages."}
    with pytest.raises(InputError, match="none of these queries"):
        stored_scores(collection, queries, tmp_path, [], None, Drops())


def test_the_most_requests_are_announced_first(collection, queries, candidates, tmp_path, capsys):
    teacher = make("all", Reader())
    made = score(collection, queries, candidates, teacher, ScoreStore(tmp_path))
    assert made.pairs == 6 * 8 * 7 and made.noun == "questions"
    assert "at most 336 questions about 6 queries (pairs=all)" in capsys.readouterr().err


def test_strategies_share_answers(collection, queries, candidates, tmp_path):
    store, reader = ScoreStore(tmp_path), Reader()
    score(collection, queries, candidates, make("adjacent", reader), store)
    asked = len(reader.asked)
    everything = score(collection, queries, candidates, make("all", reader), store)
    assert everything.reused == asked and len(store.teachers()) == 1


def test_a_leaning_teacher_ranks_the_same_and_its_bias_is_measured(
    collection, queries, candidates, tmp_path
):
    from retrieval_kd.store.summary import summarise_answers

    scores, biases = [], []
    for number, lean in enumerate((0.0, 1.5)):
        store, teacher = ScoreStore(tmp_path / str(number)), make("all", Reader(lean=lean))
        score(collection, queries, candidates, teacher, store)
        biases.append(summarise_answers(store, teacher.key).order_bias)
        scores.append(scores_of(collection, queries, candidates, store, teacher.key, "copeland"))
    assert biases[0].log_odds == pytest.approx(0, abs=1e-6)
    assert biases[1].log_odds == pytest.approx(1.5, abs=1e-6)
    assert biases[1].first_wins > biases[0].first_wins == 0.5
    assert scores[0] == scores[1]


def test_uncertain_pairs_are_chosen_by_a_stored_teacher(collection, queries, candidates, tmp_path):
    store = ScoreStore(tmp_path)
    options = PairwiseOptions(pairs="uncertain", most=5, by="bm25")
    teacher = PairwiseTeacher(Reader(), options)
    with pytest.raises(InputError, match=r"rkd score|no such teacher"):
        score(collection, queries, candidates, teacher, store)
    score(collection, queries, candidates, open_teacher("bm25", collection), store)
    made = score(collection, queries, candidates, teacher, store)
    assert made.scored == 6 * 2 * 5
    assert scores_of(collection, queries, candidates, store, teacher.key)
    more = {query: [*ids, "bread0"] for query, ids in candidates.items()}
    with pytest.raises(InputError, match="have no score"):
        score(collection, queries, more, teacher, store)


def test_stored_scores_know_the_candidates_by_themselves(collection, queries, candidates, tmp_path):
    for name in ("all", "windows"):
        store, teacher = ScoreStore(tmp_path / name), make(name, Reader())
        score(collection, queries, candidates, teacher, store)
        [found] = stored_scores(collection, queries, store.path, [], None, Drops())
        expected = scores_of(collection, queries, candidates, store, teacher.key)
        assert set(found) == set(expected)
        assert all(found[query] == pytest.approx(expected[query]) for query in expected)


def test_a_later_longer_list_counts_once_it_is_finished(collection, queries, candidates, tmp_path):
    store, short = ScoreStore(tmp_path), {q: ids[4:] for q, ids in candidates.items()}
    teacher = make("windows", Reader())
    score(collection, queries, short, teacher, store)
    before = scores_of(collection, queries, candidates, store, teacher.key)
    assert {q: set(found) for q, found in before.items()} == {q: set(i) for q, i in short.items()}
    failing = make("windows", Reader(failing=lambda prompt: 1))
    score(collection, queries, candidates, failing, store)
    assert scores_of(collection, queries, candidates, store, teacher.key) == before
    score(collection, queries, candidates, teacher, store)
    after = scores_of(collection, queries, candidates, store, teacher.key)
    assert all(len(found) == 8 for found in after.values())


@pytest.mark.parametrize("aggregate", ["win_rate", "copeland", "bradley_terry"])
def test_pairs_can_be_aggregated_in_other_ways(
    aggregate, collection, queries, candidates, tmp_path
):
    store, teacher = ScoreStore(tmp_path), make("all", Reader())
    score(collection, queries, candidates, teacher, store)
    found = scores_of(collection, queries, candidates, store, teacher.key, aggregate)
    for query, scores in found.items():
        overlap = overlaps(collection, queries, query, scores)
        for one in scores:
            assert all(scores[one] >= scores[d] - 1e-6 for d in scores if overlap[one] > overlap[d])
    name = f"{teacher.key.model}?aggregate={aggregate}"
    [stored] = stored_scores(collection, queries, tmp_path, [name], candidates, Drops())
    assert stored == found
    with pytest.raises(InputError, match="choose one of win_rate"):
        scores_of(collection, queries, candidates, store, teacher.key, "borda")


@pytest.mark.parametrize("aggregate", ["reciprocal_rank", "borda"])
@pytest.mark.parametrize("name", ["windows", "heap"])
def test_lists_can_be_aggregated_in_other_ways(
    name, aggregate, collection, queries, candidates, tmp_path
):
    store, teacher = ScoreStore(tmp_path), make(name, Reader())
    score(collection, queries, candidates, teacher, store)
    found = scores_of(collection, queries, candidates, store, teacher.key, aggregate)
    for query, scores in found.items():
        overlap = overlaps(collection, queries, query, candidates[query])
        assert overlap[max(scores, key=scores.__getitem__)] == max(overlap.values())


def test_documents_of_one_text_are_shown_once_and_score_alike(tmp_path):
    rows = [
        {"_id": i, "title": "", "text": f"sparrow {w}"} for i, w in zip("abc", "xxy", strict=True)
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    queries = [{"_id": id, "text": "sparrow y"} for id in ("q1", "q2")]  # of one text, too
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries))
    collection, reader = open_collection(str(tmp_path)), Reader()
    store, wanted = ScoreStore(tmp_path / "store"), {"q1": ["a", "b", "c"], "q2": ["c", "b"]}
    texts = {"q1": "sparrow y", "q2": "sparrow y"}
    teacher = make("all", reader)
    score(collection, texts, wanted, teacher, store)
    assert len(reader.asked) == 2  # a before c, c before a
    found = scores_of(collection, texts, wanted, store, teacher.key)
    assert found["q1"]["a"] == found["q1"]["b"] < found["q1"]["c"] == found["q2"]["c"]


def test_a_changed_text_is_compared_again_and_counted(collection, tiny_collection, tmp_path):
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "queries.jsonl").write_text((tiny_collection / "queries.jsonl").read_text())
    lines = (tiny_collection / "corpus.jsonl").read_text().splitlines()
    first = json.loads(lines[0]) | {"text": "a quite different text about sparrow"}
    (changed / "corpus.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    queries, store = collection.query_texts("train"), ScoreStore(tmp_path / "store")
    wanted = {next(iter(queries)): ["birds0", "birds1", "birds2"]}
    for opened, expected in ((collection, (6, 0, 0)), (open_collection(str(changed)), (4, 2, 4))):
        made = score(opened, queries, wanted, make("all", Reader()), store)
        assert (made.scored, made.reused, made.stale) == expected


def test_a_single_candidate_is_not_compared_and_not_scored(collection, queries, tmp_path):
    query = next(iter(queries))
    for name in (*PAIRWISE, *LISTWISE):
        store, reader = ScoreStore(tmp_path / name), Reader()
        score(collection, queries, {query: ["birds0"]}, make(name, reader), store)
        key = make(name, reader).key
        assert reader.asked == []
        assert scores_of(collection, queries, {query: ["birds0"]}, store, key) == {}


def test_unknown_queries_and_documents_are_named(collection, queries, tmp_path):
    teacher, store = make("all", Reader()), ScoreStore(tmp_path)
    with pytest.raises(InputError, match="nobody"):
        score(collection, queries, {"nobody": ["birds0"]}, teacher, store)
    with pytest.raises(InputError, match="nowhere"):
        score(collection, queries, {next(iter(queries)): ["nowhere"]}, teacher, store)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("pairwise:M?pairs=some", "some"),
        ("pairwise:M?reach=2", "reach"),
        ("pairwise:M?by=bm25", "by"),
        ("listwise:M?how=heap&window=4", "window"),
        ("listwise:M?window=4&stride=4", "carried"),
        ("listwise:M?prompt=nice", "nice"),
        ("listwise:M?pairs=all", "no option 'pairs'"),
    ],
)
def test_impossible_options_are_named(spec, problem, collection):
    with pytest.raises(InputError, match=problem):
        open_teacher(spec, collection, open_model=lambda name: Reader())


def test_other_words_or_another_budget_are_another_teacher():
    keys = [
        make("all", Reader()).key,
        PairwiseTeacher(Reader(), PairwiseOptions(answer="words")).key,
        PairwiseTeacher(Reader(), PairwiseOptions(passage_tokens=64)).key,
        PairwiseTeacher(Reader(), PairwiseOptions(cut="beginning")).key,
        PairwiseTeacher(Reader(), PairwiseOptions(prompt="duot5")).key,
        make("windows", Reader()).key,
        make("first logits", Reader()).key,
        make("heap", Reader()).key,
    ]
    assert len({key.fingerprint for key in keys}) == len(keys)
    assert make("adjacent", Reader()).key == keys[0]
    assert make("tournament", Reader()).key == keys[5]


def test_too_many_passages_for_the_labels_are_refused(collection, queries, tmp_path):
    everything = {next(iter(queries)): list(collection.documents.ids())}
    options = ListwiseOptions(window=40, stride=20, answer="logits")
    with pytest.raises(InputError, match="26 labels"):
        score(
            collection,
            queries,
            everything,
            ListwiseTeacher(Reader(), options),
            ScoreStore(tmp_path),
        )


@pytest.mark.parametrize("kind", ["pairwise", "listwise"])
def test_a_real_decoder_answers_locally(
    kind, collection, queries, candidates, tiny_decoder, tmp_path
):
    store, some = ScoreStore(tmp_path), {q: ids[:3] for q, ids in list(candidates.items())[:2]}
    spec = f"{kind}:{tiny_decoder}?answer=logits&passage_tokens=24"
    teacher = open_teacher(spec, collection)
    made = score(collection, queries, some, teacher, store)
    assert made.missing == 0 and made.scored == made.pairs
    found = scores_of(collection, queries, some, store, teacher.key)
    assert all(np.isfinite(list(scores.values())).all() for scores in found.values())
    assert store.verify() == []
    assert score(collection, queries, some, open_teacher(spec, collection), store).scored == 0


def test_a_decoder_that_never_learnt_to_rank_ranks_nothing_in_words(
    collection, queries, candidates, tiny_decoder, tmp_path
):
    store, some = ScoreStore(tmp_path), {q: ids[:3] for q, ids in list(candidates.items())[:2]}
    teacher = open_teacher(f"listwise:{tiny_decoder}?passage_tokens=24", collection)
    made = score(collection, queries, some, teacher, store)
    assert made.unparsable == made.scored == 2 * 2  # once more the other way round
    assert scores_of(collection, queries, some, store, teacher.key) == {}


@pytest.mark.parametrize(
    ("own", "others"),
    [("windows", ("tournament", "long windows")), ("all", ("adjacent",)), ("adjacent", ("all",))],
)
def test_a_strategy_has_the_score_that_it_would_have_alone(
    own, others, collection, queries, candidates, tmp_path
):
    """Whatever other strategies asked of the same model, before or after, also of longer lists."""
    few = {query: ids[:5] for query, ids in candidates.items()}
    alone, store = ScoreStore(tmp_path / "alone"), ScoreStore(tmp_path / "shared")
    teacher = make(own, Reader())
    score(collection, queries, few, teacher, alone)
    expected = scores_of(collection, queries, few, alone, teacher.key)
    score(collection, queries, few, teacher, store)
    for name in others:
        asked = candidates if name == "long windows" else few
        score(collection, queries, asked, make(name.removeprefix("long "), Reader()), store)
    assert len(store.teachers()) == 1
    assert scores_of(collection, queries, few, store, teacher.key) != expected  # the latest one's
    how = {"strategy": teacher.strategy}
    assert scores_of(collection, queries, few, store, teacher.key, **how) == expected
    unasked = {query: ids[::-1] for query, ids in few.items()}
    if own == "windows":
        assert scores_of(collection, queries, unasked, store, teacher.key, **how) == {}
