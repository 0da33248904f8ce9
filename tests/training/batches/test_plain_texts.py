"""Batches of texts without slates: what they hold, also where one side is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.models.load import load_encoder
from retrieval_kd.students.dense import make_dense
from retrieval_kd.training.batches.plain_texts import PlainTexts, TextCollator
from retrieval_kd.training.batches.teacher_vectors import teacher_vectors
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.trainer.settings import TrainSettings

QUERIES = ["sparrow nest", "rook gambit castle", "mast"]
POSITIONS = np.array([50, 3, 17, 8])
MIXED, ONLY_QUERIES, ONLY_DOCUMENTS = [5, 0, 3, 2], [0, 1, 2], [3, 4, 5, 6]


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


def collated(collection: Collection, encoder: Path, numbers: list[int]) -> tuple[list, dict]:
    """Features by column and the labels of a batch of these texts."""
    student = make_dense(str(encoder))
    collator = TextCollator(
        preprocess_fn=student.preprocess,
        plain=PlainTexts(QUERIES, POSITIONS),
        texts=collection.documents,
        settings=TrainSettings(group_size=3),
        vectors={"m": teacher_vectors(str(encoder), QUERIES, collection.documents)},
    )
    batch = collator([{"pool": number, "draw": 0} for number in numbers])
    labels, columns = batch.pop("label"), {}
    for name, value in batch.items():
        column, _, feature = name.partition("_")
        columns.setdefault(column, {})[feature] = value
    return list(columns.values()), labels


@pytest.mark.parametrize("numbers", [MIXED, ONLY_QUERIES, ONLY_DOCUMENTS])
def test_texts_stand_beside_their_teachers_vectors(collection, tiny_encoder, numbers):
    """The teacher is what the student was made from, so that each loss is zero."""
    features, labels = collated(collection, tiny_encoder, numbers)
    assert sum(len(column["input_ids"]) for column in features) == len(numbers)
    terms = [Term(name=name, teacher="m") for name in ("embedding_mse", "embedding_similarity")]
    losses = ScoreMatrixLoss(make_dense(str(tiny_encoder)), terms)(features, labels)
    for loss in losses.values():
        assert loss.item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("numbers", [MIXED, ONLY_QUERIES, ONLY_DOCUMENTS])
def test_cached_gradients_equal_plain_ones(collection, tiny_encoder, numbers):
    features, labels = collated(collection, tiny_encoder, numbers)
    terms = [Term(name=n, teacher="m") for n in ("embedding_cosine", "embedding_similarity")]
    terms.append(Term(name="hidden_states", teacher=str(tiny_encoder)))
    found = []
    for mini in (None, 2):
        student = make_dense(str(tiny_encoder), [0, 2]).eval()  # no dropout
        parts = ScoreMatrixLoss(student, terms, mini_batch_size=mini)(features, labels)
        torch.stack(list(parts.values())).sum().backward()
        found.append([p.grad for p in student.parameters() if p.grad is not None])
    assert max(gradient.abs().max() for gradient in found[0]) > 0
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-3)


def test_other_texts_have_another_digest():
    digests = {
        PlainTexts(QUERIES, POSITIONS).digest,
        PlainTexts(QUERIES[::-1], POSITIONS).digest,
        PlainTexts(QUERIES, POSITIONS[::-1]).digest,
        PlainTexts(["a", "b"], POSITIONS).digest,
        PlainTexts(["ab"], POSITIONS).digest,
    }
    assert len(digests) == 5
    assert PlainTexts(list(QUERIES), POSITIONS.copy()).digest in digests


def test_queries_are_encoded_once_also_after_a_stop(collection, tiny_encoder, monkeypatch):
    """What was encoded before the stop is found, and nothing else is encoded."""
    from retrieval_kd.training.batches import teacher_vectors as module

    encoded: list[str] = []
    encode = module.encode_queries

    def stopping(model, texts):
        if "stop" in texts:
            raise KeyboardInterrupt
        encoded.extend(texts)
        return encode(model, texts)

    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(module, "encode_queries", stopping)
    texts = ["one egg", "two eggs", "three eggs", "tide", "voyage"]
    with pytest.raises(KeyboardInterrupt):
        module.teacher_vectors(str(tiny_encoder), [*texts[:4], "stop"], collection.documents)
    assert encoded == texts[:4]
    vectors = module.teacher_vectors(str(tiny_encoder), texts, collection.documents).queries
    assert encoded == texts
    model = load_encoder(str(tiny_encoder))
    np.testing.assert_allclose(vectors, encode(model, texts), rtol=1e-5, atol=1e-6)
    none = module.teacher_vectors(str(tiny_encoder), [], collection.documents)
    assert none.queries.shape == (0, 32)
