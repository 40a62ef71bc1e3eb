"""Sets of ranks as people write them: `0-7,16`, `0-63/8`, `^5`, `all`.

A set is either the ranks that it names, or all but those; so `^5` means the same on 8 ranks and on 4096.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tlogs_shared.errors import ConfigError

__all__ = ["RankSet"]

_PART: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?:/(\d{1,9}))?)?", re.ASCII)
_MAX_RANK: Final = 1_000_000
"""No job has more; a larger number is a slip of the finger that would cost memory."""

_MAX_NAMED: Final = 4 * _MAX_RANK
"""Ranks named, over and over: a short text could else keep its reader busy for minutes."""


@dataclass(frozen=True, slots=True)
class RankSet:
    """Ranks, or all ranks but some.

    >>> str(RankSet.of([3, 0, 1, 2, 8])), 5 in RankSet.parse("^5"), str(RankSet.parse("0-63/32,^0"))
    ('0-3,8', False, '32')
    """

    named: frozenset[int] = frozenset()
    complement: bool = False

    @classmethod
    def of(cls, ranks: Iterable[int]) -> RankSet:
        """The set of *ranks*."""
        return cls(frozenset(ranks))

    @classmethod
    def all(cls) -> RankSet:
        """Every rank, however many there are."""
        return cls(frozenset(), complement=True)

    @classmethod
    def parse(cls, text: str) -> RankSet:
        """Read a set; parts are joined by commas, `^` takes what follows it out.

        Raises:
            ConfigError: *text* is not a rank set.
        """
        included: set[int] = set()
        excluded: set[int] = set()
        everything = False
        only_exclusions = True
        named = 0
        for part in text.split(","):
            bare = part.strip()
            target = excluded if bare.startswith("^") else included
            only_exclusions &= target is excluded
            if bare == "all":
                everything = True
                continue
            match = _PART.fullmatch(bare.removeprefix("^"))
            if match is None:
                raise ConfigError(f"rank set {text!r}: expected ranks such as 0-7,16 or 0-63/8 or ^5 or all")
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            named_in = f"rank set {text!r}" + ("" if bare == text else f": {bare!r}")
            if last < first:
                raise ConfigError(f"{named_in}: first is above last; did you mean {last}-{first}?")
            if step == 0:
                raise ConfigError(f"{named_in}: a step of 0; did you mean {first}-{last}?")
            if last > _MAX_RANK:
                raise ConfigError(f"{named_in}: ranks above {_MAX_RANK} are not supported")
            ranks = range(first, last + 1, step)
            named += len(ranks)
            if named > _MAX_NAMED:
                raise ConfigError(f"rank set {text!r:.80}: names more than {_MAX_NAMED} ranks")
            target.update(ranks)
        if everything or only_exclusions:
            return cls(frozenset(excluded), complement=True)
        return cls(frozenset(included - excluded))

    def __contains__(self, rank: int | None) -> bool:
        """Whether *rank* is in it; a process without a rank is in every set that only takes ranks out."""
        return (rank in self.named) is not self.complement

    def __iter__(self) -> Iterator[int]:
        """The ranks in order; only for a set that names its ranks."""
        assert not self.complement, "all ranks but some cannot be listed without knowing how many there are"
        return iter(sorted(self.named))

    def __len__(self) -> int:
        assert not self.complement, "all ranks but some cannot be counted without knowing how many there are"
        return len(self.named)

    def __bool__(self) -> bool:
        return self.complement or bool(self.named)

    def __str__(self) -> str:
        """The shortest text that `parse` reads back as this set; the empty set is the empty text."""
        if self.complement:
            return ",".join(f"^{part}" for part in _ranges(self.named)) or "all"
        return ",".join(_ranges(self.named))


def _ranges(ranks: Iterable[int]) -> Iterator[str]:
    start = last = None
    for rank in sorted(ranks):
        if last is not None and rank == last + 1:
            last = rank
            continue
        if start is not None:
            yield f"{start}-{last}" if last != start else f"{start}"
        start = last = rank
    if start is not None:
        yield f"{start}-{last}" if last != start else f"{start}"
