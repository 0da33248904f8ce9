"""Answers are stored by text, failed calls are asked again, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retrieval_kd.data.rows import Row
from retrieval_kd.data.texts import build_texts
from retrieval_kd.store.usage import Usage, read_usage
from retrieval_kd.teachers.generate import write
from retrieval_kd.teachers.generate.write import QueryTask, write_about
from retrieval_kd.teachers.llm.protocol import Completion

TASK = QueryTask(count=1)


class Writer:
    """Writes about the last word of a document, unless the word is in `fails`; counts prompts."""

    name, digest, dtype = "writer", "ab12", ""

    def __init__(self, fails=()):
        self.fails, self.asked, self.usage = set(fails), [], Usage()

    def shorten(self, texts, most_tokens, side="end"):
        return [" ".join(text.split()[:most_tokens]) for text in texts]

    def generate(self, prompts, most_tokens):
        words = [prompt.user.split("</document>")[-2].split()[-1] for prompt in prompts]
        self.asked += words
        self.usage.calls += len(words)
        return [
            Completion("", "failed") if word in self.fails
            else Completion(f"<query>about {word}</query>")
            for word in words
        ]  # fmt: skip


@pytest.fixture
def documents(tmp_path):
    texts = ["the moon", "the sea", " \u200b", "the moon", "a keel"]
    return build_texts([Row(f"d{n}", "", text) for n, text in enumerate(texts)], tmp_path / "texts")


IDS = [f"d{n}" for n in range(5)]


def test_a_text_is_asked_about_once_and_each_document_has_its_answer(documents, tmp_path):
    writer = Writer()
    report = write_about(documents, IDS, writer, TASK, tmp_path / "store")
    assert writer.asked == ["moon", "sea", "keel"]
    assert [(one.document, one.queries) for one in report.answers] == [
        ("d0", ("about moon",)), ("d1", ("about sea",)), ("d3", ("about moon",)),
        ("d4", ("about keel",)),
    ]  # fmt: skip
    assert report.without_text == ["d2"] and not report.failed and report.reused == 0
    assert read_usage(tmp_path / "store" / TASK.key(writer).fingerprint).calls == 3


def test_only_what_failed_or_is_new_is_asked_about_later(documents, tmp_path):
    first = write_about(documents, IDS[:2], Writer(fails=["sea"]), TASK, tmp_path)
    assert first.failed == ["d1"] and len(first.answers) == 1
    again = Writer()
    report = write_about(documents, IDS, again, TASK, tmp_path)
    assert again.asked == ["sea", "keel"] and report.reused == 2 and len(report.answers) == 4


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "claims"}, {"count": 2}, {"examples": (("bread", "why yeast"),)},
        {"passage_tokens": 20}, {"query_tokens": 20},
    ],
)  # fmt: skip
def test_another_task_has_other_answers(documents, tmp_path, changed):
    write_about(documents, IDS[:1], Writer(), TASK, tmp_path)
    other = Writer()
    write_about(documents, IDS[:1], other, replace(TASK, **changed), tmp_path)
    assert other.asked == ["moon"]


def test_what_was_answered_before_an_error_is_stored(documents, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "PART", 1)

    class Broken(Writer):
        def generate(self, prompts, most_tokens):
            if self.asked:
                raise KeyboardInterrupt
            return super().generate(prompts, most_tokens)

    with pytest.raises(KeyboardInterrupt):
        write_about(documents, IDS, Broken(), TASK, tmp_path)
    later = Writer()
    write_about(documents, IDS, later, TASK, tmp_path)
    assert later.asked == ["sea", "keel"]
