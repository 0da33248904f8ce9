"""Finds what was published in a collection: queries and passages, by ID or by text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document, hash_id
from retrieval_kd.errors import InputError
from retrieval_kd.store.key import TeacherKey

NUMBER = re.compile(
    r"\[(\d+)\]"
)  # bracketed number in a passage, which published prompts write as (3)
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

    An ID counts only if the text published with it, if any, equals the query or is the beginning of
    the document, because two collections may use the same IDs.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def query(self, id: str | None, published: str | None) -> str | None:
        """ID of the query, or None if the collection lacks it."""
        queries = self.collection.queries
        ours = plain(queries[id].full) if id is not None and id in queries else None
        if ours is not None and (published is None or plain(published) == ours):
            return id
        if published is None:
            return None
        text = plain(published)
        endings = (text, text.removesuffix("."))  # some prompts end the query with a full stop
        return next((self._queries[t] for t in endings if t in self._queries), None)

    def document(self, id: str | None, published: str | None) -> Document | None:
        """The document, or None if the collection lacks it or has another text under its ID."""
        documents = self.collection.documents
        if id is not None and id in documents:
            document = documents[id]
            text = None if published is None else plain(published)
            if text is None or any(form.startswith(text) for form in _forms(document)):
                return document
        if published is None:
            return None
        place = self._places.get(hash_id(plain(published)))
        return None if place is None else documents.at(place)

    @cached_property
    def _queries(self) -> dict[str, str]:
        """Text → ID of the first query with this text."""
        ids: dict[str, str] = {}
        for query in self.collection.queries.iterate():
            ids.setdefault(plain(query.full), query.id)
        return ids

    @cached_property
    def _places(self) -> dict[int, int]:
        """Hash of a text → position of the first document with this text."""
        places: dict[int, int] = {}
        for place, document in enumerate(self.collection.documents.iterate()):
            for form in _forms(document):
                places.setdefault(hash_id(form), place)
        return places


def _forms(document: Document) -> Iterator[str]:
    """The forms in which a document may be published: with and without its title."""
    yield plain(document.full)
    if document.title:
        yield plain(document.text)


def imported_key(kind: str, model: str, prompt: str = "") -> TeacherKey:
    """Return the key of an imported teacher. Refuse a name that nobody could read or type."""
    if not model.strip() or not model.isprintable():
        problem = f"{model!a} is no name for a teacher"
        raise InputError(problem, remedy="give it one, such as --model monot5")
    return TeacherKey(kind, model, digest=f"imported:{model}", prompt=prompt)
