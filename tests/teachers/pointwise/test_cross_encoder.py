"""The shortened last layer gives the same logits, and is left alone where it would not."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from retrieval_kd.teachers.pointwise.cross_encoder import shorten_last_layer

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 64,
    "num_labels": 1,
    "max_position_embeddings": 40,
}


def batch():
    torch.manual_seed(3)
    ids = torch.randint(5, 50, (6, 17))
    lengths = torch.tensor([17, 3, 9, 17, 1, 12])
    return {"input_ids": ids, "attention_mask": (torch.arange(17) < lengths[:, None]).long()}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (BertConfig, BertForSequenceClassification),
        (XLMRobertaConfig, XLMRobertaForSequenceClassification),
        (ElectraConfig, ElectraForSequenceClassification),
    ],
)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_logits_are_the_same(config, kind, attention):
    torch.manual_seed(0)
    model = kind(config(**SIZES, attn_implementation=attention)).eval()
    with torch.inference_mode():
        before = model(**batch()).logits
        assert shorten_last_layer(model)
        after = model(**batch())
    torch.testing.assert_close(after.logits, before, atol=1e-5, rtol=1e-4)


def test_another_architecture_is_left_as_it_is():
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=50, dim=32, hidden_dim=64, n_layers=2, n_heads=4, num_labels=1)
    ).eval()
    assert not shorten_last_layer(model)


def test_a_decoder_is_left_as_it_is():
    model = BertForSequenceClassification(BertConfig(**SIZES, is_decoder=True))
    assert not shorten_last_layer(model)
