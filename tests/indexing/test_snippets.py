from __future__ import annotations

import json
from pathlib import Path

from retrieval_kd.data.collection import open_collection
from retrieval_kd.indexing.snippets import best_window, clean, snippets


def test_terminal_escapes_and_reversed_writing_are_removed() -> None:
    nasty = "\x1b]0;owned\x07 \u202egnp.exe\u2066 \x9b31m a\u2028b\x00 می\u200cشود"
    shown = clean(nasty)
    assert shown == "]0;owned gnp.exe 31m a b می\u200cشود"
    assert all(ord(character) >= 32 for character in shown)


def test_the_snippet_is_where_the_query_is(tmp_path: Path) -> None:
    text = "filler " * 200 + "the Sparrow builds a nest " + "filler " * 200
    (tmp_path / "corpus.jsonl").write_text(
        json.dumps({"_id": "d", "title": "T\x1b[2J", "text": text})
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "x"}')
    texts = open_collection(tmp_path).documents
    [shown] = snippets(texts, [("d", 0.5)], "Where does a sparrow nest?", words=8)
    assert shown.title == "T[2J" and "Sparrow" in shown.text and "nest" in shown.text
    assert len(shown.text.split()) == 10 and shown.text.startswith("…")


def test_a_short_text_is_shown_whole() -> None:
    assert best_window("one two", frozenset({"two"}), 5) == "one two"
    assert best_window("one two three", frozenset(), 2) == "one two …"
