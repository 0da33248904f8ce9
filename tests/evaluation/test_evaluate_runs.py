"""`rkd evaluate`'s logic: files in, table and result file out."""

from __future__ import annotations

import io
import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard
from rich.console import Console

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.qrels import write_qrels
from retrieval_kd.data.runs import Run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.evaluate_runs import evaluate_files, run_names
from retrieval_kd.evaluation.result_file import Outputs
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.retrieval.retrieve import retrieve

QRELS = {f"q{i}": {f"d{i}": 1} for i in range(12)}


def write(folder, name, rank):
    """A run that puts the relevant document at this rank."""
    others = [f"x{j}" for j in range(9)]
    results = {}
    for i, query in enumerate(QRELS):
        order = [*others[: rank - 1], f"d{i}", *others[rank - 1 :]]
        results[query] = {document: -float(place) for place, document in enumerate(order)}
    folder.mkdir(exist_ok=True)
    write_run(Run("tag", results), folder / name)
    return folder / name


@pytest.fixture
def qrels(tmp_path):
    write_qrels(QRELS, tmp_path / "qrels.tsv")
    return tmp_path / "qrels.tsv"


def test_from_files_to_table_and_result_file(tmp_path, qrels):
    runs = [write(tmp_path, "bm25.trec", 2), write(tmp_path, "dense.trec", 1)]
    out = io.StringIO()
    evaluation, comparisons = evaluate_files(
        runs,
        qrels_path=qrels,
        measures="MRR@10,ndcg@10",
        baseline=str(runs[0]),
        outputs=Outputs(json=tmp_path / "out.json"),
        console=Console(file=out, width=100),
    )
    assert "0.5000" in out.getvalue() and "1.0000ᵃ" in out.getvalue()
    assert [(c.a, c.b) for c in comparisons] == [("dense", "bm25")] * 2
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["systems"]["dense"]["mean"] == {"mrr@10": 1.0, "ndcg@10": 1.0}
    assert record["systems"]["bm25"]["per_query"]["mrr@10"]["q3"] == 0.5
    assert {"p_t", "p_holm", "low", "high"} <= set(record["comparisons"][0])
    assert len(record["inputs"]["runs"]["bm25"]["digest"]) == 32
    assert record["inputs"]["judgments"]["path"] == str(qrels)
    assert record["counts"]["queries"] == 12 and record["rules"] and record["versions"]["ranx"]
    assert Evaluation.from_json(record).per_query == evaluation.per_query


def test_judgments_are_those_of_the_collections_split(tmp_path, tiny_collection):
    collection = open_collection(str(tiny_collection))
    results = {q: {d: float(g) for d, g in j.items()} for q, j in collection.qrels("dev").items()}
    write_run(Run("oracle", results), tmp_path / "oracle.trec")
    evaluation, _ = evaluate_files(
        [tmp_path / "oracle.trec"],
        collection=str(tiny_collection),
        split="dev",
        outputs=Outputs(json=tmp_path / "out.json"),
        console=Console(file=io.StringIO()),
    )
    assert evaluation.mean("oracle", "ndcg@10") == pytest.approx(1.0)
    source = json.loads((tmp_path / "out.json").read_text())["inputs"]["judgments"]
    assert source["split"] == "dev" and source["texts_digest"] == collection.digest()


def test_a_card_names_a_split_only_where_one_was_chosen(tmp_path, qrels, tiny_encoder):
    """Judgments of a file may be of any split, so "test" would be made up."""
    student = shutil.copytree(tiny_encoder, tmp_path / "student")
    run = write(tmp_path, "dense.trec", 1)
    quiet = Console(file=io.StringIO())
    evaluate_files([run], qrels_path=qrels, outputs=Outputs(card=student), console=quiet)
    [result] = ModelCard.load(student / "README.md").data.eval_results[:1]
    assert result.dataset_name == "qrels.tsv"


def test_a_card_finds_its_student_among_seeds(tmp_path, qrels, tiny_encoder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_encoder, tmp_path / "student")
    runs = [write(tmp_path, f"{name}.trec", i + 1) for i, name in enumerate(("student#seed1", "b"))]
    outputs = Outputs(card="student")
    evaluate_files(runs, qrels_path=qrels, outputs=outputs, console=Console(file=io.StringIO()))
    assert ModelCard.load(tmp_path / "student" / "README.md").data.eval_results


def test_files_named_by_seed_are_one_system(tmp_path, qrels):
    runs = [write(tmp_path, f"s#seed{i}.trec", i) for i in (1, 2)]
    evaluation, _ = evaluate_files(runs, qrels_path=qrels, console=Console(file=io.StringIO()))
    assert evaluation.systems == ["s"]
    assert evaluation.per_seed("s", "mrr@10") == [1.0, 0.5]


def test_a_run_is_not_taken_for_a_seed_of_its_own_name(tmp_path, qrels):
    runs = [write(tmp_path, f"{n}.trec", i + 1) for i, n in enumerate(("s", "s#seed1", "b"))]
    with pytest.raises(InputError, match=r"'s#seed1' looks like a seed of 's'.*To fix: rename"):
        evaluate_files(runs, qrels_path=qrels, console=Console(file=io.StringIO()))


def test_a_folder_named_like_a_seed_is_no_seed(tmp_path, qrels):
    runs = [write(tmp_path / f"x#{i}", "bm25.trec", i) for i in (1, 2)]
    quiet = Console(file=io.StringIO())
    evaluation, [c] = evaluate_files(runs, qrels_path=qrels, measures="mrr@10", console=quiet)
    assert evaluation.systems == ["x#1/bm25", "x#2/bm25"] and not evaluation.seeds
    assert (c.mean_a, c.mean_b) == (0.5, 1.0)


def test_a_card_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path, tiny_encoder, command
):
    """So neither runs nor judgments nor collections need be there for the message."""
    nowhere, student = tmp_path / "nowhere.trec", shutil.copytree(tiny_encoder, tmp_path / "s")
    for outputs, message in (
        (Outputs(card=tmp_path), "no Sentence Transformers model in here"),
        (Outputs(card=student, card_system="b"), r"unknown system 'b'.*name one of nowhere"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_files([nowhere], qrels_path=nowhere, outputs=outputs)
    suite = ["suite", "local", "--data", tmp_path / "empty"]
    code, said = command(*suite, "--card", tmp_path)
    assert code == 2 and "no Sentence Transformers model in here" in said
    (student / "README.md").write_text("---\ntags: [a\n---\n")
    code, said = command(*suite, "--with", "bm25", "--card", student)
    assert code == 2 and re.search(r"head cannot be read.*To fix: mend or delete", said)


def test_a_split_of_a_file_of_judgments_is_refused_not_ignored(tmp_path, qrels):
    run = write(tmp_path, "bm25.trec", 1)
    with pytest.raises(InputError, match=r"--split dev: .* no splits.*To fix: leave --split out"):
        evaluate_files([run], qrels_path=qrels, split="dev")


def test_systems_run_on_the_collection_beside_run_files(tmp_path, tiny_collection):
    """A run file of what bm25 returns, and bm25 itself, are the same system."""
    collection = open_collection(str(tiny_collection))
    run = retrieve(collection, collection.query_texts("test"), "bm25", 100)
    write_run(run, tmp_path / "saved.trec")
    evaluation, [c, *_] = evaluate_files(
        [tmp_path / "saved.trec"],
        with_=["bm25"],
        collection=str(tiny_collection),
        outputs=Outputs(json=tmp_path / "out.json", report=tmp_path / "out.html"),
        console=Console(file=io.StringIO()),
    )
    assert evaluation.systems == ["saved", "bm25"] and c.ties == c.queries
    runs = json.loads((tmp_path / "out.json").read_text())["inputs"]["runs"]
    assert runs["bm25"]["with"] == "bm25" and len(runs["bm25"]["digest"]) == 32
    assert (tmp_path / "out.html").read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"needs texts.*--collection"):
        evaluate_files([], with_=["bm25"], qrels_path=write_qrels_of(tmp_path, collection))
    write_run(run, tmp_path / "bm25.trec")
    with pytest.raises(InputError, match="both named bm25"):
        evaluate_files([tmp_path / "bm25.trec"], with_=["bm25"], collection=str(tiny_collection))


def write_qrels_of(folder, collection):
    write_qrels(collection.qrels("test"), folder / "some.tsv")
    return folder / "some.tsv"


def test_names_are_stems_made_different_by_what_differs():
    paths = ["/x/a/run.trec", "/y/a/run.trec", "/y/b/run.trec.gz", "/y/b/run.trec", "/z/one.run.gz"]
    assert list(run_names(paths)) == ["x/a/run", "y/a/run", "run.trec.gz", "run.trec", "one"]


def test_wrong_calls_are_named(tmp_path, qrels):
    run = write(tmp_path, "bm25.trec", 1)
    with pytest.raises(InputError, match="given twice"):
        evaluate_files([run, run], qrels_path=qrels)
    with pytest.raises(InputError, match="no run"):
        evaluate_files([], qrels_path=qrels)
    with pytest.raises(InputError, match="exactly one of --collection and --qrels"):
        evaluate_files([run])
    with pytest.raises(InputError, match="exactly one of --collection and --qrels"):
        evaluate_files([run], qrels_path=qrels, collection="python-api")
    write_run(Run("other", {"z9": {"d1": 1.0}}), tmp_path / "other.trec")
    with pytest.raises(InputError, match=r"'other' has no query in common .*id z9"):
        evaluate_files([tmp_path / "other.trec"], qrels_path=qrels)
    with pytest.raises(InputError, match=r"unknown system 'nothing'.*bm25"):
        evaluate_files([run], qrels_path=qrels, baseline="nothing")
    assert not (tmp_path / "out.json").exists()
