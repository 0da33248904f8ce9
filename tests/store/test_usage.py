"""What the calls of a store cost, added up over commands."""

from __future__ import annotations

import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.store.usage import Spent, read_usage, record_usage


def test_usage_adds_up_over_commands(tmp_path):
    assert read_usage(tmp_path) is None
    record_usage(tmp_path, Spent())
    assert read_usage(tmp_path) is None, "a command without calls leaves no line"
    record_usage(tmp_path, Spent(calls=2, prompt_tokens=30, answer_tokens=4, seconds=0.5))
    record_usage(tmp_path, Spent(calls=1, failed=1, cost=0.25))
    total = read_usage(tmp_path)
    assert total == Spent(3, 30, 4, 1, 0.5, cost=0.25)
    with open(tmp_path / "usage.jsonl", "a") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match=r"usage.jsonl:3: not a line of usage"):
        read_usage(tmp_path)
