"""Sentences that must find the documents they were cut out of."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.cloze import cut_out, write_cloze
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.texts import Document

WORDS = st.text("abcdefgh", min_size=1, max_size=6)
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=50), max_size=6)


@given(SENTENCES, st.integers(0, 99))
def test_query_and_rest_are_the_words_of_the_document(parts, seed):
    text = " ".join(" ".join(words) + "." for words in parts)
    document = Document("d", "A title", text)
    cut = cut_out(document, np.random.default_rng(seed))
    if cut is None:
        assert len(document.full.split()) < 12 or len(parts) < 2
        return
    query, rest = cut
    assert 6 <= len(query.split()) <= 45 and rest.id == "d" and rest.text
    together = sorted(f"{query} {rest.full}".split())
    assert together == sorted(document.full.split())


def test_a_document_of_one_sentence_is_cut_in_halves():
    words = [f"word{n}" for n in range(14)]
    query, rest = cut_out(Document("d", "", " ".join(words)), np.random.default_rng(0))
    assert query.split() == words[:7] and rest.text.split() == words[7:]
    assert cut_out(Document("d", "", " ".join(words[:11])), np.random.default_rng(0)) is None


def test_a_collection_of_cut_documents_opens_and_is_the_same_again(tiny_collection, tmp_path):
    collection = open_collection(tiny_collection)
    assert write_cloze(collection, tmp_path / "one", 40) == 40
    write_cloze(collection, tmp_path / "again", 40)
    one, again = (open_collection(tmp_path / name) for name in ("one", "again"))
    assert one.documents.digest == again.documents.digest
    queries, qrels = one.query_texts("test"), one.qrels("test")
    for query, text in queries.items():
        [relevant] = qrels[query]
        assert query == f"cloze:{relevant}"
        whole = collection.documents.at(collection.documents.position(relevant)).full
        assert text in whole and text not in one.documents.at(one.documents.position(relevant)).full
    without = {*list(queries.values())[:5]}
    write_cloze(collection, tmp_path / "without", 60, exclude=without)
    assert not without & {*open_collection(tmp_path / "without").query_texts("test").values()}
