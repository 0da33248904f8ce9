"""Whatever a store's files hold, they are read right or refused in one line that names them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.files import digest_text, sealed
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.shards import TEACHER_FILE, checksum, shard_paths
from retrieval_kd.store.summary import summarise, summary_tables
from tests.mutations import FEW, damaged, result_or_refusal
from tests.store.test_answers import PAIRWISE, put, row
from tests.store.test_scores import KEY, add

ODD = [None, True, -1, 1.5, 10**30, "", "x", "\x1b[31m", [], {}, [[]], "pointwise", "listwise"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "store"
    store = ScoreStore(folder)
    add(store, {("q", f"d{number}"): number / 2 for number in range(9)})
    put(
        store, PAIRWISE, row("ab", Answer("a", log_odds=0.5)), row("ba", Answer("b", log_odds=-0.5))
    )
    return folder


def everything(path: Path) -> list[Any]:
    """All that can be read of a store; an error of a reader is one line that names its file."""
    readers: list[Callable[[], Any]] = [
        lambda: ScoreStore(path).teachers(),
        lambda: ScoreStore(path).names(),
        lambda: summary_tables(*summarise(ScoreStore(path))),
        lambda: list(map(str, ScoreStore(path).verify())),
        lambda: ScoreStore(path).read(KEY),
        lambda: ScoreStore(path).count(KEY),
        lambda: ScoreStore(path).id_pairs(KEY),
        lambda: ScoreStore(path).lookup(KEY, [digest_text("q")], [digest_text("", "d1")]),
        lambda: list(AnswerStore(ScoreStore(path).folder(PAIRWISE), PAIRWISE).rows()),
    ]
    return [result_or_refusal(read, "odd-store") for read in readers]


def check(whole: Path, key: TeacherKey, change: Callable[[Path], None]) -> list[Any]:
    with tempfile.TemporaryDirectory(prefix="odd-store") as folder:
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        change(ScoreStore(folder).folder(key))
        return everything(Path(folder))


def test_the_store_as_it_is(whole: Path) -> None:
    teachers, _, _, problems, table, count, *_, rows = check(whole, KEY, lambda folder: None)
    assert len(teachers) == 2 and problems == [] and table.num_rows == count == 9
    assert [one.document_ids for one in rows] == [("a", "b"), ("b", "a")]


@pytest.mark.parametrize("key", [KEY, PAIRWISE], ids=["scores", "answers"])
@settings(FEW, max_examples=8)
@given(data=st.data())
def test_a_damaged_teacher(whole: Path, key: TeacherKey, data: st.DataObject) -> None:
    about = (ScoreStore(whole).folder(key) / TEACHER_FILE).read_text()
    plain = {name: value for name, value in json.loads(about).items() if name != "sealed"}
    names = st.sampled_from([*plain, "other"])
    edited = st.dictionaries(names, st.sampled_from(ODD), min_size=1).map(lambda e: {**plain, **e})
    content = data.draw(
        damaged(about)
        | edited.map(lambda values: json.dumps(values).encode())
        | edited.map(lambda values: json.dumps(sealed(values)).encode())
    )
    found = check(whole, key, lambda folder: (folder / TEACHER_FILE).write_bytes(content))
    assert found[4] is None or found[4].num_rows == 9


def replaced(folder: Path, data: bytes) -> None:
    """Put another content, with its right checksum, in the place of the shard."""
    [shard] = shard_paths(folder)
    shard.unlink()
    shard.with_name(f"shard-000001-{checksum(data)}.parquet").write_bytes(data)


@pytest.mark.parametrize("key", [KEY, PAIRWISE], ids=["scores", "answers"])
@settings(FEW, max_examples=8)
@given(data=st.data())
def test_a_damaged_shard(whole: Path, key: TeacherKey, data: st.DataObject) -> None:
    """Its checksum is compared before Arrow, which some bytes end, reads it."""
    [shard] = shard_paths(ScoreStore(whole).folder(key))
    content = data.draw(damaged(shard.read_bytes()))
    found = check(whole, key, lambda folder: (folder / shard.name).write_bytes(content))
    assert bool(found[3]) == (content != shard.read_bytes())


@pytest.mark.parametrize("key", [KEY, PAIRWISE], ids=["scores", "answers"])
@settings(FEW, max_examples=8)
@given(data=st.data())
def test_a_shard_with_odd_values(whole: Path, key: TeacherKey, data: st.DataObject) -> None:
    """Of the right columns and checksum, as another program may have written it."""
    [shard] = shard_paths(ScoreStore(whole).folder(key))
    table = pq.read_table(shard)
    name = data.draw(st.sampled_from(table.column_names))
    kind = table.schema.field(name).type
    fitting = [value for value in [*ODD, float("nan"), b"", b"x" * 16, [None], ["a"], [b""]]
               if fits(value, kind)]  # fmt: skip
    values = table[name].to_pylist()
    values[data.draw(st.integers(0, len(values) - 1))] = data.draw(st.sampled_from(fitting))
    place = table.column_names.index(name)
    changed = table.set_column(place, table.schema.field(name), pa.array(values, kind))
    sink = pa.BufferOutputStream()
    pq.write_table(changed, sink)
    check(whole, key, lambda folder: replaced(folder, sink.getvalue().to_pybytes()))


def fits(value: object, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return False
    return True
