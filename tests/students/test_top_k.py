"""A sparse student that keeps a text's top words only, as VDR does."""

from __future__ import annotations

import torch
from sentence_transformers import SparseEncoder

from retrieval_kd.students.make import make_student
from retrieval_kd.students.student import student_of
from retrieval_kd.training.trainer.engine import set_dropout

TEXTS = ["sparrow wing feather nest", "harbour mast anchor"]


def test_training_and_encoding_keep_the_same_words(tiny_encoder, tmp_path):
    whole = make_student(str(tiny_encoder), "sparse", [0, 3])
    model = make_student(str(tiny_encoder), "sparse", [0, 3], options={"top_k": 2})
    model.save(str(tmp_path / "model"))
    plain = SparseEncoder(str(tmp_path / "model"), device="cpu")
    assert plain.max_active_dims == 2

    for student in (model, whole):  # in evaluation Sentence Transformers computes in place
        set_dropout(student.train(), 0.0)
    found = student_of(model).represent(model.preprocess(TEXTS, task="document"), "document")
    everything = student_of(whole).represent(whole.preprocess(TEXTS, task="document"), "document")
    best = everything["vector"].topk(3).values  # (n, 3)
    assert float(best[:, 2].min()) > 0  # there was something to leave out
    assert (found["vector"] > 0).sum(1).tolist() == [2, 2]

    encoded = plain.encode_document(TEXTS, convert_to_sparse_tensor=False)
    assert (encoded > 0).sum(1).tolist() == [2, 2]
    torch.testing.assert_close(encoded.topk(2).values, best[:, :2], atol=1e-5, rtol=0)

    found["vector"].sum().backward()
    weight = model[0].auto_model.get_input_embeddings().weight
    assert weight.grad is not None and bool(weight.grad.any())
