"""Names of score matrices, as objectives write them: `score@64`, `stored:1`, `big.exit2`."""

from __future__ import annotations

import re
from dataclasses import dataclass

STORED, PAIRS, POSITIVE = "stored", "pairs", "positive"

_NAME = re.compile(r"([\w-]+)(?::([^.@]*))?(?:\.([\w-]+))?(?:@(.*))?", re.DOTALL)
_EXIT = re.compile(r"exit([0-9]+)")


@dataclass(frozen=True)
class ScoreName:
    """The name of one score matrix (B, M), written `SOURCE`, `SOURCE:K`, `SOURCE.PART`, `SOURCE@D`.

    Example:
        >>> ScoreName.parse("big.exit2")
        ScoreName(source='big', part='exit2', member=None, dimensions=None)
        >>> str(ScoreName("score", dimensions=64))
        'score@64'
    """

    source: str
    """`score` or a part of the student, `stored`, `pairs`, `positive`, or a live teacher."""
    part: str | None = None
    """A part of a live teacher's scores."""
    member: int | None = None
    """Number of a stored teacher, from 0."""
    dimensions: int | None = None
    """Score by the first D dimensions alone (Matryoshka)."""

    @classmethod
    def parse(cls, text: str) -> ScoreName:
        """Read one name.

        Raises:
            ValueError: the text is not a name; the message says what a name looks like.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is not a name of scores: write for example score, score@64, stored:1, "
                "exit2 or TEACHER.exit2"
            )
        source, member, part, dimensions = match.groups()
        if dimensions is not None and not re.fullmatch(r"0*[1-9][0-9]*", dimensions):
            raise ValueError(f"{text!r}: after @ comes a number of dimensions, as in score@64")
        if source == PAIRS or (source == STORED and member is not None):
            if not re.fullmatch(r"[0-9]+", member or ""):
                raise ValueError(f"{text!r}: after {source}: comes the number of a teacher, from 0")
        elif member is not None:
            raise ValueError(f"{text!r}: only {STORED} and {PAIRS} take the number of a teacher")
        if source in (STORED, PAIRS, POSITIVE) and (part or dimensions):
            raise ValueError(f"{text!r}: {source} has neither parts nor dimensions")
        return cls(
            source,
            part,
            None if member is None else int(member),
            None if dimensions is None else int(dimensions),
        )

    @classmethod
    def parse_list(cls, text: str) -> list[ScoreName]:
        """Read names separated by commas.

        Example:
            >>> [str(name) for name in ScoreName.parse_list("exit0,big.exit2")]
            ['exit0', 'big.exit2']
        """
        return [cls.parse(name) for name in text.split(",")]

    @property
    def stored(self) -> bool:
        """Whether the scores, or the answers about pairs, come from the score store."""
        return self.source in (STORED, PAIRS)

    @property
    def exit(self) -> int | None:
        """Number of the layer whose vectors are scored; None if the name is not an exit's."""
        match = _EXIT.fullmatch(self.part or self.source)
        return None if match is None else int(match[1])

    def __str__(self) -> str:
        member = "" if self.member is None else f":{self.member}"
        part = "" if self.part is None else f".{self.part}"
        dimensions = "" if self.dimensions is None else f"@{self.dimensions}"
        return f"{self.source}{member}{part}{dimensions}"
