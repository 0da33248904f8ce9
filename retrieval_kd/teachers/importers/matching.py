"""Finding published queries and passages in a collection, by ID or by exact text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document, hash_id
from retrieval_kd.teachers.importers.permutations import Passage, Published

NUMBER = re.compile(r"\[(\d+)\]")  # in a passage; published prompts have (3) in its place
LABELLED = re.compile(r"^Title: (.*?) Content: ")


def plain(text: str) -> str:
    """A text without what prompts change in it: runs of blanks, numbers in brackets, labels.

    Example:
        >>> plain("Title: Tides Content: The  moon [3]\\n pulls.")
        'Tides The moon (3) pulls.'
    """
    return LABELLED.sub(r"\1 ", " ".join(NUMBER.sub(r"(\1)", text).split())).strip()


class Matcher:
    """Looks up published queries and passages.

    An ID counts only if the text that was published with it is that document's, or its beginning:
    the IDs of two collections may look alike.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def query(self, told: Published) -> str | None:
        """The query's ID; None: the collection does not have it."""
        queries, id = self.collection.queries, told.query_id
        known = plain(queries[id].full) if id is not None and id in queries else None
        if known is not None and (told.query is None or plain(told.query) == known):
            return id
        if told.query is None:
            return None
        text = plain(told.query)
        endings = (text, text.removesuffix("."))  # some prompts end the query with a full stop
        return next((self._queries[t] for t in endings if t in self._queries), None)

    def document(self, told: Passage) -> Document | None:
        """The document; None: the collection does not have it, or has another under its ID."""
        documents = self.collection.documents
        if told.id is not None and told.id in documents:
            known = documents[told.id]
            text = None if told.text is None else plain(told.text)
            if text is None or any(one.startswith(text) for one in _forms(known)):
                return known
        if told.text is None:
            return None
        place = self._places.get(hash_id(plain(told.text)))
        return None if place is None else documents.at(place)

    @cached_property
    def _queries(self) -> dict[str, str]:
        """Text → ID; of two queries of one text, the first."""
        found: dict[str, str] = {}
        for query in self.collection.queries.iterate():
            found.setdefault(plain(query.full), query.id)
        return found

    @cached_property
    def _places(self) -> dict[int, int]:
        """Hash of a text → place of its document; of two documents of one text, the first."""
        found: dict[int, int] = {}
        for place, document in enumerate(self.collection.documents.iterate()):
            for form in _forms(document):
                found.setdefault(hash_id(form), place)
        return found


def _forms(document: Document) -> Iterator[str]:
    """How a document may have been published: with its title, and without."""
    yield plain(document.full)
    if document.title:
        yield plain(document.text)
