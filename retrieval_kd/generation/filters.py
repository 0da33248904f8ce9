"""Which written queries are kept: each once, none of a test, those that find their document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from retrieval_kd.audit.overlap import QUERIES, find_overlaps
from retrieval_kd.audit.texts import DistinctTexts, TextList
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.draw_queries import normalise
from retrieval_kd.errors import Drops
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.teachers.generate.queries import WrittenQueries


@dataclass(frozen=True)
class GeneratedQuery:
    """A query with the documents that it was written about.

    Args:
        ranks: retriever → the best rank of one of these documents, from 1; retrievers that did not
            find any are missing.
    """

    id: str
    text: str
    documents: tuple[str, ...]
    ranks: Mapping[str, int] = field(default_factory=dict)


def each_query_once(written: Sequence[WrittenQueries], prefix: str) -> list[GeneratedQuery]:
    """Give queries IDs, and join those of the same text: each of their documents is relevant.

    Texts are the same if they differ only in case, white space and punctuation at the ends.

    Example:
        >>> written = [WrittenQueries("d1", "", ("Why tides?",)),
        ...            WrittenQueries("d2", "", ("why tides", "how far is the moon"))]
        >>> for query in each_query_once(written, "generated"):
        ...     print(query.id, query.text, query.documents)
        generated:d1:1 Why tides? ('d1', 'd2')
        generated:d2:2 how far is the moon ('d2',)
    """
    queries: dict[str, GeneratedQuery] = {}
    for answer in written:
        for number, text in enumerate(answer.queries, 1):
            form, document = normalise(text) or text, answer.document
            known = queries.get(form)
            if known is None:
                id = f"{prefix}:{document}:{number}"
                queries[form] = GeneratedQuery(id, text, (document,))
            elif document not in known.documents:
                queries[form] = replace(known, documents=(*known.documents, document))
    return list(queries.values())


def overlapping(
    queries: Sequence[GeneratedQuery], collection: Collection, splits: Sequence[str]
) -> dict[str, str]:
    """Find queries that overlap with a query of these splits, by the checks of `rkd audit`.

    Returns:
        ID of a generated query → the split and the query that it is like, and how.
    """
    found: dict[str, str] = {}
    texts = {query.id: query.text for query in queries}
    written = DistinctTexts(TextList("the written queries", "", texts))
    for split in splits:
        known = TextList(split, "", collection.query_texts(split))
        partners = find_overlaps(written, DistinctTexts(known), QUERIES, Drops())
        for row, of in partners.items():
            other, kinds = next(iter(of.items()))
            reason = f"{next(iter(kinds))} overlap with query {known.id(other)} of {split}"
            found.setdefault(written.texts.id(row), reason)
    return found


def with_ranks(
    queries: Sequence[GeneratedQuery], collection: Collection, retrievers: Sequence[str], depth: int
) -> list[GeneratedQuery]:
    """Note at which rank each retriever finds a query's documents, if among its first `depth`.

    The round-trip check of Alberti et al., ACL 2019, https://arxiv.org/abs/1906.05416, and of
    Promptagator (Dai et al. 2022, https://arxiv.org/abs/2209.11755), which keeps a query whose
    document is first.
    """
    texts = {query.id: query.text for query in queries}
    ranks: dict[str, dict[str, int]] = {query.id: {} for query in queries}
    for retriever in retrievers if queries else ():
        run = retrieve(collection, texts, retriever, depth, exclude_self=False)
        for query in queries:
            own = set(query.documents)
            for rank, document in enumerate(run.results.get(query.id, {}), 1):
                if document in own:
                    ranks[query.id][retriever] = rank
                    break
    return [replace(query, ranks=ranks[query.id]) for query in queries]
