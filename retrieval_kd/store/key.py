"""Who gave an answer: the key of everything in the score store, and its file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from retrieval_kd import files
from retrieval_kd.errors import InputError
from retrieval_kd.store.shards import TEACHER_FILE

STORE_FORMAT = 1


@dataclass(frozen=True)
class TeacherKey:
    """Who gave an answer, with everything that would change it.

    Example:
        >>> key = TeacherKey("pointwise", "teachers/big", digest="ab12", max_length=256)
        >>> moved = TeacherKey("pointwise", "elsewhere/big", digest="ab12", max_length=256)
        >>> key.fingerprint == moved.fingerprint, len(key.fingerprint)
        (True, 16)
    """

    kind: str  # "pointwise", "pairwise" or "listwise"
    model: str  # as the user named it; for people, not in the fingerprint
    digest: str  # of the weights, or hub name@commit, or of the parameters
    prompt: str = ""
    max_length: int | None = None  # tokens of the query and document together
    dtype: str = ""
    activation: str = ""  # what the raw logit was meant for; noted, never applied

    def __post_init__(self) -> None:
        if not self.kind or not self.digest:
            raise InputError("a teacher needs a kind and a digest", id=self.model)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of all that changes an answer; the teacher's folder in the store."""
        told = {key: value for key, value in asdict(self).items() if key not in _NOT_TOLD}
        return files.digest_json(told)[:16]

    @property
    def gives_scores(self) -> bool:
        """Whether an answer is a number for one document, and not about several together."""
        return self.kind not in ("pairwise", "listwise")

    def about(self) -> dict[str, Any]:
        """What teacher.json says."""
        return {"format": STORE_FORMAT, "fingerprint": self.fingerprint, **asdict(self)}


_NOT_TOLD = {"model", "activation"}


def read_teacher(folder: Path) -> TeacherKey:
    """The teacher of one of the store's folders."""
    path = folder / TEACHER_FILE
    remedy = "restore the file, or delete its folder and score again"
    try:
        about = files.read_json(path)
        if about["format"] != STORE_FORMAT:
            raise InputError(
                f"score store format {about['format']}, this version reads {STORE_FORMAT}",
                file=path,
                remedy="update retrieval_kd",
            )
        key = TeacherKey(**{field.name: about[field.name] for field in fields(TeacherKey)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a teacher: {error!r}", file=path, remedy=remedy) from error
    if key.fingerprint != folder.name:
        raise InputError("the teacher does not match its folder", file=path, remedy=remedy)
    return key


def names_of(keys: Sequence[TeacherKey]) -> list[str]:
    """A short name for each, that no other one has.

    Example:
        >>> big, other = (TeacherKey("pointwise", f"{f}/big", digest=f) for f in ("one", "two"))
        >>> names_of([big]), names_of([big, other])
        (['big'], ['one/big', 'two/big'])
        >>> ways = ("order by logits: order 1a2b", "order by words: order 1a2b")
        >>> names_of([TeacherKey("listwise", "listwise:big", "one", way) for way in ways])
        ['listwise:big order by logits', 'listwise:big order by words']
    """
    names = [_short(key.model) for key in keys]
    for longer in (
        [key.model for key in keys],
        [  # what is asked for, such as "order by logits"
            f"{_short(key.model)} {key.prompt.partition(':')[0]}"
            if not key.gives_scores
            else key.model
            for key in keys
        ],
        [f"{_short(key.model)} {key.fingerprint[:6]}" for key in keys],
    ):
        taken = Counter(names)
        names = [new if taken[name] > 1 else name for name, new in zip(names, longer, strict=True)]
    return names


def _short(model: str) -> str:
    kind, colon, name = model.partition(":")
    last = (name if colon else kind).rstrip("/").rsplit("/", 1)[-1]
    return f"{kind}:{last}" if colon else last
