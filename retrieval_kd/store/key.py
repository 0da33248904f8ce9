"""The key of a teacher: everything that changes its answers, as stored in teacher.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from retrieval_kd import files
from retrieval_kd.errors import InputError
from retrieval_kd.store.shards import SHARDS, TEACHER_FILE

STORE_FORMAT = 1
_NOT_IN_FINGERPRINT = {"model", "activation"}


@dataclass(frozen=True)
class TeacherKey:
    """A teacher's identity in the store.

    Example:
        >>> key = TeacherKey("pointwise", "teachers/big", digest="ab12", max_length=256)
        >>> moved = TeacherKey("pointwise", "elsewhere/big", digest="ab12", max_length=256)
        >>> key.fingerprint == moved.fingerprint, len(key.fingerprint)
        (True, 16)
    """

    kind: str  # "pairwise" or "listwise"; any other kind scores one document at a time
    model: str  # the user's name for it; for people, not in the fingerprint
    digest: str  # of the weights, or hub name@commit, or of the parameters
    prompt: str = ""
    max_length: int | None = None  # tokens of query and document together
    dtype: str = ""
    activation: str = ""  # what the raw logit was trained for; recorded, never applied

    def __post_init__(self) -> None:
        if not self.kind or not self.digest:
            raise InputError("a teacher needs a kind and a digest", id=self.model)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all fields that change answers; names the teacher's folder."""
        chosen = {k: value for k, value in asdict(self).items() if k not in _NOT_IN_FINGERPRINT}
        return files.digest_json(chosen)[:16]

    @property
    def is_pointwise(self) -> bool:
        """Whether an answer is a score of one document rather than a comparison of several."""
        return self.kind not in ("pairwise", "listwise")

    def about(self) -> dict[str, Any]:
        """The content of teacher.json."""
        return {"format": STORE_FORMAT, "fingerprint": self.fingerprint, **asdict(self)}


def read_teacher(folder: Path) -> TeacherKey:
    """Read the key of a teacher's folder.

    Raises:
        InputError: teacher.json is missing, damaged, in a different format or from a different
            folder.
    """
    path = folder / TEACHER_FILE
    remedy = "restore the file, or delete its folder and score again"
    again = "run `rkd score` with this teacher again: it writes the file anew, and keeps the scores"
    try:
        about = files.read_json(path)
        if about["format"] != STORE_FORMAT:
            raise InputError(
                f"score store format {about['format']}, this version reads {STORE_FORMAT}",
                file=path,
                remedy="update retrieval_kd",
            )
        values = {field.name: about[field.name] for field in fields(TeacherKey)}
        texts = {name: one for name, one in values.items() if name != "max_length"}
        if not all(isinstance(one, str) for one in texts.values()):
            raise TypeError("a part of its key is no text")
        if type(about.get(SHARDS, 0)) is not int or not texts["kind"] or not texts["digest"]:
            raise TypeError("a kind, a digest or a number of shards is missing")
        key = TeacherKey(**values)
    except files.DamagedFile as error:
        raise InputError(f"not a teacher: {error.problem}", file=path, remedy=again) from error
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not a teacher: {error!r}", file=path, remedy=remedy) from error
    if key.fingerprint != folder.name:
        raise InputError("the teacher does not match its folder", file=path, remedy=remedy)
    try:
        files.check_seal(about, path)
    except files.DamagedFile as error:
        raise InputError(error.problem, file=path, remedy=again) from error
    return key


def short_names(keys: Sequence[TeacherKey]) -> list[str]:
    """A short name for each teacher, different from all the others.

    Example:
        >>> big, other = (TeacherKey("pointwise", f"{f}/big", digest=f) for f in ("one", "two"))
        >>> short_names([big]), short_names([big, other])
        (['big'], ['one/big', 'two/big'])
        >>> ways = ("order by logits: order 1a2b", "order by words: order 1a2b")
        >>> short_names([TeacherKey("listwise", "listwise:big", "one", way) for way in ways])
        ['listwise:big order by logits', 'listwise:big order by words']
    """
    names = [_last_part(key.model) for key in keys]
    for longer in (
        [key.model for key in keys],
        [  # the task of a comparing teacher, such as "order by logits"
            key.model
            if key.is_pointwise
            else f"{_last_part(key.model)} {key.prompt.partition(':')[0]}"
            for key in keys
        ],
        [f"{_last_part(key.model)} {key.fingerprint[:6]}" for key in keys],
    ):
        taken = Counter(names)
        names = [new if taken[name] > 1 else name for name, new in zip(names, longer, strict=True)]
    return names


def _last_part(model: str) -> str:
    kind, colon, name = model.partition(":")
    last = (name if colon else kind).rstrip("/").rsplit("/", 1)[-1]
    return f"{kind}:{last}" if colon else last
