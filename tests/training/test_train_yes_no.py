"""A decoder trained as yes/no re-ranker: the number it is scored with, by adapters or whole."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.models.load import model_digest
from retrieval_kd.models.lora import Lora
from retrieval_kd.objectives import kl
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.teachers.pointwise.yes_no import merge_adapter
from retrieval_kd.teachers.spec import open_teacher
from retrieval_kd.training.batches.pools import build_pools
from retrieval_kd.training.batches.slates import Pool, draw
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.objective.terms import Term, parse_terms
from retrieval_kd.training.train_cross_encoder import PairCollator, PairLoss
from retrieval_kd.training.train_yes_no import YesNoModel, open_base
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of
from tests.students.stopping import assert_same_after_a_stop
from tests.tiny_models import write_decoder, write_seq2seq

SETTINGS = TrainSettings(
    steps=8,
    batch_queries=4,
    slate_size=3,
    slate_depth=10,
    learning_rate=5e-3,
    save_steps=4,
    group_size=5,
)
LORA = Lora(rank=4)


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that two ways of computing one number are told apart by more than its rounding."""
    monkeypatch.setenv("RETRIEVAL_KD_DTYPE", "float32")
    fast_dtype.cache_clear()
    yield
    fast_dtype.cache_clear()


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def pools(collection: Collection) -> list[Pool]:
    """Train queries with BM25's scores as a teacher's."""
    return pools_of(collection)


def scores(spec: str, collection: Collection, pools: list[Pool]) -> np.ndarray:
    """What `yesno:` stores of every pool's first three candidates."""
    pairs = [(p.query, collection.documents.at(int(at))) for p in pools for at in p.positions[:3]]
    queries, documents = zip(*pairs, strict=True)
    return open_teacher(spec, collection).score(queries, documents)


def moved(decoder: Path, out: Path, *, lora: Lora | None = LORA, spec: str = "") -> YesNoModel:
    """A model whose trained weights are not those it began with any more, saved in `out`."""
    model = YesNoModel(open_base(f"yesno:{decoder}{spec}", torch.float32), lora)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.save(str(out))
    return model


@pytest.mark.parametrize("lora", [LORA, None])
def test_the_loss_is_of_the_scores_that_the_saved_model_gives(
    lora, collection, pools, tiny_decoder, tmp_path
):
    model = moved(tiny_decoder, tmp_path / "out", lora=lora, spec="?passage_tokens=9")
    collator = PairCollator(
        preprocess_fn=model.preprocess, pools=pools, texts=collection.documents, settings=SETTINGS
    )
    batch = collator([{"pool": i, "draw": 0} for i in range(4)])
    label = batch.pop("label")
    assert len(batch) > 1  # groups of different lengths
    with torch.no_grad():
        got = PairLoss(model, [Term(name="kl", teacher_temperature=2.0)])(
            list(batch.values()), label
        )["kl"]
    teacher = open_teacher(f"yesno:{tmp_path / 'out'}", collection)
    slates = [draw(pools[i], 3, 10, np.random.default_rng([0, i, 0])) for i in range(4)]
    student = [
        teacher.score([pool.query] * 3, [collection.documents.at(int(at)) for at in one.positions])
        for pool, one in zip(pools, slates, strict=False)
    ]
    told = torch.tensor(np.array([one.teacher for one in slates]))
    expected = kl(torch.tensor(np.array(student)), told, ~told.isnan(), teacher_temperature=2.0)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_training_changes_the_adapters_alone_and_ranks_the_relevant_passage_first(
    collection, tiny_decoder, tmp_path
):
    queries, qrels = collection.query_texts("train"), collection.qrels("train")
    few = {id: queries[id] for id in list(queries)[:3]}
    run = bm25_run(collection, few, 6)
    pools = build_pools(few, run.results, collection, qrels, None, Drops())
    settings = SETTINGS.model_copy(update={"steps": 25, "batch_queries": 3, "learning_rate": 1e-2})
    before, out = model_digest(str(tiny_decoder)), tmp_path / "out"
    record = fit_teacher(
        f"yesno:{tiny_decoder}", pools, collection.documents, out, lora=LORA, settings=settings
    )
    assert model_digest(str(tiny_decoder)) == before
    assert 0 < record["trained"] < record["parameters"]
    kept = {path.name for path in out.iterdir()}
    weights = {name for name in kept if name.endswith((".safetensors", ".bin", ".pt", ".pkl"))}
    assert weights == {"adapter_model.safetensors"} and "adapter_config.json" in kept

    def firsts(spec: str) -> int:
        teacher, found = open_teacher(spec, collection), 0
        for pool in pools:
            documents = [collection.documents.at(int(at)) for at in pool.positions]
            told = teacher.score([pool.query] * len(documents), documents)
            found += bool(pool.gains[int(told.argmax())] > 0)
        return found

    assert firsts(f"yesno:{tiny_decoder}") < firsts(f"yesno:{out}") == len(pools)


def test_a_merged_adapter_scores_the_same_without_peft(
    collection, pools, tiny_decoder, tmp_path, monkeypatch
):
    moved(tiny_decoder, tmp_path / "adapter", spec="?prompt=monot5&passage_tokens=9&query_tokens=3")
    adapted = scores(f"yesno:{tmp_path / 'adapter'}", collection, pools)
    merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    with pytest.raises(InputError, match="there is something already"):
        merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    monkeypatch.setitem(sys.modules, "peft", None)
    merged = scores(f"yesno:{tmp_path / 'merged'}", collection, pools)
    np.testing.assert_allclose(merged, adapted, atol=1e-4)
    base = scores(f"yesno:{tiny_decoder}?prompt=monot5&passage_tokens=9", collection, pools)
    assert np.abs(base - adapted).max() > 0.1


def test_it_is_asked_as_in_its_training_unless_told_otherwise(collection, tiny_decoder, tmp_path):
    out = tmp_path / "monot5-of-ours"  # a name that would mean another prompt
    spec = "?prompt=qwen3-reranker&instruction=Find+facts&passage_tokens=9&cut=beginning"
    trained = moved(tiny_decoder, out, spec=spec).teacher
    same = open_teacher(f"yesno:{out}", collection)
    assert same.template == trained.template and same.template.instruction == "Find facts"
    assert (same.key.prompt, same.key.max_length) == (trained.key.prompt, 9)
    other = open_teacher(f"yesno:{out}?passage_tokens=11&prompt=judge", collection)
    assert (
        other.key.max_length == 11 and other.template.name == "judge" and other.cut == "beginning"
    )


def test_further_training_asks_as_the_folder_wants_to_be_asked(collection, tiny_decoder, tmp_path):
    spec = "?prompt=monot5&passage_tokens=9&query_tokens=3&cut=beginning"
    moved(tiny_decoder, tmp_path / "adapter", spec=spec)
    merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    moved(tiny_decoder, tmp_path / "whole", lora=None, spec=spec)
    for folder in (tmp_path / "merged", tmp_path / "whole"):
        scored = open_teacher(f"yesno:{folder}", collection).key
        trained = open_base(f"yesno:{folder}", torch.float32)
        assert trained.template.name == "monot5" and trained.key == scored
        assert open_base(f"yesno:{folder}", torch.float32, 11).key.max_length == 11


def test_the_fingerprint_is_of_the_adapter_and_of_its_base(collection, pools, tmp_path):
    base = write_decoder(tmp_path / "base")
    moved(base, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    YesNoModel(open_base(f"yesno:{base}", torch.float32), LORA, seed=1).save(str(tmp_path / "two"))

    def fingerprint(name: str) -> str:
        return open_teacher(f"yesno:{tmp_path / name}", collection).key.fingerprint

    one = fingerprint("one")
    assert len({one, fingerprint("two"), fingerprint("base")}) == 3 and fingerprint("copy") == one
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="belongs to is missing"):
        fingerprint("one")
    config = tmp_path / "one" / "adapter_config.json"
    told = json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "elsewhere")}
    told["target_modules"].reverse()  # a set, whose order says nothing
    config.write_text(json.dumps(told))
    assert fingerprint("one") == one
    write_decoder(tmp_path / "elsewhere", seed=5)
    assert fingerprint("one") != one
    with pytest.raises(InputError, match="not the one it was trained on"):
        scores(f"yesno:{tmp_path / 'one'}", collection, pools)


def test_adapters_start_by_their_seed(tiny_decoder):
    teacher = [open_base(f"yesno:{tiny_decoder}", torch.float32) for _ in range(3)]
    a, b, c = (
        YesNoModel(one, LORA, seed=seed).trained()
        for one, seed in zip(teacher, (1, 1, 2), strict=True)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)
    assert len(a) == 2 * 2 * 7  # A and B of seven linear layers in each of two layers


@pytest.mark.parametrize(("lora", "dropout"), [(LORA, 0.1), (None, 0.0)])
def test_a_stopped_training_ends_in_the_same_model(
    lora, dropout, collection, pools, tiny_decoder, tmp_path
):
    settings = SETTINGS.model_copy(update={"dropout": dropout})

    def run(out: Path) -> dict:
        return fit_teacher(
            f"yesno:{tiny_decoder}",
            pools,
            collection.documents,
            out,
            lora=lora,
            settings=settings,
            terms=parse_terms("margin_mse:0.1+infonce"),
        )

    record = assert_same_after_a_stop(run, tmp_path)
    assert run(tmp_path / "whole") == record  # which is not run again
    assert (record["trained"] == record["parameters"]) == (lora is None)


def test_without_peft_the_extra_is_named_before_anything_is_loaded(
    collection, pools, tiny_decoder, tmp_path, monkeypatch
):
    moved(tiny_decoder, tmp_path / "adapter")
    monkeypatch.setitem(sys.modules, "peft", None)
    for spec in (f"yesno:{tiny_decoder}", "yesno:no/such"):
        with pytest.raises(InputError, match=r"pip install 'retrieval_kd\[lora\]'"):
            fit_teacher(spec, pools, collection.documents, tmp_path / "out", lora=LORA)
    with pytest.raises(InputError, match=r"pip install 'retrieval_kd\[lora\]'"):
        scores(f"yesno:{tmp_path / 'adapter'}", collection, pools)


@pytest.mark.parametrize(
    ("base", "more", "message"),
    [
        ("adapter", {}, "rkd merge"),
        ("seq2seq", {}, "give a decoder"),
        ("decoder?layers=1", {}, "all its layers"),
        ("decoder", {"layers": [0]}, "all its layers"),
        ("decoder", {"lora": Lora(targets=["nowhere"])}, "nowhere"),
        ("decoder", {"terms": parse_terms("kl@batch")}, "candidates: slate"),
        ("decoder", {"terms": [Term(name="hidden_states", teacher="m")]}, "compares states"),
        ("decoder", {"settings": SETTINGS.model_copy(update={"mini_batch_size": 2})}, "not cached"),
    ],
)
def test_what_cannot_be_trained_is_said(base, more, message, collection, pools, tmp_path):
    decoder = write_decoder(tmp_path / "decoder")
    if base == "adapter":
        moved(decoder, tmp_path / "adapter")
    if base == "seq2seq":
        write_seq2seq(tmp_path / "seq2seq")
    with pytest.raises(InputError, match=message):
        fit_teacher(f"yesno:{tmp_path / base}", pools, collection.documents, tmp_path / "o", **more)
