"""benchmarks/teachers.py: students of single teachers, their sum and pairs on top, on tiny data."""

from __future__ import annotations

import json

from benchmarks.teachers import CONFIG, FUSED, TEACHER_OF, collect, table
from retrieval_kd.config.run import Config
from retrieval_kd.pipeline.plan import run
from retrieval_kd.schema import read_extended, validate
from tests.config.test_methods import MODEL
from tests.tiny_models import write_encoder

SMALL = {"steps": 2, "batch_queries": 6, "max_tokens": 32, "eval_steps": 2, "save_steps": 2}


def test_every_teacher_has_a_student_and_its_tests(tmp_path, tiny_collection, tiny_decoder):
    encoder = write_encoder(tmp_path / "encoder", layers=6)
    text = json.dumps(read_extended(CONFIG)).replace(MODEL, str(encoder))
    values = json.loads(text.replace("models/decoder", str(tiny_decoder)))
    values |= {"collection": str(tiny_collection), "out": str(tmp_path / "run"), "seeds": [0, 1]}
    values["splits"] = {"dev": "dev", "dev_queries": 10}
    values["first_stage"]["depth"] = 6
    values["student"]["max_length"] = 32
    values["train"] |= SMALL
    values["teacher"]["max_length"] = 32
    values["teacher"]["fit"]["train"] |= {"steps": 2, "max_tokens": 32}
    config = validate(Config, values, CONFIG)
    run(config)
    record = collect(config)

    members = config.teacher.members
    assert [members[number].partition(":")[0] for number in TEACHER_OF.values()] == [
        "cross-encoder", "bm25", "dense", "yesno", "pairwise",
    ]  # fmt: skip
    assert [weight > 0 for weight in config.teacher.weights] == [
        number < FUSED for number in range(len(members))
    ]
    assert len(record["teachers"]) == len(members)
    assert 0 < record["chance"] < max(record["teachers"])
    assert record["students"].keys() == config.students.keys()
    tested = {(found["a"], found["b"]) for found in record["comparisons"]}
    assert {a for a, b in tested if b == "labels"} == config.students.keys() - {"labels"}
    assert {(b, a) for a, b in tested if b != "labels"} == {
        ("of_cross_encoder", "of_fusion"),
        ("of_bm25", "of_fusion"),
        ("of_encoder", "of_fusion"),
        ("of_fusion", "of_fusion_and_pairs"),
    }
    calls = {name: one["teacher_calls"]["stored"] for name, one in record["students"].items()}
    assert calls["labels"] == 0
    assert calls["of_fusion"] == sum(
        calls[name] for name, number in TEACHER_OF.items() if number < FUSED
    )
    lines = table(record).splitlines()
    for name in config.students:
        assert sum(line.startswith(f"| {name} |") for line in lines) == 1
