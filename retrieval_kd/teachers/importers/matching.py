"""Lookup of published queries and passages in a collection, by ID or by exact text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document, hash_id
from retrieval_kd.teachers.importers.order_files import Passage, PublishedOrder

NUMBER = re.compile(r"\[(\d+)\]")  # in a passage; published prompts write (3) instead
LABELLED = re.compile(r"^Title: (.*?) Content: ")


def plain(text: str) -> str:
    """Undo what prompts change in a text: repeated spaces, numbers in brackets, labels.

    Example:
        >>> plain("Title: Tides Content: The  moon [3]\\n pulls.")
        'Tides The moon (3) pulls.'
    """
    return LABELLED.sub(r"\1 ", " ".join(NUMBER.sub(r"(\1)", text).split())).strip()


class Matcher:
    """Looks up published queries and passages.

    An ID counts only if the text published with it is the document's text or its beginning, because
    two collections may use the same IDs.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def query(self, published: PublishedOrder) -> str | None:
        """ID of the query, or None if the collection lacks it."""
        queries, id = self.collection.queries, published.query_id
        known = plain(queries[id].full) if id is not None and id in queries else None
        if known is not None and (published.query is None or plain(published.query) == known):
            return id
        if published.query is None:
            return None
        text = plain(published.query)
        endings = (text, text.removesuffix("."))  # some prompts end the query with a full stop
        return next((self._queries[t] for t in endings if t in self._queries), None)

    def document(self, passage: Passage) -> Document | None:
        """The document, or None if the collection lacks it or has another text under its ID."""
        documents = self.collection.documents
        if passage.id is not None and passage.id in documents:
            document = documents[passage.id]
            text = None if passage.text is None else plain(passage.text)
            if text is None or any(form.startswith(text) for form in _forms(document)):
                return document
        if passage.text is None:
            return None
        place = self._places.get(hash_id(plain(passage.text)))
        return None if place is None else documents.at(place)

    @cached_property
    def _queries(self) -> dict[str, str]:
        """Text → ID of the first query with this text."""
        found: dict[str, str] = {}
        for query in self.collection.queries.iterate():
            found.setdefault(plain(query.full), query.id)
        return found

    @cached_property
    def _places(self) -> dict[int, int]:
        """Hash of a text → position of the first document with this text."""
        found: dict[int, int] = {}
        for place, document in enumerate(self.collection.documents.iterate()):
            for form in _forms(document):
                found.setdefault(hash_id(form), place)
        return found


def _forms(document: Document) -> Iterator[str]:
    """The forms in which a document may be published: with and without its title."""
    yield plain(document.full)
    if document.title:
        yield plain(document.text)
