"""The cache of vectors survives kills and finds what is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval_kd.teachers.hosted.vector_cache import VectorCache

TEXTS = ["a", "b", "c"]
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    VectorCache(tmp_path, {"model": "m"}).add(TEXTS, VECTORS)
    [found] = tmp_path.glob("*.vectors")
    return found


def found(folder: Path) -> dict[str, list[float]]:
    return {text: v.tolist() for text, v in VectorCache(folder, {}).find([*TEXTS, "d"]).items()}


def test_what_was_added_is_found_by_others(tmp_path, file):
    assert found(tmp_path) == dict(zip(TEXTS, VECTORS.tolist(), strict=True))


@pytest.mark.parametrize("lost", [1, 7, 36])
def test_a_record_that_a_kill_left_incomplete_is_cut_off(lost, tmp_path, file):
    file.write_bytes(file.read_bytes()[:-lost])
    assert list(found(tmp_path)) == ["a", "b"]
    VectorCache(tmp_path, {}).add(["c", "d"], VECTORS[1:])
    assert found(tmp_path)["a"] == VECTORS[0].tolist() and list(found(tmp_path)) == [*TEXTS, "d"]
    assert found(tmp_path)["d"] == VECTORS[2].tolist()


def test_a_flipped_bit_makes_one_record_missing_until_it_is_added_again(tmp_path, file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    assert list(found(tmp_path)) == ["a", "c"]
    VectorCache(tmp_path, {}).add(["b"], VECTORS[1:2])
    assert found(tmp_path)["b"] == VECTORS[1].tolist()


def test_two_commands_add_to_one_cache(tmp_path):
    one, other = VectorCache(tmp_path, {}), VectorCache(tmp_path, {})
    one.add(["a"], VECTORS[:1])
    other.add(["b"], VECTORS[1:2])
    one.add(["c"], VECTORS[2:])
    assert found(tmp_path) == dict(zip(TEXTS, VECTORS.tolist(), strict=True))
    assert list(one.find(TEXTS)) == TEXTS
