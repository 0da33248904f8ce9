"""What a model wrote is found by its document's text, and damage is said."""

from __future__ import annotations

import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.written import WrittenStore, WrittenText

KEY = TeacherKey("queries", "writer", digest="ab12", prompt="up to 3 queries")


def test_the_first_answer_about_a_text_counts_and_all_words_are_kept(tmp_path):
    folder = tmp_path / KEY.fingerprint
    rows = [WrittenText(f"d{n}", f"{n:032x}", "words\n\u2066 …" * n, "ok") for n in range(3)]
    with WrittenStore(folder, KEY) as store:
        store.add(rows[:2])
        store.add([rows[0]._replace(text="later"), rows[2]._replace(status="cut off")])
    found = WrittenStore(folder, KEY).read()
    assert [found[row.document_digest].text for row in rows] == [row.text for row in rows]
    assert found[rows[2].document_digest].status == "cut off" and len(found) == 3


def test_an_empty_store_has_no_answers_and_makes_no_folder(tmp_path):
    with WrittenStore(tmp_path / KEY.fingerprint, KEY) as store:
        assert store.read() == {}
    assert not list(tmp_path.iterdir())


def test_a_flipped_byte_and_another_models_shard_are_refused(tmp_path):
    other = TeacherKey("queries", "other", digest="cd34")
    for key in (KEY, other):
        with WrittenStore(tmp_path / key.fingerprint, key) as store:
            store.add([WrittenText("d1", "0" * 32, key.model, "ok")])
    [path] = (tmp_path / KEY.fingerprint).glob("*.parquet")
    [moved] = (tmp_path / other.fingerprint).glob("*.parquet")
    (tmp_path / KEY.fingerprint / moved.name.replace("000001", "000002")).write_bytes(
        moved.read_bytes()
    )
    with pytest.raises(InputError, match=f"of teacher {other.fingerprint}"):
        WrittenStore(tmp_path / KEY.fingerprint, KEY).read()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="changed after it was written"):
        WrittenStore(tmp_path / KEY.fingerprint, KEY).read()
