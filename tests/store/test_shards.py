"""After kills, concurrent writers or damage, the store's files are whole or reported."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text, write_json
from retrieval_kd.store import shards
from retrieval_kd.store.digests import words_to_column
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.shards import SCHEMA, checksum, shard_paths
from tests.store.test_scores import KEY, add, look

WRITE_NUMBERS = """
import sys, numpy as np
from retrieval_kd.files import digest_text, write_json
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore

key = TeacherKey("pointwise", "teachers/big", digest="ab12", max_length=256, dtype="bfloat16")
folder, query, rows, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = ScoreStore(folder)
digest = digest_text(query)
documents = [digest_text("", str(number)) for number in range(stop)]
known = ~np.isnan(store.lookup(key, [digest] * stop, documents))
with store.writer(key, shard_rows=rows) as writer:
    for number in np.flatnonzero(~known).tolist():
        writer.add([query], [str(number)], [digest], [documents[number]], [number / 2])
print("done")
"""


def start_writing(folder: Path, query: str, rows: int, stop: int) -> subprocess.Popen:
    arguments = [sys.executable, "-c", WRITE_NUMBERS, str(folder), query, str(rows), str(stop)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_a_killed_writer_loses_no_shard_and_overwrites_none(tmp_path):
    dice, store, stop, seen = random.Random(13), ScoreStore(tmp_path), 8000, {}
    for attempt in range(6):
        process = start_writing(tmp_path, "q", 10, stop)
        before, deadline = len(seen), time.monotonic() + 30
        while len(shard_paths(store.folder(KEY))) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(dice.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        shards = {path: path.read_bytes() for path in shard_paths(store.folder(KEY))}
        assert len(shards) > before, f"attempt {attempt} wrote nothing"
        assert seen.items() <= shards.items()  # each earlier shard is still there, byte for byte
        seen = shards
        reopened = ScoreStore(tmp_path)
        assert reopened.verify() == []
        assert reopened.count(KEY) == 10 * len(shards)  # no pair twice, no shard half
    store.clean()
    assert not list(store.folder(KEY).glob(".*.part"))
    assert seen.items() <= {path: path.read_bytes() for path in seen}.items()
    process = start_writing(tmp_path, "q", 1000, stop)
    assert process.communicate()[0] == "done\n"
    assert look(ScoreStore(tmp_path), [("q", str(n)) for n in range(stop)]) == [
        n / 2 for n in range(stop)
    ]
    assert store.read(KEY).num_rows == stop
    assert sum(pq.read_metadata(path).num_rows for path in shard_paths(store.folder(KEY))) == stop


def test_a_signal_after_a_shard_stores_no_row_twice(tmp_path, monkeypatch):
    """The writer writes what waits as it is left, and has not noted yet that it is written."""
    store, described = ScoreStore(tmp_path), shards._describe

    def interrupted(*arguments):
        described(*arguments)
        monkeypatch.setattr(shards, "_describe", described)
        raise SystemExit

    monkeypatch.setattr(shards, "_describe", interrupted)
    with pytest.raises(SystemExit):
        add(store, {("q", str(number)): number / 7 for number in range(9)}, shard_rows=4)
    assert [pq.read_metadata(path).num_rows for path in shard_paths(store.folder(KEY))] == [4, 4, 1]
    assert store.count(KEY) == 9


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    processes = [start_writing(tmp_path, f"q{number}", 7, 400) for number in range(3)]
    assert [process.communicate()[0] for process in processes] == ["done\n"] * 3
    store = ScoreStore(tmp_path)
    assert store.verify() == [] and store.count(KEY) == 1200
    numbers = [int(path.name.split("-")[1]) for path in shard_paths(store.folder(KEY))]
    assert numbers == list(range(1, 3 * 58 + 1))  # ⌈400 / 7⌉ = 58 shards each, none shared


def test_leftovers_of_a_killed_writer_are_ignored_until_cleaned(tmp_path):
    store = ScoreStore(tmp_path)
    add(store, {("q", "d"): 1.0})
    leftover = store.folder(KEY) / ".shard-000002-00.parquet.x1.part"
    leftover.write_bytes(b"half")
    assert store.verify() == [] and store.count(KEY) == 1
    assert store.clean() == [leftover]
    assert not leftover.exists() and store.count(KEY) == 1


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    store = ScoreStore(tmp_path)
    add(store, {("q", "d"): 1.0})
    leftover = store.folder(KEY) / ".shard-000002-00.parquet.x1.part"
    leftover.write_bytes(b"half")
    add(store, {("q", "e"): 2.0})
    assert not leftover.exists() and store.count(KEY) == 2


def test_any_changed_byte_is_found(tmp_path):
    store = ScoreStore(tmp_path)
    add(store, {("q", f"d{n}"): float(n) for n in range(50)})
    (shard,) = shard_paths(store.folder(KEY))
    whole = shard.read_bytes()
    for position in random.Random(5).sample(range(len(whole)), 40):
        changed = bytearray(whole)
        changed[position] ^= 1 << (position % 8)
        shard.write_bytes(changed)
        (problem,) = store.verify()
        assert problem.file == shard and "changed after" in problem.problem and problem.remedy
        with pytest.raises(InputError, match="changed after"):
            ScoreStore(tmp_path).lookup(KEY, [digest_text("q")], [digest_text("", "d0")])
    shard.write_bytes(whole[:-1])
    assert len(store.verify(KEY)) == 1
    shard.write_bytes(whole)
    assert store.verify() == []


def plant(folder: Path, number: int, table: pa.Table) -> Path:
    """A shard with a true checksum, whatever it holds."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    path = folder / f"shard-{number:06d}-{checksum(data)}.parquet"
    path.write_bytes(data)
    return path


def rows(*scores: float, schema: pa.Schema = SCHEMA) -> pa.Table:
    digests = words_to_column(np.arange(2 * len(scores), dtype="<u8").reshape(-1, 2))
    ids = pa.array([f"x{n}" for n in range(len(scores))])
    return pa.table([ids, ids, digests, digests, pa.array(scores, pa.float32())], schema=schema)


def test_damaged_rows_and_shards_are_named(tmp_path):
    store = ScoreStore(tmp_path)
    add(store, {("q", "d"): 1.0})
    folder = store.folder(KEY)
    not_finite = plant(folder, 2, rows(1.0, np.nan))
    other_columns = plant(folder, 3, rows(1.0).rename_columns([*"abcde"]))
    no_parquet = folder / f"shard-000004-{checksum(b'text')}.parquet"
    no_parquet.write_bytes(b"text")
    (folder / "notes.txt").write_text("mine")
    plant(folder, 7, rows(5.0, 6.0)[1:])
    (tmp_path / "README").touch()
    problems = {(problem.file, problem.row): problem.problem for problem in store.verify()}
    assert "score is nan (query x1, document x1)" in problems.pop((not_finite, 1))
    assert "columns ['a'" in problems.pop((other_columns, None))
    assert "not a Parquet file" in problems.pop((no_parquet, None))
    assert "ignored" in problems.pop((folder / "notes.txt", None))
    assert "2 shards are missing: 5, 6" in problems.pop((folder, None))
    assert "not a teacher's folder" in problems.pop((tmp_path / "README", None))
    (conflict,) = problems.values()  # row 0 of shard 7 contradicts the NaN row of shard 2
    assert "score 6.0 of a pair" in conflict


def test_the_first_of_two_answers_counts_and_the_second_is_reported(tmp_path):
    store = ScoreStore(tmp_path)
    add(store, {("q", "d"): 1.0, ("q", "e"): 2.0})
    add(store, {("q", "d"): 1.0})  # the same again is no contradiction
    assert store.verify() == []
    add(store, {("q", "x"): 0.0, ("q", "e"): 9.0})
    (problem,) = store.verify(KEY)
    assert problem.row == 1 and "score 9.0" in problem.problem and "is 2.0" in problem.problem
    assert look(store, [("q", "e")]) == look(ScoreStore(tmp_path), [("q", "e")]) == [2.0]


def edit(change):
    def edited(path: Path) -> None:
        about = json.loads(path.read_text())
        change(about)
        path.write_text(json.dumps(about))

    return edited


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("{"), "not a teacher"),
        (lambda path: path.write_text("[]"), "not a teacher"),
        (edit(lambda about: about.update(dtype="float32")), "does not match"),
        (edit(lambda about: about.pop("prompt")), "not a teacher"),
        (edit(lambda about: about.update(format=2)), "format 2"),
    ],
    ids=["broken", "list", "edited", "incomplete", "newer"],
)
def test_a_tampered_description_is_an_error(tmp_path, damage, message):
    store = ScoreStore(tmp_path)
    add(store, {("q", "d"): 1.0})
    path = store.folder(KEY) / "teacher.json"
    damage(path)
    with pytest.raises(InputError, match=message):
        store.teachers()
    (problem,) = store.verify()
    assert problem.file == path and message in problem.problem


def test_shards_without_a_description_are_reported(tmp_path):
    store = ScoreStore(tmp_path)
    add(store, {("q", "d"): 1.0})
    (store.folder(KEY) / "teacher.json").unlink()
    assert store.teachers() == [] and len(store.verify()) == 1


def test_files_get_the_users_permissions(tmp_path):
    store = ScoreStore(tmp_path)
    add(store, {("q", "d"): 1.0})
    (shard,) = shard_paths(store.folder(KEY))
    umask = os.umask(0)
    os.umask(umask)
    assert shard.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_shard_of_another_teacher_and_a_missing_last_one_are_found(tmp_path):
    store, other = ScoreStore(tmp_path / "a"), ScoreStore(tmp_path / "b")
    for number in range(3):
        add(store, {("q", f"d{number}"): 1.0})
    key = replace(KEY, dtype="float32")
    with other.writer(key) as writer:
        digests = [digest_text("q")], [digest_text("", "other")]
        writer.add(["q"], ["other"], *digests, [7.0])
    (foreign,) = shard_paths(other.folder(key))
    last = shard_paths(store.folder(KEY))[-1]
    moved = last.with_name(foreign.name.replace("000001", "000003"))
    shutil.copy(foreign, moved)
    last.unlink()
    (problem,) = store.verify()
    assert problem.file == moved and f"is of teacher {key.fingerprint}" in problem.problem
    with pytest.raises(InputError, match="this shard is of teacher"):
        ScoreStore(tmp_path / "a").count(KEY)
    moved.unlink()
    (problem,) = store.verify()
    assert "1 shards are missing: 3" in problem.problem
    add(store, {("q", "d2"): 1.0})  # scored again
    assert store.verify() == []


def test_a_store_of_an_earlier_version_opens(tmp_path):
    """Its shards do not say whose they are, nor teacher.json how many there are."""
    store = ScoreStore(tmp_path)
    folder = store.folder(KEY)
    folder.mkdir(parents=True)
    write_json(folder / "teacher.json", KEY.about())
    plant(folder, 1, rows(1.0, 2.0))
    assert store.verify() == [] and store.count(KEY) == 2
    add(store, {("q", "d"): 3.0})
    assert store.verify() == [] and ScoreStore(tmp_path).count(KEY) == 3


def test_an_edited_description_is_found(tmp_path):
    """The model's name is no part of the fingerprint."""
    store = ScoreStore(tmp_path)
    add(store, {("q", "d"): 1.0})
    path = store.folder(KEY) / "teacher.json"
    edit(lambda about: about.update(model="other"))(path)
    (problem,) = store.verify()
    assert problem.file == path and "changed after it was written" in problem.problem
    for text in (path.read_text(), "{", ""):
        path.write_text(text)
        with store.writer(KEY):  # nothing new
            pass
        assert store.verify() == [] and store.teachers() == [KEY]
    path.unlink()
    add(store, {("q", "e"): 1.0})
    assert store.verify() == [] and store.count(KEY) == 2
