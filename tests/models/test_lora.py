"""Adapters saved by peft alone: prompted like their base, and refused by models they do not fit."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models.load import load_language_model, model_digest
from retrieval_kd.models.lora import CONFIG, WEIGHTS, Lora, add_adapters
from retrieval_kd.teachers.spec import open_teacher
from tests.mutations import FEW, damaged, result_or_refusal
from tests.tiny_models import write_decoder


def adapter_of(base: Path, out: Path) -> Path:
    """Save an adapter as peft alone does: weights and configuration."""
    model, _ = load_language_model(str(base), dtype=torch.float32)
    lora = Lora(rank=2, targets=["q_proj"])
    add_adapters(model, lora, 0.0, str(base), None).save_pretrained(str(out))
    return out


@pytest.fixture(scope="module")
def own_adapter(tiny_decoder, tmp_path_factory) -> Path:
    return adapter_of(tiny_decoder, tmp_path_factory.mktemp("adapters") / "own")


def set_base(adapter: Path, base: Path) -> None:
    """Write into an adapter's configuration that it belongs to `base`."""
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))


def test_an_adapter_is_prompted_like_its_base(tiny_collection, tmp_path):
    """The base's name decides; the adapter's own does not matter."""
    collection = open_collection(str(tiny_collection))
    base = write_decoder(tmp_path / "Qwen3-Reranker-0.6B")
    adapter = adapter_of(base, tmp_path / "monot5-of-ours")
    assert open_teacher(f"yesno:{adapter}", collection).template.name == "qwen3-reranker"
    set_base(adapter, base.rename(tmp_path / "rank_zephyr_7b"))
    assert open_teacher(f"listwise:{adapter}", collection).template.name == "rankzephyr"


ODD = [None, True, 0, -1, 2, 1.5, 10**30, "", "q_proj", "x", "../x", [], [1, "q"], ["q_proj"], {},
       {"a": {}}, [[]], [{}], "LORA", "IA3", "\0", "os"]  # fmt: skip


@settings(FEW, max_examples=40)
@given(data=st.data())
def test_a_damaged_configuration_of_an_adapter(tiny_decoder, own_adapter, data):
    """It loads, or is refused in one line that names it or its base."""
    whole = (own_adapter / CONFIG).read_text()
    config = json.loads(whole)
    odd = st.dictionaries(st.sampled_from(sorted(config)), st.sampled_from(ODD), min_size=1)
    edited = odd.map(lambda edits: json.dumps({**config, **edits}).encode())
    with tempfile.TemporaryDirectory(prefix="odd-adapter") as folder:
        adapter = Path(shutil.copytree(own_adapter, folder, dirs_exist_ok=True))
        (adapter / CONFIG).write_bytes(data.draw(edited | damaged(whole)))
        named = ("odd-adapter", "model")  # the base, where it is none
        result_or_refusal(lambda: model_digest(folder), *named)
        result_or_refusal(lambda: load_language_model(folder), *named)


def test_an_adapter_that_belongs_to_itself_is_refused(own_adapter, tmp_path):
    one, other = (shutil.copytree(own_adapter, tmp_path / name) for name in ("one", "other"))
    set_base(one, other)
    for base in (one, other):
        set_base(other, base)
        with pytest.raises(InputError, match="this adapter belongs to itself"):
            load_language_model(str(one))


def test_an_adapter_of_a_model_with_other_layers_is_refused(tmp_path):
    one, two = (write_decoder(tmp_path / str(n), layers=n) for n in (1, 2))
    for base, other, problem in (
        (one, two, "lacks weights for some of its own layers: .*layers.1"),
        (two, one, "has weights for layers the model does not have: .*layers.1"),
    ):
        adapter = adapter_of(base, tmp_path / f"of-{base.name}")
        load_language_model(str(adapter))
        set_base(adapter, other)
        with pytest.raises(InputError, match=problem):
            load_language_model(str(adapter))


def test_weights_with_other_names_are_refused(tiny_decoder, tmp_path):
    """They would not be loaded, and the base would answer under the adapter's digest."""
    adapter = adapter_of(tiny_decoder, tmp_path / "adapter")
    weights = load_file(adapter / WEIGHTS)
    save_file({f"other.{name}": weight for name, weight in weights.items()}, adapter / WEIGHTS)
    with pytest.raises(InputError, match="weights for layers the model does not have"):
        load_language_model(str(adapter))
