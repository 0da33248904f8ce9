"""One student of several sizes: trained by its first dimensions too, and searched by them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from retrieval_kd.config.run import Config, load_config
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import read_run
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.pipeline.plan import plan, run
from retrieval_kd.schema import validate
from tests.pipeline.shrinking import CONFIGS, shrunk

ROOT = Path(__file__).parents[2]
SHIPPED = CONFIGS / "matryoshka.yaml"
SYSTEMS = ["labels", "labels@16", "kl", "kl@16", "matryoshka", "matryoshka@16"]


def tiny(folder: Path, collection: Path, encoder: Path) -> Config:
    """The shipped configuration, on the tiny collection and an encoder of 32 dimensions."""
    values = shrunk(SHIPPED.name, collection, encoder, out=str(folder / "run"))
    values |= {"unlabelled": None, "depth": 10, "seeds": [0], "compare": ["matryoshka@16", "kl@16"]}
    values["students"]["matryoshka"]["objective"][0]["dimensions"] = [32, 16, 8]
    values["widths"] = [16]
    values["index"] = str(ROOT / "indexes" / "flat.yaml")
    return validate(Config, values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_collection, tiny_encoder) -> Config:
    config = tiny(tmp_path_factory.mktemp("matryoshka"), tiny_collection, tiny_encoder)
    run(config)
    return config


def test_each_student_has_quality_and_size_at_each_width(finished):
    folder = Path(finished.out) / "matryoshka"
    results = json.loads((folder / "results.json").read_text())
    assert list(results["systems"])[3:] == SYSTEMS
    costs = results["costs"]
    for name in ("kl", "matryoshka"):
        whole, cut = costs[name], costs[f"{name}@16"]
        assert (whole["dimensions"], cut["dimensions"]) == (32, 16)
        # four bytes a dimension; what else is in the files is the same
        assert whole["index_bytes"] - cut["index_bytes"] == 4 * 16 * whole["documents"]
        assert cut["latency_ms_p50"] > 0 and cut["training_seconds"] == whole["training_seconds"]
        assert 0 < results["systems"][f"{name}@16"]["ndcg@10"]["mean"] <= 1
    [main] = [
        found
        for found in results["comparisons"]
        if (found["a"], found["b"], found["measure"]) == ("matryoshka@16", "kl@16", "ndcg@10")
    ]
    assert 0 <= main["p"] <= 1
    for page in ("report.html", "results.md"):
        assert "matryoshka@16" in (folder / page).read_text()
    report = (folder / "report.html").read_text()
    assert "first 16 dimensions alone" in report and "1 kl by 32, 16, 8 dimensions" in report


def test_a_cut_system_is_the_trained_student_by_its_first_dimensions(finished, tiny_collection):
    """As Sentence Transformers' own `truncate_dim` has it; no student is trained for a width."""
    out = Path(finished.out)
    assert sorted(p.name for p in (out / "students").glob("*@*")) == []
    student = SentenceTransformer(
        str(out / "students" / "matryoshka-seed0"), device="cpu", truncate_dim=16
    )
    student.max_seq_length = 32
    collection = open_collection(str(tiny_collection))
    found = read_run(out / "runs" / "matryoshka@16-seed0.trec").results
    texts = collection.query_texts("test")
    query = sorted(found)[0]
    ids = list(found[query])
    vectors = student.encode_document(
        [collection.documents[id].full for id in ids], normalize_embeddings=True
    )
    asked = student.encode_query([texts[query]], normalize_embeddings=True)
    np.testing.assert_allclose(list(found[query].values()), (vectors @ asked[0]), atol=1e-2)


def test_the_objective_is_the_mean_over_widths(finished, tiny_encoder):
    """And the training differs from that of whole vectors."""
    students = [
        SentenceTransformer(str(Path(finished.out) / "students" / f"{name}-seed0"), device="cpu")
        for name in ("kl", "matryoshka")
    ]
    weights = [torch.cat([p.flatten() for p in student.parameters()]) for student in students]
    assert (weights[0] - weights[1]).abs().max() > 1e-6


def test_a_finished_run_does_nothing_again_and_widths_change_no_other_stage(finished):
    assert plan(finished).todo() == []
    plain = finished.model_copy(update={"widths": [], "compare": ("matryoshka", "kl")})
    with_widths, without = ({s.name: s.settings for s in plan(c).stages} for c in (finished, plain))
    same = [name for name in without if not name.startswith("evaluate")]
    assert {name: with_widths[name] for name in same} == {name: without[name] for name in same}
    assert set(with_widths) - set(without) == {f"search:{n}-seed0" for n in SYSTEMS if "@" in n}


def test_an_index_of_fewer_dimensions_says_so_and_refuses_more(
    tiny_collection, tiny_encoder, tmp_path
):
    collection = open_collection(str(tiny_collection))
    spec = IndexSpec(dimensions=8)
    index = build_index(collection, str(tiny_encoder), spec, tmp_path / "index")
    assert index.manifest["dimensions"] == 8 and index.vectors.index.d == 8
    assert len(Index.open(tmp_path / "index").search(["sparrow nest"], 3)[0]) == 3
    assert "dimensions" not in IndexSpec().as_dict()  # what older manifests do not have
    with pytest.raises(InputError, match=r"64 dimensions.*have 32"):
        build_index(collection, str(tiny_encoder), IndexSpec(dimensions=64), tmp_path / "more")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("widths=[0]", "widths"),
        ("widths=[96, 96]", "has one twice"),
        ("compare=[matryoshka@64, kl]", "compare names 'matryoshka@64'"),
        ("students.kl@96={objective: kl}", "name of another system"),
    ],
)
def test_widths_that_mean_nothing_are_refused(override, message):
    with pytest.raises(InputError, match=message):
        load_config(SHIPPED, [override])


def test_the_shipped_configuration_can_be_read():
    config = load_config(SHIPPED)
    assert set(config.compare) <= set(config.systems)
    assert config.systems["matryoshka@96"] == "matryoshka"


def test_a_student_too_narrow_for_a_width_is_not_trained_first(finished, tmp_path):
    """The encoder here has 32 dimensions; the refusal comes before the first step."""
    wide = finished.model_copy(update={"widths": [16, 64], "out": str(tmp_path / "wide")})
    with pytest.raises(InputError, match=r"64 dimensions of a student with 32.*at most 32"):
        run(wide)
    assert not list((tmp_path / "wide").rglob("training.json"))
