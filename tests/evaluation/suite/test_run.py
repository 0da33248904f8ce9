"""`rkd suite`: real retrieval on small collections, from command line to page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from retrieval_kd.cli.app import main
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.result_file import is_intact, read_result
from retrieval_kd.evaluation.suite.report import (
    across,
    averages,
    costs,
    render,
    suite_record,
    systems_grid,
)
from retrieval_kd.evaluation.suite.run import evaluate_suite
from retrieval_kd.evaluation.suite.spec import load_suite
from retrieval_kd.evaluation.systems import system_key, system_names
from retrieval_kd.metrics.evaluation import Evaluation
from tests.tiny_models import write_collection


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three collections: of one the texts are other ones."""
    folder = tmp_path_factory.mktemp("suite-data")
    write_collection(folder / "birds")
    write_collection(folder / "ships", documents_per_topic=7)
    write_collection(folder / "stars", documents_per_topic=8)
    return folder


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """Two of the collections are one group; one collection is nowhere."""
    path = tmp_path_factory.mktemp("suite") / "mine.yaml"
    collections = {
        "birds": {},
        "ships": {"group": "pair"},
        "stars": {"group": "pair", "split": "dev"},
        "comets": {"irds": "beir/nfcorpus/test"},
    }
    suite = {"name": "Mine", "measures": ["nDCG@10", "R@5"], "collections": collections}
    path.write_text(yaml.safe_dump(suite))
    return path


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, data, suite, tiny_encoder):
    """The suite with three systems, in a cache of its own, and the lines that were told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path_factory.mktemp("suite-cache")))
        yield _evaluated(tmp_path_factory, data, suite, tiny_encoder)


def _evaluated(tmp_path_factory, data, suite, tiny_encoder):
    lines: list[str] = []
    out = tmp_path_factory.mktemp("out")
    systems = ["bm25", str(tiny_encoder), f"bm25+{tiny_encoder}"]
    run = lambda **more: evaluate_suite(  # noqa: E731
        suite, systems, data=data, out=out, baseline="bm25", progress=lines.append, **more
    )
    return run(), lines, run, out


def test_available_collections_are_evaluated_and_missing_ones_are_named(evaluated):
    result, lines, _, _ = evaluated
    assert list(result.collections) == ["birds", "ships", "stars"]
    assert list(result.missing) == ["comets"] and "--download" in result.missing["comets"]
    assert any("comets left out" in line for line in lines)
    assert result.systems == ["bm25", "encoder", result.systems[2]]
    assert result.collections["stars"].located.split == "dev"
    for found in result.collections.values():
        assert {c.b for c in found.comparisons} == {"bm25"}
        assert 0 < found.evaluation.mean("bm25", "ndcg@10") <= 1


def test_a_group_counts_once_in_the_average(evaluated):
    result, _, _, _ = evaluated
    birds, ships, stars = (
        result.collections[name].evaluation.mean("bm25", "ndcg@10")
        for name in ("birds", "ships", "stars")
    )
    average = averages(result)
    assert average.queries == ["birds", "pair"]
    assert average.mean("bm25", "ndcg@10") == pytest.approx((birds + (ships + stars) / 2) / 2)
    tests = across(result)
    assert {c.queries for c in tests} == {2} and not any(c.significant() for c in tests)


def test_a_group_with_a_missing_part_is_marked(evaluated):
    whole, _, _, _ = evaluated
    assert "pair of 2 parts" in systems_grid(whole).note
    present = {n: found for n, found in whole.collections.items() if n != "stars"}
    assert "pair of 1 of its 2 parts" in systems_grid(replace(whole, collections=present)).note


def test_costs_stand_beside_quality(evaluated):
    result, _, _, _ = evaluated
    bm25, encoder, fusion = (costs(result, system) for system in result.systems)
    assert "parameters" not in bm25 and bm25["index_bytes"] > 0
    assert encoder["dimensions"] == 32 and encoder["bytes_per_document"] == 4 * 32
    assert encoder["layers"] == 4 and encoder["parameters"] > 0
    assert fusion["parameters"] == encoder["parameters"]
    assert fusion["index_bytes"] == bm25["index_bytes"] + encoder["index_bytes"]
    for facts in (bm25, encoder, fusion):
        assert 0 < facts["latency_ms_p50"] <= facts["latency_ms_p95"]
    first = result.collections["birds"].costs
    assert first["encoder"]["index"] == "made now" and first["encoder"]["documents_per_second"] > 0
    # the fusion's parts were made for the systems before it
    assert first[result.systems[2]].get("documents_per_second") is None


def test_the_page_shows_quality_against_cost(evaluated):
    result, _, _, _ = evaluated
    page = render(result)
    for field in ("latency_ms_p50", "index_bytes", "parameters"):
        assert f'id="figure-{field}-' in page, field
    assert "var(--c3)" in page and "Unknown, so not shown: bm25." in page
    fusion = result.systems[2]
    row = next(row for row in systems_grid(result).rows if row[1].text == fusion)
    said = dict(zip(systems_grid(result).headers, row, strict=True))
    # its parts' indexes were there; how fast they were made was another system's
    assert said["Docs/s"].text == "–" and said["Parameters"].text != "–"


def test_a_second_time_nothing_is_retrieved_and_the_result_is_the_same(evaluated):
    result, lines, run, _ = evaluated
    lines.clear()
    again = run()
    done = [line for line in lines if line.startswith("    ")]
    assert len(done) == 3 * 4 and all("done already" in line for line in done)
    assert suite_record(again) == suite_record(result)


def test_a_new_system_or_changed_texts_redo_only_what_they_touch(tmp_path, data, suite):
    lines: list[str] = []
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    run = lambda *systems: evaluate_suite(  # noqa: E731
        suite,
        systems,
        data=mine,
        out=tmp_path / "out",
        only=["birds", "ships"],
        progress=lines.append,
    )
    run("bm25")
    lines.clear()
    run("bm25", "bm25-lucene")
    assert lines.count("    run:bm25 is done already") == 2
    assert lines.count("    run:bm25-lucene") == 2
    with open(mine / "birds" / "corpus.jsonl", "a") as corpus:
        corpus.write('{"_id": "new", "text": "sparrow wing"}\n')
    lines.clear()
    run("bm25")
    assert lines.count("    run:bm25") == 1, "birds, whose texts changed"
    assert lines.count("    run:bm25 is done already") == 1, "ships, which are as they were"


def test_the_result_file_is_sealed_and_read_back(evaluated, tmp_path):
    result, _, _, _ = evaluated
    record = suite_record(result)
    assert is_intact(json.loads(json.dumps(record)))
    (tmp_path / "out.json").write_text(json.dumps(record))
    file = read_result(tmp_path / "out.json")
    assert file.intact and list(file.collections) == list(result.collections)
    for name, found in result.collections.items():
        assert file.collections[name].evaluation.per_query == found.evaluation.per_query
        assert file.collections[name].judgments == found.inputs["judgments"]["qrels_digest"]
    assert record["average"]["of"] == {"birds": ["birds"], "pair": ["ships", "stars"]}


def test_the_page_names_everything_and_asks_for_nothing(evaluated):
    result, _, _, _ = evaluated
    page = render(result)
    for told in ("birds", "ships", "stars", "comets", "encoder", "Holm", "80 % power", "Left out"):
        assert told in page
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page


def test_names_cannot_harm_the_page(data, tmp_path):
    hostile = tmp_path / "data" / "<img src=x onerror=alert(1)>"
    shutil.copytree(data / "ships", hostile)
    result = evaluate_suite("local", data=tmp_path / "data", out=tmp_path / "out")
    assert "<img" not in render(result) and "&lt;img" in render(result)


def test_all_of_it_from_the_command_line(data, tmp_path, tiny_encoder, capsys):
    student = tmp_path / "student"
    shutil.copytree(tiny_encoder, student)
    files = {n: tmp_path / f"out.{n}" for n in ("json", "html", "tex", "md")}
    with pytest.raises(SystemExit) as stop:
        main(
            ["suite", "local", "--data", str(data), "--with", str(student),
             "--with", "bm25", "--out", str(tmp_path / "runs"), "--json", str(files["json"]),
             "--report", str(files["html"]), "--latex", str(files["tex"]), "--markdown",
             str(files["md"]), "--card", str(student), "--measures", "ndcg@10,map"]
        )  # fmt: skip
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "student" in shown and "average" in shown and "p95" in shown
    record = json.loads(files["json"].read_text())
    assert list(record["collections"]) == ["birds", "ships", "stars"] and record["digest"]
    value = Evaluation.from_json(record["collections"]["ships"]).mean("student", "map")
    assert f"{value:.4f}" in files["tex"].read_text() and f"{value:.4f}" in files["md"].read_text()
    assert r"\toprule" in files["tex"].read_text()
    assert "## Retrieval results" in (student / "README.md").read_text()
    assert files["html"].read_text().startswith("<!DOCTYPE html>")


def test_wrong_calls_are_named_before_anything_is_read(data, tmp_path):
    run = lambda *with_, **more: evaluate_suite("local", with_, data=data, out=tmp_path, **more)  # noqa: E731
    with pytest.raises(InputError, match="no such model folder"):
        run("bm25", "./nowhere/model")
    with pytest.raises(InputError, match="given twice"):
        run("bm25", "bm25")
    with pytest.raises(InputError, match="none of the systems"):
        run("bm25", baseline="bm52")
    with pytest.raises(InputError, match=r"no collection 'brids'.*birds"):
        run("bm25", only=["brids"])
    with pytest.raises(InputError, match="unknown measure"):
        run("bm25", measures="ndgc@10")
    with pytest.raises(InputError, match="no collection of this suite could be evaluated"):
        evaluate_suite("trec-dl-2019", data=data, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_retrieval_is_as_deep_as_the_measures_unless_a_depth_is_set(data, tmp_path):
    """Recall@150 of 100 documents would be too low, and nothing would say why."""
    lines: list[str] = []
    run = lambda out, **more: evaluate_suite(  # noqa: E731
        "local", data=data / "birds", out=tmp_path / out, progress=lines.append, **more
    )
    assert run("a", measures="recall@150,map").options.depth == 150
    assert run("b", measures="mrr@10").options.depth == load_suite("local").depth == 100
    assert not any("only" in line for line in lines)
    assert run("c", measures="recall@150", depth=5).options.depth == 5
    assert "only 5 documents per query are retrieved, but a measure looks at 150" in lines


def test_a_broken_collection_does_not_stop_the_others(data, tmp_path):
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    (mine / "birds" / "corpus.jsonl").write_text("not json\n")
    result = evaluate_suite("local", data=mine, out=tmp_path / "out")
    assert list(result.collections) == ["ships", "stars"]
    assert "broken JSON" in result.missing["birds"]


def test_a_system_is_named_and_keyed_by_what_it_is(tiny_encoder, tiny_dot_encoder, tmp_path):
    copy = tmp_path / tiny_encoder.name
    shutil.copytree(tiny_encoder, copy)
    assert list(system_names([str(tiny_encoder)])) == ["encoder"]
    assert list(system_names([str(tiny_encoder), str(copy)])) == [str(tiny_encoder), str(copy)]
    assert (
        system_key(str(copy)) == system_key(str(tiny_encoder)) != system_key(str(tiny_dot_encoder))
    )
    assert (
        len({system_key(name) for name in ("bm25", "bm25-lucene", "lucene", f"bm25+{copy}")}) == 4
    )
    fused = [f"lucene-multifield+{model}" for model in (copy, tiny_encoder, tiny_dot_encoder)]
    keys = [system_key(name) for name in fused]
    assert keys[0] == keys[1] != keys[2], "a changed model is another system"
