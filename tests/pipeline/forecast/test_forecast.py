"""What a plan counts is what the run then does, and what is done already is not counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from retrieval_kd.config.run import Config
from retrieval_kd.files import cache_dir, read_json, write_json
from retrieval_kd.models.load import model_digest
from retrieval_kd.pipeline.forecast import calibrate
from retrieval_kd.pipeline.forecast.forecast import changed, forecast
from retrieval_kd.pipeline.forecast.gpus import GPUS
from retrieval_kd.pipeline.forecast.plan_file import UNITS, to_json, write_plan
from retrieval_kd.pipeline.forecast.sample import Sample
from retrieval_kd.pipeline.forecast.savings import savings
from retrieval_kd.pipeline.forecast.took import PLAN, planned_and_taken
from retrieval_kd.pipeline.plan import planned, run
from retrieval_kd.pipeline.results import RunResults
from retrieval_kd.schema import validate

DEPTH, LIMIT, STEPS, BATCH, SLATE = 12, 20, 8, 6, 4


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """A cache that no other test has encoded into."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_collection, tiny_encoder) -> Config:
    folder = tmp_path_factory.mktemp("forecast")
    encoder = str(tiny_encoder)
    values = {
        "name": "Planned",
        "collection": str(tiny_collection),
        "out": str(folder / "run"),
        "encoder": encoder,
        "splits": {"dev": "dev", "dev_queries": 10},
        "unlabelled": {"kind": "sentences", "limit": LIMIT},
        "first_stage": {"with": f"bm25+{encoder}", "depth": DEPTH},
        "teacher": {
            "fit": {"base": encoder, "train": {"steps": 4, "batch_queries": 4, "slate_size": 4}},
            "max_length": 48,
            "fuse_with": ["bm25", f"dense:{encoder}"],
            "weights": [1, 1, 1],
        },
        "student": {"base": encoder, "layers": [0, 3], "max_length": 32},
        "train": {"steps": STEPS, "batch_queries": BATCH, "slate_size": SLATE, "eval_steps": 4,
                  "save_steps": 8, "max_tokens": 32},
        "students": {
            "labels": {"objective": "kl+infonce:0.5@batch"},
            "table": {"student": {"kind": "static", "layers": None}, "objective": "kl"},
        },
        "compare": ["labels", "table"],
        "index": str(Path(__file__).parents[3] / "indexes" / "flat.yaml"),
    }  # fmt: skip
    return validate(Config, values)


@pytest.fixture(scope="module")
def before(config):
    """The plan of a run that has not begun, written as the command writes it."""
    made = forecast(config)
    record = to_json(made, savings(made), list(GPUS.values()), price_per_hour=2.0)
    write_plan(record, Path(config.out, PLAN))
    return made, record


@pytest.fixture(scope="module")
def halfway(config, before):
    """The plan when queries and candidates are there, and nothing else."""
    context = planned(config)
    context.work.stages = context.work.stages[:2]
    context.work.execute(lambda *_: None)
    return forecast(config)


@pytest.fixture(scope="module")
def after(config, halfway):
    """The run, to its end."""
    run(config)
    return planned(config)


def test_a_plan_measures_everything_and_writes_nothing_but_itself(config, before):
    made, _ = before
    assert not made.failed and not any(stage.estimated for stage in made.stages)
    assert all(stage.seconds > 0 for stage in made.todo) and made.seconds > 0
    assert [stage.name for stage in made.stages] == [s.name for s in planned(config).work.stages]
    assert not list((cache_dir() / "vectors").glob("*")), "a sample's vectors stay in the sandbox"


def test_pairs_are_those_that_the_run_then_scores(halfway, after):
    stages = {stage.name: stage for stage in halfway.stages}
    checked = 0
    for name, stage in stages.items():
        if name.startswith(("try:", "score:")):
            facts = after.work.record(name)["facts"]
            assert stage.work.count("pairs scored") == facts["pairs"], name
            checked += 1
    assert checked == 6
    folder = after.work.path("scores")
    rows = [pq.read_metadata(shard).num_rows for shard in folder.glob("*/shard-*.parquet")]
    facts = [after.work.record(name)["facts"] for name in stages if name.startswith("score:")]
    assert sum(rows) <= halfway.count("pairs scored") and len(facts) == 3


def test_before_the_candidates_lists_count_in_full(before, halfway):
    made, _ = before
    queries = sum(made.amounts.query_count(part) for part in ("train", "dev", "test", "unlabelled"))
    assert made.count("pairs scored") == 3 * DEPTH * queries
    assert made.count("pairs scored") == pytest.approx(halfway.count("pairs scored"), rel=0.1)


def test_steps_are_those_that_students_are_trained(halfway, after):
    for name in ("labels", "table"):
        stage = next(s for s in halfway.stages if s.name == f"train:{name}-seed0")
        record = read_json(after.work.path("students", f"{name}-seed0", "training.json"))
        assert stage.work.count("training steps") == record["steps"] == STEPS
        assert record["seconds_per_step"] > 0
    labels = next(s for s in halfway.stages if s.name == "train:labels-seed0")
    [steps] = [work for work in labels.work.works if work.what == "training steps"]
    assert steps.tokens <= STEPS * BATCH * (1 + SLATE) * 32


def test_documents_are_encoded_once_by_each_model(before, config):
    made, _ = before
    documents = made.amounts.documents
    encoded = [s.name for s in made.stages if s.work.count("documents encoded") == documents]
    assert encoded[0] == "candidates" and "search:encoder" not in encoded
    assert [name for name in encoded if name.startswith("search:")] == [
        f"search:{name}-seed0" for name in config.students
    ]


def test_a_stage_that_is_done_is_not_counted(halfway, after, config):
    names = [stage.name for stage in halfway.todo]
    assert "queries" not in names and "candidates" not in names
    assert all(stage.took is not None for stage in halfway.stages[:2])
    made = forecast(config)
    assert made.todo == [] and made.seconds == 0.0 and savings(made) == []


def test_speeds_are_measured_once(config, before, monkeypatch, tmp_path):
    config = config.model_copy(update={"out": str(tmp_path / "new")})

    def fail(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(calibrate, "sandbox", fail)
    assert forecast(config).speeds.keys() <= before[0].speeds.keys()
    with pytest.raises(AssertionError, match="measured again"):
        forecast(config, again=True)


def test_students_that_start_alike_do_not_find_each_others_vectors(config, before):
    """Their untrained weights are the same, but each is measured."""
    student = config.student_for(config.students["labels"])
    with calibrate.sandbox() as folder:
        sample = Sample(before[0].amounts, folder)
        for _ in range(2):
            sample.student_index(student, None, student.max_length)
        saved = sorted((folder / "untrained").iterdir())
        assert len({model_digest(str(path)) for path in saved}) == len(saved) == 2


def test_another_dtype_is_another_machine(config, before, monkeypatch):
    paths = {calibrate._file(calibrate.Recipe("index m", [1], lambda sample: {}))}
    monkeypatch.setattr(calibrate, "machine", lambda: {"torch_threads": 64})
    assert calibrate._file(calibrate.Recipe("index m", [1], lambda sample: {})) not in paths


def test_a_damaged_speed_is_measured_again(tmp_path):
    path = tmp_path / "speed.json"
    for content in ("", "{", '{"speeds": {"encode": {"seconds": 1}}}', '{"speeds": 3}'):
        path.write_text(content)
        assert calibrate._read(path) == {}


def test_the_json_names_units_and_says_what_is_an_estimate(before):
    _, record = before
    again = json.loads(json.dumps(record))
    assert again["units"] == UNITS and again["format"] == 1
    total = again["total"]
    assert total["seconds"] == pytest.approx(sum(s["seconds"] for s in again["stages"]), abs=0.5)
    assert total["price"] == pytest.approx(total["seconds"] / 3600 * 2.0, abs=1e-3)
    assert total["pairs"] == sum(s["counts"].get("pairs", 0) for s in again["stages"])
    assert all(gpu["estimate"] and gpu["fits"] for gpu in again["gpus"])
    assert {"seconds", "disk_bytes", "memory_bytes", "operations", "tokens"} <= set(
        again["stages"][0]
    )
    assert str(Path.home()) not in json.dumps(again["savings"])


def test_the_largest_saving_comes_first_and_is_what_a_plan_with_it_says(before, config):
    made, _ = before
    offers = savings(made)
    assert [o.seconds for o in offers] == sorted((o.seconds for o in offers), reverse=True)
    halved = next(offer for offer in offers if offer.what == "half the candidates per query")
    assert halved.overrides == [f"first_stage.depth={DEPTH // 2}"]
    values = config.model_dump(by_alias=True)
    values["first_stage"]["depth"] //= 2
    other = changed(made, validate(Config, values))
    assert made.seconds - other.seconds == pytest.approx(halved.seconds, abs=0.1)
    assert other.count("pairs scored") * 2 == made.count("pairs scored")


def test_the_report_shows_the_plan_beside_the_fact(before, after, config):
    rows = planned_and_taken(after.work, Path(config.out, PLAN))
    titles = [row["title"] for row in rows]
    assert titles == [stage.title for stage in after.work.stages]
    page = Path(config.out, "report.html").read_text("utf-8")
    assert "Planned and taken" in page and "Planned / took" in page
    table = Path(config.out, "results.md").read_text("utf-8")
    assert "| Stage | Planned | Took |" in table and "| in all |" in table


def test_a_second_plan_keeps_what_the_first_said_of_stages_that_are_done(before, after, config):
    path = Path(config.out, PLAN)
    first = read_json(path)
    made = forecast(config)
    write_plan(to_json(made, [], []), path)
    assert read_json(path)["stages"] == first["stages"]


def test_without_a_plan_or_with_a_foreign_file_nothing_is_compared(after, tmp_path):
    assert planned_and_taken(after.work, tmp_path / "none.json") == []
    for content in ({}, {"format": 99, "stages": [{"name": "queries"}]}):
        write_json(tmp_path / "other.json", content)
        assert planned_and_taken(after.work, tmp_path / "other.json") == []
    assert RunResults(after)._planned


def test_settings_that_changed_since_are_not_compared(after, config, tmp_path):
    record = read_json(Path(config.out, PLAN))
    record["stages"][0]["key"] = "another"
    write_json(tmp_path / PLAN, record)
    rows = planned_and_taken(after.work, tmp_path / PLAN)
    assert record["stages"][0]["title"] not in [row["title"] for row in rows]


def test_calls_of_a_server_are_counted_and_priced_without_a_network(config, tmp_path):
    """The address answers nothing; language models are asked about the lists of the first stage."""
    values = config.model_dump(by_alias=True)
    values |= {"out": str(tmp_path / "served"), "students": {"labels": {"objective": "infonce"}},
               "compare": ("labels", "bm25")}  # fmt: skip
    values["teacher"] |= {
        "fit": None, "weights": None, "fuse_with": ["bm25", "yesno:big", "pairwise:big"],
        "server": {"url": "http://127.0.0.1:9/v1", "prompt_price": 0.5, "answer_price": 2.0,
                   "per_minute": 60.0},
    }  # fmt: skip
    made = forecast(validate(Config, values))
    stages = {stage.name: stage.work.calls for stage in made.stages}
    dev = made.amounts.query_count("dev")
    one_by_one, pairs = stages["try:yesno:big"], stages["try:pairwise:big"]
    assert one_by_one.calls == dev * DEPTH and one_by_one.minutes == dev * DEPTH / 60
    assert pairs.calls == dev * DEPTH * (DEPTH - 1)
    assert one_by_one.answer_tokens == one_by_one.calls
    assert pairs.prompt_tokens / pairs.calls > one_by_one.prompt_tokens / one_by_one.calls
    read, written = pairs.prompt_tokens, pairs.answer_tokens
    assert pairs.price == pytest.approx((read * 0.5 + written * 2) / 1e6, abs=1e-4)
    assert made.server_price > pairs.price
