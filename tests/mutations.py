"""Damaged files, and what a reader makes of them: a result, or one line that names the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from retrieval_kd.errors import InputError

Result = TypeVar("Result")

# the same examples in every run, and none kept from earlier ones
FEW = settings(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
PIECES = [
    *("\0", "\n", "\r", "\t", " ", "\u00a0", "\u2028", "\ufeff", "<", ">", "&", "]]>", "<![CDATA["),
    *("{", "}", "[", "]", '"', "\\", ":", ",", "\\ud800", "\\u0000", "null", "true", "NaN", "0.5"),
    *("1e999", "-1e999", "9" * 400, "9" * 5000, "1_0", "٣", "", "-1", "1.0", "</top>", "<title>"),
    *("<DOC>", "<topic>", "é", "-", "- ", "&a ", "*a", "!!python/name:os.system ", "'", "|", "{}"),
    *("2024-01-01", "0x1F", "1:30", "~", "yes", "<<: ", "[1]", "[0] > [2]", "[" * 3000),
]
BYTES = [b"\xff", b"\x80", b"\xed\xa0\x80", b"\xff\xfe", b"\x1f\x8b", b"PK\x03\x04", b"PAR1"]
INSERTED = st.sampled_from([*(piece.encode() for piece in PIECES), *BYTES]) | st.binary(max_size=3)
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 12), INSERTED)


def damaged(*valid: str | bytes) -> st.SearchStrategy[bytes]:
    """Arbitrary bytes, or one of these files with pieces cut out and put in."""
    files = [file.encode() if isinstance(file, str) else file for file in valid]

    def apply(file: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
        for place, cut, piece in edits:
            at = round(place * len(file))
            file = file[:at] + piece + file[at + cut :]
        return file

    edited = st.builds(apply, st.sampled_from(files), st.lists(EDIT, min_size=1, max_size=3))
    cut_off = st.builds(
        lambda f, part: f[: int(part * len(f))], st.sampled_from(files), st.floats(0, 1)
    )
    return edited | cut_off | st.binary(max_size=80)


def result_or_refusal(read: Callable[[], Result], *names: str) -> Result | None:
    """What a reader returns; None if it refuses the input in one line that has one of the names."""
    try:
        return read()
    except InputError as error:
        message = str(error)
        assert len(message.split("\n")) == 1 and "\r" not in message, message
        assert any(name in message for name in names), message
        message.encode()
        return None
