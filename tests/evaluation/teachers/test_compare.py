"""Teachers side by side: each number of the record from answers whose worth is known."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from retrieval_kd.cli.app import main
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import Run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.teachers.compare import (
    Prices,
    compare_teachers,
    disagreement,
    ranks_few,
)
from retrieval_kd.evaluation.teachers.show import print_comparison
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import Spent, record_usage
from retrieval_kd.targets.normalise import z_scores
from retrieval_kd.teachers.comparing.conclude import check_aggregations
from retrieval_kd.teachers.comparing.listwise import ListwiseOptions, ListwiseTeacher
from retrieval_kd.teachers.comparing.pairwise import PairwiseOptions, PairwiseTeacher
from retrieval_kd.teachers.score import score, scores_of
from retrieval_kd.teachers.spec import open_teacher
from tests.teachers.reader import Reader

DEPTH = 6


class Told:
    """A pointwise teacher that was told what to say: query text → document ID → score."""

    def __init__(self, name: str, scores) -> None:
        self.key, self.scores = TeacherKey("pointwise", name, digest=name), scores

    def score(self, queries, documents):
        pairs = zip(queries, documents, strict=True)
        return np.array([self.scores(query, document.id) for query, document in pairs])


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def run(collection: Collection) -> Run:
    """First-stage candidates, the relevant documents always among them, last."""
    found = bm25_run(collection, collection.query_texts("test"), DEPTH)
    return Run(
        "first",
        {
            query: {**dict.fromkeys(collection.qrels("test")[query], -1.0), **hits}
            for query, hits in found.results.items()
        },
    )


@pytest.fixture(scope="module")
def store(collection: Collection, run: Run, tmp_path_factory) -> ScoreStore:
    store = ScoreStore(tmp_path_factory.mktemp("compare") / "scores")
    queries, qrels = collection.query_texts("test"), collection.qrels("test")
    gains = {queries[q]: judged for q, judged in qrels.items()}
    wanted = {query: list(found) for query, found in run.results.items()}
    teachers = [
        Told("models/knows", lambda query, id: 3.0 * gains[query].get(id, 0) - 2.0),
        Told("models/inverts", lambda query, id: -3.0 * gains[query].get(id, 0)),
        Told("models/ties", lambda query, id: 0.5),
        open_teacher("bm25", collection),
        PairwiseTeacher(Reader(lean=0.5), PairwiseOptions()),
        ListwiseTeacher(
            Reader(garbled=lambda prompt: "bread" in prompt.user),
            ListwiseOptions(window=4, stride=2),
        ),
    ]
    for teacher in teachers:
        score(collection, queries, wanted, teacher, store)
    pairwise = store.folder(store.resolve("pairwise:reader"))
    record_usage(pairwise, Spent(calls=300, prompt_tokens=9_000, answer_tokens=300, seconds=6.0))
    return store


@pytest.fixture(scope="module")
def record(collection, store):
    return compare_teachers(collection, "test", store, prices=Prices(prompt=2.0, answer=10.0))


def test_each_teacher_is_measured_as_a_run_of_what_it_answered(record, collection, store, run):
    found = scores_of(
        collection, collection.query_texts("test"),
        {query: list(hits) for query, hits in run.results.items()}, store, store.resolve("bm25"),
    )  # fmt: skip
    expected = evaluate(collection.qrels("test"), [Run("bm25", found)], ["ndcg@10"])
    assert record["teachers"]["bm25"]["ndcg@10"] == pytest.approx(expected.mean("bm25", "ndcg@10"))
    assert record["teachers"]["knows"]["ndcg@10"] == 1.0
    assert record["teachers"]["inverts"]["ndcg@10"] < record["teachers"]["bm25"]["ndcg@10"]


def test_agreement_with_labels_and_with_each_other(record):
    labels = {name: one["with_labels"] for name, one in record["teachers"].items()}
    assert labels["knows"] == {"kendall": pytest.approx(1.0), "rbo": 1.0}
    assert labels["inverts"]["kendall"] == pytest.approx(-1.0)
    assert labels["ties"]["kendall"] is None  # it orders nothing
    between = {(one["a"], one["b"]): one for one in record["agreement"]}
    apart = {(one["a"], one["b"]): one for one in record["disagreement"]}
    both = next(pair for pair in between if set(pair) == {"knows", "inverts"})
    assert between[both]["kendall"] == pytest.approx(-1.0)
    assert apart[both]["apart"] == 1.0
    assert apart[both]["a_right"] == (1.0 if both[0] == "knows" else 0.0)
    clash = apart[both]["worst"][0]
    better, worse = ("a", "b") if both[0] == "knows" else ("b", "a")
    assert clash[f"{better}_prefers"]["gain"] > (clash[f"{worse}_prefers"]["gain"] or 0)
    assert clash["query"] and clash["a_prefers"]["text"]


def test_order_bias_and_parse_failures_are_counted(record):
    pairwise, listwise = (
        record["teachers"]["pairwise:reader"],
        record["teachers"]["listwise:reader"],
    )
    assert pairwise["order_bias"]["log_odds"] == pytest.approx(0.5, abs=1e-5)
    assert pairwise["statuses"]["unparsable"] == 0
    assert listwise["statuses"]["unparsable"] > 0 and listwise["order_bias"] is None
    assert listwise["queries"] < pairwise["queries"]  # a failure is no answer, not the old order
    assert record["teachers"]["bm25"]["statuses"] is None


def test_cost_is_that_of_1000_queries(record):
    cost = record["teachers"]["pairwise:reader"]["cost"]
    queries = cost["queries"]
    assert cost["per_1000_queries"]["calls"] == pytest.approx(300_000 / queries)
    price = (9_000 * 2.0 + 300 * 10.0) / 1e6  # of all that was asked
    assert cost["per_1000_queries"]["price"] == pytest.approx(1000 * price / queries)
    assert record["teachers"]["bm25"]["cost"] is None  # unknown is not nothing


def test_a_teacher_that_ran_here_costs_hours_and_one_on_a_server_tokens():
    spent = Spent(calls=1, prompt_tokens=1_000_000, answer_tokens=500_000, seconds=360.0, cost=7.0)
    prices = Prices(prompt=2.0, answer=4.0, hour=10.0)
    assert prices.of(spent, served=True) == pytest.approx(2.0 + 2.0)
    assert prices.of(spent, served=False) == pytest.approx(1.0)
    assert Prices().of(spent, served=True) == 7.0  # as was noted
    assert Prices(prompt=2.0).of(spent, served=False) is None


def test_teachers_are_tested_on_what_all_of_them_scored(record):
    shared = record["shared"]
    assert shared["queries"] == record["teachers"]["listwise:reader"]["queries"]
    assert shared["ndcg@10"]["knows"] == 1.0
    pairs = {frozenset((test["a"], test["b"])) for test in shared["tests"]}
    assert len(pairs) == 6 * 5 / 2


def test_calibration_is_measured_on_unseen_queries(record):
    """`knows` is right but says so weakly: calibrated it is nearly sure."""
    loss = record["teachers"]["knows"]["calibration"]["log_loss"]
    assert loss["calibrated"] < loss["raw"] and loss["calibrated"] < loss["base_rate"]


def test_an_aggregation_that_nobodys_answers_need_is_refused(store):
    keys = store.teachers()
    check_aggregations(keys, ["copeland", "borda"])
    pairs = [key for key in keys if key.kind == "pairwise"]
    with pytest.raises(InputError, match="'borda': no listwise teacher is there"):
        check_aggregations(pairs, ["copeland", "borda"])
    with pytest.raises(InputError, match="'win_rate': a second one of pairwise answers"):
        check_aggregations(keys, ["copeland", "win_rate"])


def test_another_aggregation_changes_only_teachers_of_its_kind(record, collection, store):
    other = compare_teachers(collection, "test", store, aggregate=["copeland", "borda"])
    told = {name: one["aggregate"] for name, one in other["teachers"].items()}
    assert told["pairwise:reader"] == "copeland" and told["listwise:reader"] == "borda"
    assert told["bm25"] is None
    assert other["teachers"]["knows"]["ndcg@10"] == record["teachers"]["knows"]["ndcg@10"]
    with pytest.raises(InputError, match="no aggregation 'elo'"):
        compare_teachers(collection, "test", store, aggregate=["elo"])


def test_only_the_given_candidates_count_and_their_own_order_is_measured(collection, store, run):
    two = Run("first", {q: dict(list(hits.items())[:2]) for q, hits in run.results.items()})
    found = compare_teachers(collection, "test", store, ["bm25", "models/knows"], candidates=two)
    assert found["teachers"]["bm25"]["documents_per_query"] == 2
    assert "candidates" in found["shared"]["ndcg@10"]


def test_a_teacher_of_other_queries_is_left_out_and_named(collection, tmp_path):
    store = ScoreStore(tmp_path / "scores")
    train = list(collection.query_texts("train").items())[:2]
    ids = [next(iter(collection.qrels("train")[query])) for query, _ in train]
    wanted = {query: [id] for (query, _), id in zip(train, ids, strict=True)}
    score(collection, dict(train), wanted, Told("elsewhere", lambda q, d: 1.0), store)
    with pytest.raises(InputError, match="no teacher answered about judged queries"):
        compare_teachers(collection, "test", store)
    test = collection.query_texts("test")
    here = {query: list(collection.qrels("test")[query]) for query in test}
    score(collection, test, here, Told("here", lambda q, d: 1.0), store)
    found = compare_teachers(collection, "test", store)
    assert list(found["teachers"]) == ["here"]
    assert [one["model"] for one in found["silent"]] == ["elsewhere"]


def test_the_tables_name_every_teacher_and_survive_any_width(record):
    for width in (60, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        print_comparison(record, console)
        text = console.export_text()
        for name in record["teachers"]:
            assert name in text.replace("\n", "")


def test_the_command_as_written(tiny_collection, store, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # narrower, headings may be folded
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    write_run(run, tmp_path / "run.trec")
    main_arguments = [
        "teach", "compare", "--collection", str(tiny_collection), "--split", "test",
        "--store", str(store.path), "--json", str(out), "--reliability", str(page),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(main_arguments)
    assert end.value.code == 0
    record = json.loads(out.read_text())
    assert {"bm25", "knows", "pairwise:reader"} <= record["teachers"].keys()
    assert "<svg" in page.read_text() and "http" not in page.read_text().split("<svg")[0]
    printed = capsys.readouterr().out
    assert "nDCG@10" in printed and "Strongest disagreements" in printed


def test_what_is_shown_as_a_name_is_taken_as_one(record, store):
    for name, one in record["teachers"].items():
        assert store.resolve(name).fingerprint == one["fingerprint"]


def test_names_of_a_part_of_the_store_mean_the_same_in_all_of_it(collection, tmp_path):
    """Two teachers of one short name, of which one is asked for."""
    store, queries = ScoreStore(tmp_path / "scores"), collection.query_texts("test")
    wanted = {query: list(collection.qrels("test")[query]) for query in queries}
    for model, said in (("one/big", 1.0), ("two/big", 2.0)):
        score(collection, queries, wanted, Told(model, lambda q, d, said=said: said), store)
    assert list(compare_teachers(collection, "test", store, ["one/big"])["teachers"]) == ["one/big"]
    with pytest.raises(InputError, match="no such teacher"):
        store.resolve("big")
    same = Told("one/big", lambda q, d: 3.0)
    same.key = TeacherKey("pointwise", "one/big", digest="another version")
    score(collection, queries, wanted, same, store)
    shown = list(compare_teachers(collection, "test", store)["teachers"])
    assert len({store.resolve(name).fingerprint for name in shown}) == 3
    with pytest.raises(InputError, match="several teachers match"):
        store.resolve("one/big")


def test_a_teacher_that_is_named_twice_is_compared_once(collection, store):
    names = ["bm25", "knows", "bm25"]
    assert list(compare_teachers(collection, "test", store, names)["teachers"]) == names[:2]


def test_who_shrinks_the_shared_comparison_is_named(record, collection, store):
    [one] = record["held_back"]
    assert one["name"] == "listwise:reader"
    assert one["queries"] == one["shared"] == record["shared"]["queries"]
    others = [name for name in record["teachers"] if name != "listwise:reader"]
    without = compare_teachers(collection, "test", store, others)
    assert one["others"] == without["shared"]["queries"] > one["shared"]
    assert without["held_back"] == []
    told = shown(record)
    assert f"listwise:reader answered about {one['queries']} queries" in told


def test_who_ranks_few_documents_is_named(record):
    """Two lists of which most labels are missing: without both, the others share all documents."""
    qrels = {"q": {"d0": 1}}
    whole, some = ({"q": {f"d{i}": float(-i) for i in range(n)}} for n in (10, 3))
    lists = {"whole": whole, "list": some, "other list": some, "too": whole}
    found = ranks_few(lists, qrels)
    assert found == {"names": ["list", "other list"], "shared": 3.0, "others": 10.0}
    assert ranks_few({"whole": whole, "too": whole}, qrels) is None
    told = " ".join(shown({**record, "ranks_few": found}).split())
    assert (
        "list, other list ranked few documents: `shared` covers the 3.0 documents per query" in told
    )


def test_few_clashes_are_shown_and_the_strongest(record):
    every = sorted(
        (clash["strength"] for one in record["disagreement"] for clash in one["worst"]),
        reverse=True,
    )
    lines = shown(record, worst=2).splitlines()
    marked = [line for line in lines if line.startswith("  ") and not line.startswith("    ")]
    assert [line.split()[0] for line in marked[:2]] == [f"{value:.2f}" for value in every[:2]]
    assert sum(line.startswith("    ") for line in lines) == 2 * 2
    assert f"{len(every) - 2:,} more: " in marked[2]
    assert "Strongest" not in shown(record, worst=0)


def shown(record, **more) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    print_comparison(record, console, **more)
    return console.export_text()


values = st.lists(st.sampled_from([0.0, 1.0, 1.5, 4.0]), min_size=5, max_size=5)


def by_document(query_values):
    return {q: {f"d{i}": v for i, v in enumerate(row)} for q, row in query_values.items()}


@given(values, values, st.sets(st.integers(0, 4)))
def test_clashes_by_counting(a, b, relevant):
    found = disagreement(
        by_document({"q": a}), by_document({"q": b}), {"q": {f"d{i}": 1 for i in relevant}}
    )
    za, zb = z_scores(np.array(a)), z_scores(np.array(b))
    apart = judged = right = both = 0
    strongest = 0.0
    for i, j in itertools.combinations(range(5), 2):
        of_a, of_b = za[i] - za[j], zb[i] - zb[j]
        both += of_a != 0 and of_b != 0
        if of_a * of_b < 0:
            apart += 1
            strongest = max(strongest, min(abs(of_a), abs(of_b)))
            if (i in relevant) != (j in relevant):
                judged += 1
                right += (of_a > 0) == (i in relevant)
    assert found["pairs"] == both and found["judged"] == judged
    assert found["apart"] == (pytest.approx(apart / both) if both else None)
    assert found["a_right"] == (pytest.approx(right / judged) if judged else None)
    assert [c.strength for c in found["worst"]] == ([pytest.approx(strongest)] if apart else [])


@given(values, values)
def test_turning_the_teachers_round_turns_who_is_right(a, b):
    qrels = {"q": {"d0": 1, "d3": 2}}
    one = disagreement(by_document({"q": a}), by_document({"q": b}), qrels)
    other = disagreement(by_document({"q": b}), by_document({"q": a}), qrels)
    assert one["apart"] == other["apart"]
    if one["judged"]:
        assert one["a_right"] == pytest.approx(1 - other["a_right"])


def test_the_worst_of_each_query_is_shown_the_strongest_first():
    a = by_document({"mild": [3.0, 2.9, 0.0], "strong": [3.0, 0.0, 0.0]})
    b = by_document({"mild": [2.9, 3.0, 0.0], "strong": [0.0, 3.0, 3.0]})
    worst = disagreement(a, b, {}, most=1)["worst"]
    assert [clash.query for clash in worst] == ["strong"]
    assert [c.query for c in disagreement(a, b, {})["worst"]] == ["strong", "mild"]


def test_a_teacher_that_ties_everything_contradicts_nobody():
    a, b = by_document({"q": [1.0, 1.0, 1.0]}), by_document({"q": [1.0, 2.0, 3.0]})
    found = disagreement(a, b, {})
    assert found["apart"] is None and found["worst"] == []
