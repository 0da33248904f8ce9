"""What of a foreign text is shown: one line, without escapes, keys or endless words."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrieval_kd
from retrieval_kd.errors import LONGEST_TEXT, Drops, InputError, shown
from retrieval_kd.progress import Screen, say

ESCAPES = "\x1b[31m\x1b]0;pwned\x07\x9b2J\x00\x08\x7f\r\u202e\u2066\u200b\ud800\u2028"


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_what_is_shown_can_be_printed_on_one_line(text):
    found = shown(text)
    found.encode()
    assert found.replace("\u200c", "").replace("\u200d", "").isprintable() and shown(found) == found


def test_ordinary_text_is_shown_as_it_is():
    for text in ("Größe 5 µm", "می‌خواهم", "👩‍🚀", "a  b", "/tmp/a b/c.trec"):
        assert shown(text) == text


@pytest.mark.parametrize("key", ["sk-planted-12345", "a.b*c(d[e\\f"])
def test_keys_are_masked_however_they_are_written(key, monkeypatch):
    for name in ("RETRIEVAL_KD_API_KEY", "OPENAI_API_KEY", "HF_TOKEN"):
        with monkeypatch.context() as patch:
            patch.setenv(name, f"{key}\n")
            for written in (key, key.upper(), f"{key[:5]}\x1b{key[5:]}", f"{key}{key}"):
                assert key.lower() not in shown(f"Bearer {written}.").lower()
            assert key not in shown("x " * 1_999 + key, 4_000), "no half of a key either"


@pytest.mark.parametrize(
    "key", ["sk-SECRETKEY/12+345==", "hf_pQ9zXw7aB3cD5eF7gH", "k\"8&<>'9\\x71+/"]
)
def test_parts_of_a_key_are_masked_in_every_encoding(key, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_KD_API_KEY", key)
    data = [key.encode(), b"Bearer " + key.encode(), b"user:" + key.encode() + b"\n"]
    encoded = [base64.b64encode(one).decode() for one in data]
    encoded += [base64.urlsafe_b64encode(one).decode() for one in data]
    encoded += [
        quote(key),
        quote(key, safe=""),
        quote(key, safe="").lower(),
        quote(quote(key, safe=""), safe=""),
    ]
    encoded += [json.dumps(key), json.dumps(key).replace("/", r"\/"), html.escape(key)]
    encoded += [
        " ".join(key),
        key.encode().hex(),
        key[:8],
        key[:12],
        key[:-3],
        key[3:],
        key.upper()[2:-2],
    ]
    for written in encoded:
        found = shown(f"bad: {written}... (401)")
        left = found.removeprefix("bad: ").removesuffix("... (401)")
        assert "***" in left and len(left.replace("***", "")) < 15, (written, found)
        assert not any(key[at : at + 8] in found for at in range(len(key) - 7))


def test_words_that_a_key_has_too_are_no_part_of_it(monkeypatch):
    monkeypatch.setenv("RETRIEVAL_KD_API_KEY", "sk-no-key-required-relevant")
    for text in ("a remedy is required", "irrelevant", "retrieval_kd/required.py", "no key"):
        assert shown(text) == text
    monkeypatch.setenv("RETRIEVAL_KD_API_KEY", "password")
    assert shown("my Password!") == "my ***!"


def test_a_word_that_is_no_secret_is_not_masked(monkeypatch):
    monkeypatch.setenv("RETRIEVAL_KD_API_KEY", "ollama")
    assert shown("ollama/llama3") == "ollama/llama3"


def test_an_error_is_one_line_of_bearable_length():
    long = "x" * 10**6
    error = InputError(f"unknown {ESCAPES}{long}", file=long, line=3, id=long, remedy=f"no\n{long}")
    assert len(str(error)) <= LONGEST_TEXT and str(error).isprintable()
    assert str(InputError("an ID", id=f"d\x1b{long}")).startswith("an ID (id dxxx")
    assert error.id == long, "the attributes keep what was given"


def test_the_first_example_of_what_was_dropped_is_cleaned_and_cut():
    drops = Drops()
    drops.add("empty document", f"d{ESCAPES}" + "9" * 10**6)
    [line] = drops.summary()
    assert line.startswith("1 × empty document (first: d[31m]0;pwned2J  9") and len(line) < 200


def test_nothing_printed_escapes_but_what_rich_writes_itself(capsys):
    say(f"a{ESCAPES}\nb")
    assert capsys.readouterr().out == "a[31m]0;pwned2J  \nb\n"
    for terminal in (False, True):
        file = io.StringIO()
        screen = Screen(file=file, force_terminal=terminal, width=60)
        screen.print(f"[bold]name[/bold] {ESCAPES}", highlight=False)
        written = file.getvalue()
        assert "pwned" in written and "\x1b]" not in written and "\x1b[31m" not in written
        assert ("\x1b[1m" in written) == terminal


def test_everything_is_printed_through_say_and_screen():
    """`print` and rich's own console are for texts of this package, and for JSON, which escapes."""
    own = re.compile(r"^\s*print\(|typer\.echo\(|(?<!class Screen\()\bConsole\(")
    found = [
        f"{file.name}: {line.strip()}"
        for file in Path(retrieval_kd.__file__).parent.rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if own.search(line) and ">>>" not in line and "json.dumps" not in line
    ]
    assert {line.partition(":")[0] for line in found} <= {"methods.py", "progress.py"}, found
