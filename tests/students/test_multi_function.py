"""The multi-function student: its three scores, its parts as models, and M3's training."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder

from retrieval_kd.cli.app import main
from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models.layers import weights_digest
from retrieval_kd.models.load import kind_of, load_encoder, load_retriever
from retrieval_kd.models.modules.lexical import LexicalEncoder
from retrieval_kd.models.modules.lexical_weights import LexicalWeights
from retrieval_kd.models.modules.multi_function import MultiFunctionEncoder
from retrieval_kd.objectives.vectors import flops
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.students.make import make_student
from retrieval_kd.students.multi_function import WEIGHTS, MultiFunctionStudent, save_parts
from retrieval_kd.students.student import student_of
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.batch import Batch, evaluate_term
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of
from tests.students.stopping import assert_same_after_a_stop

QUERIES = ["sparrow wing", "anchor mast"]
DOCUMENTS = ["feather nest wing", "harbour mast anchor mast cargo tide", "violin"]
# Released weighting (https://arxiv.org/abs/2402.03216, FlagEmbedding): half of the mean of four
# losses by label and of three by the integrated score, the lexical ones weighing 0.1.
M3 = [
    Term(name="infonce", student="dense", weight=1 / 8),
    Term(name="infonce", student="sparse", weight=0.1 / 8),
    Term(name="infonce", student="multi", weight=1 / 8),
    Term(name="infonce", student="integrated", weight=1 / 8),
    *(
        Term(name="kl", student=part, teacher="integrated", weight=weight, teacher_temperature=0.05)
        for part, weight in {"dense": 1 / 6, "sparse": 0.1 / 6, "multi": 1 / 6}.items()
    ),
]


@pytest.fixture(scope="module", params=["own", "vocabulary"])
def model(request, tiny_encoder):
    return make_student(
        str(tiny_encoder),
        "multi_function",
        [0, 3],
        dimensions=8,
        options={"lexical": request.param},
    )


def represented(model, texts, side):
    return student_of(model).represent(model.preprocess(texts, task=side), side)


@torch.no_grad()
def scores(model):
    return student_of(model).scores(
        represented(model, QUERIES, "query"), represented(model, DOCUMENTS, "document")
    )


def test_each_function_scores_every_query_with_every_document(model):
    found = scores(model)
    assert isinstance(student_of(model), MultiFunctionStudent)
    assert set(found) == {"score", "dense", "sparse", "multi", "integrated"}
    assert all(matrix.shape == (2, 3) for matrix in found.values())
    expected = sum(weight * found[name] for name, weight in WEIGHTS.items())
    torch.testing.assert_close(found["integrated"], expected)
    assert torch.equal(found["score"], found["dense"])
    assert float(found["multi"].abs().max()) <= 1.0001


def test_lexical_weights_by_hand():
    module = LexicalWeights(2, 5, ignored=[0])
    with torch.no_grad():
        module.linear.weight.copy_(torch.tensor([[1.0, -1.0]]))
        module.linear.bias.fill_(0.5)
    states = torch.tensor([[[9.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [7.0, 0.0]]])
    found = module(
        {
            "token_embeddings": states,
            "input_ids": torch.tensor([[0, 3, 3, 4, 2]]),  # 0 is special, the last is padding
            "attention_mask": torch.tensor([[1, 1, 1, 1, 0]]),
        }
    )["sentence_embedding"]
    assert found.tolist() == [[0.0, 0.0, 0.0, 2.5, 0.0]]  # the better of 1.5 and 2.5; ReLU(−2.5)


def test_at_first_own_words_all_weigh_the_same(tiny_encoder):
    made = make_student(str(tiny_encoder), "multi_function")
    shared = scores(made)["sparse"] / 0.3**2
    torch.testing.assert_close(shared, torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))


def test_at_first_a_word_of_the_vocabulary_means_itself_most_of_all(tiny_encoder):
    made = make_student(str(tiny_encoder), "multi_function", options={"lexical": "vocabulary"})
    found = scores(made)["sparse"]
    assert float(found[1, 1]) > float(found[1, 2])
    sparse = represented(made, DOCUMENTS, "document")["sparse"]
    assert float((sparse > 0).float().mean()) < 0.5


def test_every_part_loads_alone_with_the_same_embeddings(model, tmp_path):
    parts = save_parts(model, tmp_path / "parts")
    own = model.heads.lexical == "own"
    with torch.no_grad():
        queries = represented(model, QUERIES, "query")
        documents = represented(model, DOCUMENTS, "document")
        expected = scores(model)

    dense = SentenceTransformer(str(parts["dense"]), device="cpu")
    found = dense.encode_document(DOCUMENTS, convert_to_tensor=True)
    torch.testing.assert_close(found, documents["vector"], atol=1e-6, rtol=0)

    multi = MultiVectorEncoder(str(parts["multi_vector"]), device="cpu")
    tokens = multi.encode_document(DOCUMENTS)
    for row, present, alone in zip(documents["tokens"], documents["present"], tokens, strict=True):
        torch.testing.assert_close(alone.cpu(), row[present], atol=1e-6, rtol=0)
    matrix = multi.similarity(multi.encode_query(QUERIES), tokens)
    torch.testing.assert_close(matrix, expected["multi"], atol=1e-6, rtol=0)

    kind = LexicalEncoder if own else SparseEncoder  # only the former needs this package
    sparse = kind(str(parts["sparse"]), device="cpu")
    weights = sparse.encode_query(QUERIES, convert_to_sparse_tensor=False)
    torch.testing.assert_close(weights, queries["sparse"], atol=1e-6, rtol=0)
    opened = load_retriever(str(parts["sparse"]), dtype=torch.float32)
    assert isinstance(opened, SparseEncoder)
    assert weights_digest(opened) == weights_digest(sparse)


def test_the_lexical_part_loads_without_this_package_where_code_is_trusted(
    tiny_encoder, tmp_path, monkeypatch
):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "c"))
    model = make_student(str(tiny_encoder), "multi_function", [0, 3], options={"lexical": "own"})
    torch.nn.init.normal_(model.heads.sparse[0].linear.weight)
    folder = str(save_parts(model, tmp_path / "parts")["sparse"])
    with pytest.raises(ValueError, match="trust_remote_code"):
        SparseEncoder(folder, device="cpu")
    plain = SparseEncoder(folder, device="cpu", trust_remote_code=True)
    assert type(plain[1]).__module__.startswith("transformers_modules.")
    assert "import retrieval_kd" not in (tmp_path / "parts/sparse/lexical_weights.py").read_text()
    assert "from retrieval_kd" not in (tmp_path / "parts/sparse/lexical_weights.py").read_text()
    own = load_retriever(folder, dtype=torch.float32)
    assert isinstance(own[1], LexicalWeights)
    for encoder in (plain, own):
        weights = encoder.encode_query(QUERIES, convert_to_sparse_tensor=False)
        with torch.no_grad():
            expected = represented(model, QUERIES, "query")["sparse"]
        torch.testing.assert_close(weights, expected, atol=1e-6, rtol=0)


def test_the_command_saves_each_part(model, tmp_path, capsys):
    model.save(str(tmp_path / "student"))
    with pytest.raises(SystemExit) as end:
        main(["parts", str(tmp_path / "student"), str(tmp_path / "parts")])
    assert end.value.code == 0
    told = capsys.readouterr().out.split()
    assert {Path(folder).name for folder in told} == {"dense", "sparse", "multi_vector"}
    assert all(kind_of(folder) == Path(folder).name for folder in told)


def test_parts_are_searched_together(model, tiny_collection, tmp_path):
    """The order of two parts' fusion is that of their reciprocal ranks."""
    collection = open_collection(str(tiny_collection))
    parts = save_parts(model, tmp_path / "parts")
    queries = {"q": "sparrow wing feather"}
    alone = [retrieve(collection, queries, str(parts[p]), 60).results["q"] for p in parts]
    assert all(len(found) > 1 for found in alone)
    both = retrieve(collection, queries, f"{parts['dense']}+{parts['sparse']}", 60).results["q"]
    fused = dict.fromkeys(both, 0.0)
    for found in alone[:2]:
        for rank, id in enumerate(found, start=1):
            fused[id] += 1 / (60 + rank)
    assert both == pytest.approx(fused)


def test_a_model_of_one_function_has_no_parts_to_save(tiny_encoder, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["parts", str(tiny_encoder), str(tmp_path / "parts")])
    assert end.value.code == 2 and "multi_function" in capsys.readouterr().err


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    model.save(str(tmp_path / "model"))
    opened = load_encoder(str(tmp_path / "model"), dtype=torch.float32)
    assert isinstance(opened, MultiFunctionEncoder)
    assert weights_digest(opened) == weights_digest(model)
    for name, matrix in scores(opened).items():
        torch.testing.assert_close(matrix, scores(model)[name], atol=1e-6, rtol=0)
    plain = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert not isinstance(plain, MultiFunctionEncoder)
    np.testing.assert_allclose(plain.encode(QUERIES), model.encode(QUERIES), atol=1e-6)
    assert plain.get_embedding_dimension() == model.get_embedding_dimension() == 32


def test_it_is_no_start_of_another_kind(model, tmp_path):
    model.save(str(tmp_path / "model"))
    with pytest.raises(InputError, match="multi_function model"):
        make_student(str(tmp_path / "model"), "dense")
    again = make_student(str(tmp_path / "model"), "multi_function", [0])
    assert again[0].auto_model.config.num_hidden_layers == 1
    assert torch.equal(again.heads.multi[0].linear.weight, model.heads.multi[0].linear.weight)


def test_fewer_dimensions_are_for_vectors_alone(model):
    student = student_of(model)
    queries = represented(model, QUERIES, "query")
    documents = represented(model, DOCUMENTS, "document")
    cut = student.scores(queries, documents, 4)
    assert set(cut) == {"score", "dense", "multi"}
    query, document = queries["vector"][:, :4], documents["vector"][:, :4]
    expected = torch.nn.functional.cosine_similarity(query[:, None], document[None], dim=-1)
    torch.testing.assert_close(cut["dense"], expected)


def batch_of(model):
    features = [model.preprocess(QUERIES, task="query"), model.preprocess(DOCUMENTS)]
    gains = torch.tensor([[1, 0], [1, 0]])
    labels = {
        "columns": torch.tensor([[0, 2], [1, 0]]),
        "mask": torch.ones(2, 2, dtype=torch.bool),
        "teacher": torch.full((2, 2), torch.nan),
        "gains": gains,
    }
    return features, labels


@pytest.mark.parametrize("part", ["dense", "sparse", "multi", "integrated"])
def test_gradients_reach_the_part_that_learns_and_the_encoder(model, part):
    learner = copy.deepcopy(model).train()
    if learner.heads.lexical == "own":  # at the very start all tokens weigh the same
        torch.nn.init.constant_(learner.heads.sparse[0].linear.weight, 0.01)
    loss = ScoreMatrixLoss(learner, [Term(name="infonce", student=part)])
    sum(loss(*batch_of(learner)).values()).backward()
    reached = {n for n, p in learner.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(name.startswith("0.") for name in reached)
    lines = {"sparse": ["sparse"], "multi": ["multi"], "integrated": ["sparse", "multi"]}
    for line in ("sparse", "multi"):
        is_reached = any(name.startswith(f"heads.{line}.") for name in reached)
        assert is_reached == (line in lines.get(part, []))


def test_cached_gradients_are_those_of_the_whole_batch(model):
    grads = []
    for size in (None, 1):
        learner = copy.deepcopy(model).train()
        for module in learner.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        loss = ScoreMatrixLoss(learner, M3, mini_batch_size=size)
        sum(loss(*batch_of(learner)).values()).backward()
        grads.append({n: p.grad for n, p in learner.named_parameters() if p.grad is not None})
    assert set(grads[0]) == set(grads[1])
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4)


def test_the_objective_of_m3_falls_and_a_stopped_training_ends_the_same(
    tiny_collection, tiny_encoder, tmp_path
):
    model = make_student(str(tiny_encoder), "multi_function", [0, 3], dimensions=8)
    collection = open_collection(str(tiny_collection))
    settings = TrainSettings(
        steps=20, batch_queries=6, save_steps=4, max_tokens=32, learning_rate=2e-3, eval_steps=20
    )

    def run(out):
        pools = pools_of(collection)
        learner = copy.deepcopy(model)
        return train_student(TrainingJob(learner, pools, collection.documents, M3, settings, out))

    record = assert_same_after_a_stop(run, tmp_path)
    first, last = record["curve"]  # means of ten steps each
    assert last["loss"] < first["loss"]
    assert {"kl_dense_from_integrated", "kl_sparse_from_integrated"} <= set(last)


def test_the_regulariser_of_sparse_vectors_reaches_the_lexical_part(model):
    model = copy.deepcopy(model).train()
    queries = represented(model, QUERIES, "query")
    documents = represented(model, DOCUMENTS, "document")
    batch = Batch(student_of(model), queries, [documents], {}, progress=1.0)
    got = evaluate_term(Term(name="flops", student="sparse"), batch)
    torch.testing.assert_close(got, flops(queries["sparse"]) + flops(documents["sparse"]))
    got.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.heads.sparse.parameters())


def test_wrong_settings_are_refused(tiny_encoder, tiny_dot_encoder):
    with pytest.raises(InputError, match="does not compare by cosine"):
        make_student(str(tiny_dot_encoder), "multi_function")
    with pytest.raises(InputError, match="no option 'lexicon'"):
        make_student(str(tiny_encoder), "multi_function", options={"lexicon": "own"})
    with pytest.raises(InputError, match="lexical 'every'"):
        make_student(str(tiny_encoder), "multi_function", options={"lexical": "every"})
    with pytest.raises(InputError, match="weights are of"):
        make_student(str(tiny_encoder), "multi_function", options={"weights": {"token": 1.0}})
