"""Measures with and without the overlapping queries, and the tests between them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from retrieval_kd.audit.audit import GROUPS, audit
from retrieval_kd.audit.effect import effect, evaluate_groups
from retrieval_kd.audit.show import audit_summary, print_audit
from retrieval_kd.cli.app import app, main
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run, read_run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.evaluate_runs import evaluate_files
from retrieval_kd.evaluation.result_file import Outputs
from retrieval_kd.files import read_json, write_json
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.significance import compare

RNG = np.random.default_rng(0)
QUERIES = [f"q{i}" for i in range(40)]
PARTS = {"all": QUERIES, "clean": QUERIES[:25], "query": QUERIES[25:], "relevant document": []}


def evaluation(**systems):
    return Evaluation(
        ["ndcg@10"],
        {name: {"ndcg@10": dict(zip(QUERIES, values, strict=True))} for name, values in
         systems.items()},
    )  # fmt: skip


@pytest.fixture(scope="module")
def spec(tiny_collection):
    return str(tiny_collection)


@pytest.fixture(scope="module")
def half_leaked(spec, tmp_path_factory):
    """An audit that finds every second test query in a file of generated text."""
    test = open_collection(spec).query_texts("test")
    path = tmp_path_factory.mktemp("files") / "made.txt"
    path.write_text("\n".join(list(test.values())[::2]) + "\n")
    return audit([f"file:{path}"], f"{spec}:test"), path


@pytest.fixture(scope="module")
def runs(spec, tmp_path_factory):
    """An oracle and its reverse, as run files."""
    folder, qrels = tmp_path_factory.mktemp("runs"), open_collection(spec).qrels("test")
    documents = [*open_collection(spec).documents.ids()][:20]
    for name, sign in (("oracle", 1), ("reversed", -1)):
        results = {
            query: {d: sign * float(judged.get(d, 0)) for d in {*documents, *judged}}
            for query, judged in qrels.items()
        }
        write_run(Run(name, results), folder / f"{name}.trec")
    return [folder / "oracle.trec", folder / "reversed.trec"]


def test_gaps_are_welchs_test_between_groups():
    values = RNG.random(40)
    found = effect(evaluation(a=values), PARTS)
    [gap] = found.gaps
    expected = stats.ttest_ind(values[25:], values[:25], equal_var=False)
    assert gap.p == pytest.approx(expected.pvalue) and (gap.queries, gap.clean_queries) == (15, 25)
    assert gap.difference == pytest.approx(values[25:].mean() - values[:25].mean())
    assert gap.low < gap.difference < gap.high


def test_a_baseline_takes_out_how_easy_the_queries_are():
    easy = np.where(np.arange(40) < 25, 0.2, 0.8) + 0.01 * RNG.random(40)
    found = effect(evaluation(base=easy, student=easy + 0.05), PARTS, baseline="base")
    own, against = (gap for gap in found.gaps if gap.system == "student")
    assert own.difference == pytest.approx(0.6, abs=0.02) and own.p_holm < 0.001
    assert against.baseline == "base" and against.difference == pytest.approx(0, abs=1e-9)
    assert against.p_holm == 1.0


def test_systems_are_compared_by_paired_tests_within_each_group():
    system = evaluation(a=RNG.random(40), b=RNG.random(40))
    found = effect(system, PARTS)
    assert found.comparisons["all"] == compare(system)
    assert [c.queries for c in found.comparisons["clean"]] == [25]
    assert "relevant document" not in found.comparisons  # nobody is in it


def test_groups_too_small_for_a_test_say_nothing():
    lonely = {**PARTS, "clean": QUERIES[:39], "query": QUERIES[39:]}
    [gap] = effect(evaluation(a=RNG.random(40)), lonely).gaps
    assert gap.p == 1.0 and gap.low is None and gap.difference is not None


@pytest.mark.parametrize(("own", "clean", "p"), [(2, 2, 1 / 3), (2, 3, 1 / 10), (6, 6, 1 / 462)])
def test_a_few_queries_of_one_value_are_no_proof(own, clean, p):
    """Welch's t is infinite there; p is the share of all splits that are as far apart."""
    queries = [f"q{i}" for i in range(own + clean)]
    values = {q: 1.0 if i < own else 0.5 for i, q in enumerate(queries)}
    groups = {"all": queries, "clean": queries[own:], "query": queries[:own]}
    system = Evaluation(["map"], {"a": {"map": values}})
    [gap] = effect(system, groups | {"relevant document": []}).gaps
    assert gap.p == pytest.approx(p) and gap.difference == 0.5


def test_without_clean_queries_there_is_a_sentence_in_place_of_an_empty_table(half_leaked):
    groups = {"all": QUERIES, "clean": [], "query": QUERIES, "relevant document": []}
    out = io.StringIO()
    print_audit(
        half_leaked[0], effect(evaluation(a=RNG.random(40)), groups), rows=2,
        console=Console(file=out, width=200),
    )  # fmt: skip
    assert "No query is clean" in out.getvalue() and "Welch" not in out.getvalue()


def test_groups_share_out_all_queries(half_leaked):
    groups = half_leaked[0].groups()
    assert tuple(groups) == GROUPS
    parts = [query for name in GROUPS[1:] for query in groups[name]]
    assert sorted(parts) == sorted(groups["all"]) and groups["query"] and groups["clean"]


def test_runs_and_a_result_file_give_the_same_effect(half_leaked, runs, spec, tmp_path):
    qrels = open_collection(spec).qrels("test")
    from_runs = evaluate_groups(half_leaked[0], runs, measures=["ndcg@10"], baseline="reversed")
    read = {path.stem: read_run(path) for path in runs}
    write_json(tmp_path / "results.json", evaluate(qrels, read, ["ndcg@10"]).to_json())
    again = evaluate_groups(half_leaked[0], [], tmp_path / "results.json", baseline="reversed")
    assert again == from_runs
    assert from_runs.means["oracle"]["ndcg@10"]["clean"] == 1.0


def test_a_result_file_is_of_the_audited_texts_and_judgments(half_leaked, runs, spec, tmp_path):
    """Also one collection of a suite's file; that of other judgments is refused, not measured."""
    found, path = half_leaked[0], tmp_path / "results.json"
    outputs = Outputs(json=path)
    evaluate_files(runs, collection=spec, split="test", measures="ndcg@10", outputs=outputs)
    measured = evaluate_groups(found, [], path)
    assert measured.means["oracle"]["ndcg@10"]["clean"] == 1.0
    one, train = read_json(path), tmp_path / "train.json"
    other = json.loads(json.dumps(one))
    other["inputs"]["judgments"]["texts_digest"] = "other"
    suite = {"suite": "s", "collections": {"elsewhere": other, "birds": one}}
    write_json(tmp_path / "suite.json", suite)
    assert evaluate_groups(found, [], tmp_path / "suite.json") == measured
    one["inputs"]["judgments"]["qrels_digest"] = "that of another split"
    write_json(train, one)
    for wrong in (other, one):
        write_json(train, wrong)
        with pytest.raises(
            InputError, match=r"for different texts or judgments.*To fix: audit the"
        ):
            evaluate_groups(found, [], train)


def test_what_is_printed_and_summarised(half_leaked, runs):
    found = half_leaked[0]
    measured = evaluate_groups(found, runs, measures=["ndcg@10"])
    out = io.StringIO()
    print_audit(found, measured, rows=2, console=Console(file=out, width=200))
    shown = out.getvalue()
    for text in ("queries are clean", "query: overlapping pairs", "more, see --json", "nDCG@10",
                 "not checked:", "oracle", "Welch"):  # fmt: skip
        assert text in shown, text
    summary = json.loads(json.dumps(audit_summary(found, measured, examples=1)))
    assert summary["queries"]["all"] == len(found.queries) and len(summary["examples"]) == 1
    assert summary["effect"]["means"]["oracle"]["ndcg@10"]["all"] == 1.0
    assert audit_summary(found)["effect"] is None


def test_the_command_writes_every_pair_and_fails_only_when_asked(half_leaked, runs, spec, tmp_path):
    made, out = f"file:{half_leaked[1]}", tmp_path / "audit.json"
    call = ["audit", "--train", made, "--train", f"{spec}:train", "--eval", f"{spec}:test"]
    done = CliRunner().invoke(app, [*call, "--json", str(out), "--run", str(runs[0])])
    assert done.exit_code == 0 and "queries are clean" in " ".join(done.output.split())
    record = read_json(out)
    assert {"eval_id", "train_id", "eval_text", "train_text", "kind", "kinds"} <= set(
        record["pairs"][0]
    )
    assert record["effect"]["means"]["oracle"] and len(record["trained"]) == 2
    assert sum(record["queries"][name] for name in GROUPS[1:]) == record["queries"]["all"]
    assert CliRunner().invoke(app, [*call, "--fail-on-overlap"]).exit_code == 1


def test_an_embedding_model_adds_its_neighbours(half_leaked, spec, tiny_encoder, tmp_path):
    made, out = f"file:{half_leaked[1]}", tmp_path / "audit.json"
    call = ["audit", "--train", made, "--eval", f"{spec}:test", "--with", str(tiny_encoder)]
    assert CliRunner().invoke(app, [*call, "--cosine", "0.99", "--json", str(out)]).exit_code == 0
    record = read_json(out)
    assert record["counts"]["query"]["embedding"] >= record["counts"]["query"]["exact"] > 0


def test_wrong_results_are_named(half_leaked, runs, tmp_path, capsys, spec):
    found = half_leaked[0]
    write_json(tmp_path / "not.json", {"systems": {"a": {}}})
    with pytest.raises(InputError, match=r"not a result file.*rkd evaluate"):
        evaluate_groups(found, [], tmp_path / "not.json")
    with pytest.raises(InputError, match="no such file"):
        evaluate_groups(found, [], tmp_path / "missing.json")
    with pytest.raises(InputError, match="give either runs or a result file"):
        evaluate_groups(found, runs, tmp_path / "not.json")
    with pytest.raises(InputError, match="no query in common"):
        effect(evaluation(a=RNG.random(40)), {"all": ["z"], "clean": ["z"]})
    with pytest.raises(InputError, match=r"unknown system 'b'"):
        effect(evaluation(a=RNG.random(40)), PARTS, baseline="b")
    with pytest.raises(SystemExit) as stop:
        main(["audit", "--train", "train", "--eval", f"{spec}:test"])
    assert stop.value.code == 2 and "names no split" in capsys.readouterr().err
