"""Each query once, none of a test split, and only those that find their document."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.draw_queries import normalise
from retrieval_kd.generation.filters import (
    GeneratedQuery,
    each_query_once,
    overlapping,
    with_ranks,
)
from retrieval_kd.teachers.generate.queries import WrittenQueries

words = st.text("aB .?", min_size=1, max_size=4)


@given(st.lists(st.lists(words, max_size=4), max_size=5))
def test_every_document_is_relevant_to_each_of_its_queries(texts):
    written = [WrittenQueries(f"d{n}", "", tuple(own)) for n, own in enumerate(texts)]
    queries = each_query_once(written, "g")
    of_text = {normalise(query.text) or query.text: query for query in queries}
    assert len(of_text) == len(queries) == len({query.id for query in queries})
    expected = {(normalise(t) or t, f"d{n}") for n, own in enumerate(texts) for t in own}
    assert expected == {(t, d) for t, query in of_text.items() for d in query.documents}


def test_queries_of_a_test_are_found_by_their_words_and_by_near_copies(tmp_path):
    folder = tmp_path / "tides"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "The moon pulls the sea."}')
    (folder / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "what causes the tides of the sea"}\n'
        '{"_id": "q2", "text": "who trains here"}'
    )
    for split, query in (("test", "q1"), ("train", "q2")):
        (folder / f"qrels/{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{query}\td1\t1\n")
    queries = [
        GeneratedQuery("g1", "What causes the tides of the seas?", ("d1",)),
        GeneratedQuery("g2", "WHAT causes the tides of the sea", ("d1",)),
        GeneratedQuery("g3", "Who trains here?", ("d1",)),
        GeneratedQuery("g4", "how heavy is the moon", ("d1",)),
    ]
    found = overlapping(queries, open_collection(folder), ["test"])
    assert found == {
        "g1": "near overlap with query q1 of test",
        "g2": "exact overlap with query q1 of test",
    }


def test_many_copies_of_one_test_query_are_all_found(tiny_collection):
    collection = open_collection(tiny_collection)
    text = next(iter(collection.query_texts("test").values()))
    queries = [GeneratedQuery(f"g{n}", text + "?" * n, ("birds1",)) for n in range(60)]
    assert len(overlapping(queries, collection, ["test"])) == 60


def test_a_query_has_the_best_rank_of_its_documents(tiny_collection):
    collection = open_collection(tiny_collection)
    document, *others = [collection.documents.at(row) for row in range(3)]
    text = document.full
    queries = [
        GeneratedQuery("own", text, (document.id,)),
        GeneratedQuery("either", text, (others[0].id, document.id)),
        GeneratedQuery("none", "zebra", (document.id,)),
    ]
    own, either, none = with_ranks(queries, collection, ["bm25", "bm25-lucene"], 3)
    assert own.ranks == either.ranks and set(own.ranks) == {"bm25", "bm25-lucene"}
    assert own.ranks["bm25"] <= 3 and none.ranks == {}
