"""A student's card carries its results in the form the hub reads, and keeps what it said."""

from __future__ import annotations

import shutil

import pytest
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.report.model_card import BEGIN, END, update_model_card
from retrieval_kd.evaluation.result_file import Outputs
from retrieval_kd.metrics.evaluation import Evaluation


def of(value: float) -> Evaluation:
    values = {"student": value, "bm25": 0.25}
    per_query = {s: {"ndcg@10": {"q1": v, "q2": v}} for s, v in values.items()}
    return Evaluation(["ndcg@10"], per_query)


@pytest.fixture
def student(tmp_path, tiny_encoder):
    """A model folder with the card that Sentence Transformers writes."""
    shutil.copytree(tiny_encoder, tmp_path / "student")
    return tmp_path / "student"


def results(folder):
    card = ModelCard.load(folder / "README.md")
    return {(r.dataset_name, r.metric_name): r.metric_value for r in card.data.eval_results}


def test_results_are_in_the_model_index_and_in_the_text(student):
    before = (student / "README.md").read_text()
    update_model_card(student, {"tides, test": of(0.5)}, "student", digest="abc")
    assert results(student) == {("tides, test", "nDCG@10"): 0.5}
    card = ModelCard.load(student / "README.md")
    assert card.data.library_name == "sentence-transformers"
    assert card.data.eval_results[0].task_type == "information-retrieval"
    assert "| tides, test | nDCG@10 | 0.5000 | 0.2500 |" in card.text
    assert "digest `abc`" in card.text
    kept = before.split("---\n", 2)[2].strip()
    assert kept in card.text, "what Sentence Transformers wrote stays"


def test_a_second_measurement_replaces_the_first_and_keeps_other_collections(student):
    for name, value in (("tides, test", 0.5), ("moons, test", 0.75), ("tides, test", 0.625)):
        update_model_card(student, {name: of(value)}, "student")
    assert results(student) == {("tides, test", "nDCG@10"): 0.625, ("moons, test", "nDCG@10"): 0.75}
    text = (student / "README.md").read_text()
    assert text.count("## Retrieval results") == 1


def test_results_that_others_wrote_stay_also_two_of_one_measure(student):
    """The hub tells results apart by split and configuration; ours have neither."""
    entry = """
  - task: {{type: {task}, name: Retrieval}}
    dataset: {{type: tides, name: "tides, test"{split}}}
    metrics: [{{type: ndcg@10, value: {value}}}]"""
    rows = [
        entry.format(task="information-retrieval", split=", split: dev", value=0.1),
        entry.format(task="information-retrieval", split=", split: heldout", value=0.2),
        entry.format(task="retrieval", split="", value=0.3),
    ]
    head = f"---\nmodel-index:\n- name: mine\n  results:{''.join(rows)}\n---\n# Mine\n"
    (student / "README.md").write_text(head)
    for value in (0.5, 0.75):
        update_model_card(student, {"tides, test": of(value)}, "student")
    card = ModelCard.load(student / "README.md")
    assert [r.metric_value for r in card.data.eval_results] == [0.1, 0.2, 0.3, 0.75]


@pytest.mark.parametrize("lost", [BEGIN, END])
def test_text_below_a_section_without_its_second_mark_is_not_deleted(student, lost):
    update_model_card(student, {"tides, test": of(0.5)}, "student")
    edited = (student / "README.md").read_text().replace(lost, "") + "\nKeep me.\n"
    (student / "README.md").write_text(edited)
    with pytest.raises(InputError, match=r"not in pairs.*To fix: delete the old section"):
        update_model_card(student, {"tides, test": of(0.75)}, "student")
    assert (student / "README.md").read_text() == edited


def test_the_same_results_give_the_same_card(student):
    update_model_card(student, {"tides, test": of(0.5)}, "student")
    first = (student / "README.md").read_bytes()
    update_model_card(student, {"tides, test": of(0.5)}, "student")
    assert (student / "README.md").read_bytes() == first


def test_a_card_is_made_where_there_is_none_and_the_model_still_loads(student):
    (student / "README.md").unlink()
    update_model_card(student, {"tides, test": of(0.5)}, "student")
    assert results(student) == {("tides, test", "nDCG@10"): 0.5}
    model = SentenceTransformer(str(student), device="cpu")
    assert model.encode(["sparrow"]).shape == (1, 32)


def test_wrong_folders_and_cards_are_named(student, tmp_path):
    with pytest.raises(InputError, match="no Sentence Transformers model"):
        update_model_card(tmp_path, {"tides": of(0.5)}, "student")
    (student / "README.md").write_text("---\ntags: [a\n---\n")
    with pytest.raises(InputError, match="head cannot be read"):
        update_model_card(student, {"tides": of(0.5)}, "student")


def test_the_student_of_a_card_is_found_or_named(student, tmp_path):
    outputs = Outputs(card=student)
    assert outputs.student({"bm25": "bm25", "s": str(student)}) == "s"
    assert outputs.student({"only": "only"}) == "only"
    assert Outputs(card=student, card_system="b").student({"a": "a", "b": "b"}) == "b"
    with pytest.raises(InputError, match="--card-system"):
        outputs.student({"a": "a", "b": "b"})
    with pytest.raises(InputError, match="unknown system 'c'"):
        Outputs(card=student, card_system="c").student({"a": "a"})
