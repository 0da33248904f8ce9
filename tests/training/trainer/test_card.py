"""What a saved student's README.md says of its use."""

from __future__ import annotations

import pytest

from retrieval_kd.files import read_json, write_json
from retrieval_kd.models.load import load_encoder
from retrieval_kd.training.trainer.card import describe_training

RECORD = {"terms": [{"name": "kl", "weight": 1.0}], "settings": {}, "queries": 9, "curve": []}


@pytest.mark.parametrize("own_code", [False, True])
def test_the_example_encodes_queries_as_queries_and_loads_own_code(
    tiny_encoder, tmp_path, own_code
):
    load_encoder(str(tiny_encoder)).save(str(tmp_path))
    modules = read_json(tmp_path / "modules.json", kind=list)
    if own_code:
        modules[-1]["type"] = "token_table.ResidualEmbedding"
        write_json(tmp_path / "modules.json", modules)
    describe_training(tmp_path, "mine", RECORD)
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "# mine\n" in card and "model.encode_query(" in card and "model.encode(" not in card
    assert "sentence_transformers_model_id" not in card
    assert ("trust_remote_code=True" in card) == own_code
