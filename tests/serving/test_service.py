"""A service lists what each index and BM25 find, and what they find together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.change import add_documents, delete_documents
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.retrieval.bm25 import BM25
from retrieval_kd.retrieval.retrieve import hybrid_run
from retrieval_kd.serving import systems
from retrieval_kd.serving.service import Service
from retrieval_kd.teachers.spec import open_teacher
from tests.serving.conftest import SCRIPT, WORDS


@pytest.fixture(scope="module")
def service(indexes) -> Service:
    made = Service(list(indexes.values()), "bm25", 3)
    made.load()
    return made


def lists(answer):
    return {one.system: [(hit.id, hit.score) for hit in one.hits] for one in answer.lists}


def test_hits_are_those_of_the_index_and_of_bm25(service, indexes):
    found = lists(service.search(WORDS, 7))
    assert list(found) == ["my-dense", "my-sparse", "my-multi_vector", "bm25", "hybrid"]
    for kind, folder in indexes.items():
        assert found[f"my-{kind}"] == Index.open(folder).search([WORDS], 7)[0]
    documents = service.collection.documents
    assert found["bm25"] == list(BM25.open(documents).search(WORDS, 7).items())


def test_the_hybrid_fuses_all_lists_by_rank_whichever_are_shown(service):
    deep = lists(service.search(WORDS, 61, systems=service.names[:-1]))
    runs = [Run(name, {"q": dict(hits)}) for name, hits in deep.items()]
    expected = list(hybrid_run(runs, depth=5).results["q"].items())
    assert lists(service.search(WORDS, 5, systems=["hybrid"])) == {"hybrid": expected}


def test_a_prefix_keeps_the_order_and_the_scores(service):
    whole, found = lists(service.search(WORDS, 61)), lists(service.search(WORDS, 4, prefix="ships"))
    for name in service.names[:-1]:
        assert found[name] == [hit for hit in whole[name] if hit[0].startswith("ships")][:4]
    assert all(id.startswith("ships") for id, _ in found["hybrid"])
    assert not any(lists(service.search(WORDS, 4, prefix="nothing")).values())


def test_a_prefix_that_is_rare_among_the_best_is_said_to_be_incomplete(service, monkeypatch):
    monkeypatch.setattr(systems, "MOST_LOOKED", 2)
    answer = service.search(WORDS, 3, prefix="ships", systems=["my-dense"])
    assert not answer.lists[0].found.complete
    assert service.search(WORDS, 3, systems=["my-dense"]).lists[0].found.complete


def test_an_approximate_index_that_gives_too_few_is_said_to_be_incomplete(
    scripted, tiny_encoder, tmp_path
):
    spec = IndexSpec(factory="IVF4,Flat", search="nprobe=1")
    build_index(open_collection(scripted), str(tiny_encoder), spec, tmp_path / "near")
    service = Service([tmp_path / "near"])
    service.load()
    found = service.search(WORDS, 100, systems=["near"], prefix="ships").lists[0].found
    matching = service.identifiers.with_prefix("ships")
    assert matching is not None and len(found.hits) < matching.matching
    assert not found.complete
    ids = [id for id, _ in service.indexes[0].index.search([WORDS])[0]]
    assert service.search(WORDS, 1, systems=["near"], prefix=ids[0]).lists[0].found.complete


def test_a_coded_index_is_described_by_its_bits_and_its_pool(indexes, tmp_path):
    model = Index.open(indexes["multi_vector"]).manifest["model"]
    spec = IndexSpec(kind="multi_vector", bits=2, pool=2, search="candidates=61")
    collection = Index.open(indexes["multi_vector"]).collection()
    build_index(collection, model, spec, tmp_path / "coded")
    coded, whole = Service([tmp_path / "coded", indexes["multi_vector"]]).indexes
    assert coded.about.startswith("multi_vector, 2 bits, pool 2: ") and not coded.exact
    assert whole.about.startswith("multi_vector, exact: ") and whole.exact


def test_a_teacher_puts_the_first_documents_in_its_order(service):
    plain = service.search(WORDS, 6)
    answer = service.search(WORDS, 6, rerank=True)
    teacher = open_teacher("bm25", service.collection)
    for before, after in zip(plain.lists, answer.lists, strict=True):
        first = {hit.id for hit in before.hits[:3]}
        assert {hit.id for hit in after.hits[:3]} == first
        scores = [hit.teacher for hit in after.hits[:3]]
        assert scores == sorted(scores, reverse=True)
        assert [(h.id, h.teacher) for h in after.hits[3:]] == [
            (h.id, None) for h in before.hits[3:]
        ]
        for hit in after.hits[:3]:
            document = service.collection.documents[hit.id]
            assert hit.teacher == teacher.score([WORDS], [document])[0]
            assert before.hits[hit.rank_before - 1].id == hit.id
    assert answer.reranked <= 3 * len(service.names)


def test_what_matched_is_marked_in_the_text_that_is_shown(service):
    answer = service.search("sparrow", 61, highlight=True)
    for one in answer.lists:
        for hit in one.hits:
            text = "".join(piece.text for piece in hit.text_marks)
            assert not hit.text_marks if one.system == "my-dense" else text == hit.text
    bm25 = next(one for one in answer.lists if one.system == "bm25")
    assert all("sparrow" in [p.text for p in hit.text_marks if p.weight] for hit in bm25.hits)
    sparse = next(one for one in answer.lists if one.system == "my-sparse")
    assert any(hit.words for hit in sparse.hits)


def test_texts_are_clean_and_whole(service):
    hits = service.search("sparrow", 61, systems=["bm25"]).lists[0].hits
    evil = next(hit for hit in hits if hit.id == "evil-1")
    assert evil.title == SCRIPT and evil.text == f"sparrow wing {SCRIPT} [31m"


def test_a_query_without_a_term_finds_nothing_by_bm25(service):
    found = lists(service.search("zzz 🐦", 3, highlight=True))
    assert found["bm25"] == [] and len(found["my-dense"]) == 3


def test_what_cannot_be_served_is_refused_before_a_model_is_loaded(
    indexes, tiny_collection, tiny_encoder, tmp_path, monkeypatch
):
    build_index(open_collection(tiny_collection), str(tiny_encoder), IndexSpec(), tmp_path / "x")
    monkeypatch.setattr(Index, "open", None)
    dense = indexes["dense"]
    for folders, teacher, what in (
        ([tmp_path], None, "no finished index"),
        ([dense, tmp_path / "x"], None, "documents are not those"),
        ([dense, dense], None, "given twice"),
        ([dense], "pairwise:some/model", "compares documents"),
        ([dense], "rerank:some/model", "on a server"),
        ([dense], str(tmp_path / "none"), "no such model folder"),
    ):
        with pytest.raises(InputError, match=what):
            Service(folders, teacher)


def test_indexes_of_one_name_are_told_apart(indexes, tmp_path):
    import shutil

    folders = [tmp_path / "a" / "index", tmp_path / "b" / "index", tmp_path / "bm25"]
    for folder in folders:
        shutil.copytree(indexes["dense"], folder)
    names = Service(folders).names
    assert names == ["index", "index-2", "bm25-2", "bm25", "hybrid"]


def test_a_cross_encoder_re_ranks(indexes, tiny_cross_encoder):
    made = Service([indexes["dense"]], str(tiny_cross_encoder), 4)
    assert made.teacher_name == tiny_cross_encoder.name
    made.load()
    [listed] = made.search(WORDS, 5, systems=["my-dense"], rerank=True).lists
    teacher = open_teacher(str(tiny_cross_encoder), made.collection)
    for hit in listed.hits[:4]:
        [score] = teacher.score([WORDS], [made.collection.documents[hit.id]])
        assert hit.teacher == pytest.approx(score, abs=1e-4)


def test_a_changed_index_is_served_with_its_documents_of_now(indexes, tmp_path):
    folder = shutil.copytree(indexes["dense"], tmp_path / "changed")
    add_documents(folder, [Document("new-1", "Otters", "an otter holds hands asleep")])
    delete_documents(folder, ["evil-1"])
    service = Service([folder], "bm25")
    service.load()
    assert len(service.collection.documents) == Index.open(folder).manifest["count"]
    lists = {one.system: one.hits for one in service.search("otter hands").lists}
    assert [hit.id for hit in lists["bm25"]] == ["new-1"]
    assert lists["bm25"][0].title == "Otters"
    found = service.search(WORDS, 61, rerank=True).lists
    assert not any(hit.id == "evil-1" for one in found for hit in one.hits)
    assert service._folder is not None
    temporary = Path(service._folder.name)
    assert temporary.is_dir()
    service.close()
    assert not temporary.exists() and not service.ready
    with pytest.raises(InputError, match="changed in the same way"):
        Service([folder, indexes["sparse"]])
