"""A place in a run: a segment and an offset in it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tlogs_shared.errors import MessageError

__all__ = ["START", "Position"]

_TEXT: Final = re.compile(r"(\d{1,10}):(\d{1,19})", re.ASCII)


class Position(NamedTuple):
    """A place in a run; places compare in the order in which they were written.

    An offset is only good for going on from: where its segment has ended, been cut or been thinned meanwhile, a
    reader goes on at the next frame that it can be sure of.

    >>> str(Position(3, 1234)), Position.parse("3:1234") < Position(4, 0)
    ('3:1234', True)
    """

    segment: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what `str` made.

        Raises:
            MessageError: *text* is not a position.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise MessageError(f"expected a position such as 3:1234, found {text!r:.60}")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.segment}:{self.offset}"


START: Final = Position(0, 0)
"""Before the first record of any run: segments are numbered from 1."""
