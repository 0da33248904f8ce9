"""`rkd plan`: what it prints, what it writes, and what it refuses before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from retrieval_kd.cli.app import main
from retrieval_kd.files import read_json


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_collection, tiny_encoder) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    values = {
        "name": "Cheap",
        "collection": str(tiny_collection),
        "out": str(folder / "run"),
        "encoder": str(tiny_encoder),
        "splits": {"dev": "dev", "dev_queries": 10},
        "first_stage": {"depth": 10},
        "teacher": {"fuse_with": ["bm25"]},
        "student": {"base": str(tiny_encoder), "layers": [0, 3], "max_length": 32},
        "train": {"steps": 4, "batch_queries": 4, "slate_size": 2, "max_tokens": 32},
        "students": {"labels": {"objective": "infonce@batch"}},
        "compare": ["labels", "bm25"],
        "index": str(Path(__file__).parents[2] / "indexes" / "flat.yaml"),
    }
    path = folder / "cheap.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_people_get_a_table_programs_get_json_and_the_run_a_file(config, command, capsys):
    code, printed = command("plan", config, "--gpu", "a100", "--price-per-hour", "1.5")
    assert code == 0, printed
    for shown in ("train:labels", "search:encoder", "4 steps", "In all", "at the given price",
                  "A100", "The largest saving on offer", "60 documents"):  # fmt: skip
        assert shown in printed, shown
    assert "T4" not in printed
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["plan", str(config), "--json", "--price-per-hour", "1.5"])
    record = json.loads(capsys.readouterr().out)
    assert record["total"]["steps"] == 4 and len(record["gpus"]) == 7
    kept = read_json(Path(yaml.safe_load(config.read_text())["out"], "plan.json"))
    assert kept == record


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gpu", "A1000"], "no GPU 'A1000'"),
        (["--price-per-hour", "-1"], "greater than or equal to 0"),
        (["--price-per-hour", "cheap"], "not a valid number"),
        (["first_stage.dept=3"], "dept"),
        (["collection=nowhere"], "nowhere"),
        (["splits.test=none"], "none"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_measured(config, command, words, told):
    code, printed = command("plan", config, *words)
    assert code == 2 and told in printed and "Traceback" not in printed
    assert "measuring" not in printed and len(printed.strip().splitlines()) == 1


def test_a_folder_of_something_else_is_refused(config, command, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    code, printed = command("plan", config, f"out={tmp_path}")
    assert code == 2 and "not of an earlier run" in printed
    assert not (tmp_path / "plan.json").exists()


def test_the_help_teaches_by_examples(command):
    code, printed = command("plan", "--help")
    assert code == 0 and "rkd plan configs/quickstart.yaml" in printed
