"""Leases: settings that an operator lays over a running job, for some ranks and for some time.

The collector keeps the ordered list; each rank lays those in its scope over its own base state. The list is only ever
looked at as a whole, so a rank that missed a change ends in the same place as one that saw all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from tlogs_shared.errors import ConfigError, MessageError
from tlogs_shared.rankset import RankSet

__all__ = ["Lease", "stack", "visible"]

MAX_SETTINGS: Final = 512
"""Names in one lease: torch has under a hundred, and every rank keeps every lease."""

MAX_TTL_S: Final = 100 * 365 * 86400
"""A hundred years: the end, in nanoseconds since the epoch, still fits into 64 bits. Longer is for ever."""

_NAME: Final = re.compile(r"\w+(\.\w+)*")
_MAX_LEVEL: Final = 1000


@dataclass(frozen=True, slots=True)
class Lease:
    """A change of levels that an operator asked for.

    `settings` gives a component, an artifact or a module its level, or True or False for an artifact; `all`
    stands for torch's default level. `ranks` and `hosts` (a glob) are the scope. `ends_ns` is the end on the
    collector's wall clock, None for ever; `ttl_s` is what was left of it when it was sent. A lease with `replace`
    returns everything that it does not name to its default; one with `force` is laid over TORCH_LOGS, and enables
    loggers that are disabled.
    """

    revision: int
    settings: Mapping[str, int | bool]
    ranks: RankSet = field(default_factory=RankSet.all)
    hosts: str | None = None
    ends_ns: int | None = None
    ttl_s: float | None = None
    author: str = ""
    created_ns: int = 0
    replace: bool = False
    force: bool = False

    def covers(self, rank: int | None, host: str) -> bool:
        """Whether a process with *rank* on *host* is in scope; one without a rank is where all ranks are."""
        if self.hosts is not None and not fnmatchcase(host, self.hosts):
            return False
        return self.ranks == RankSet.all() if rank is None else rank in self.ranks

    @property
    def scope(self) -> tuple[RankSet, str | None]:
        """For whom it is."""
        return self.ranks, self.hosts

    def as_map(self) -> dict[str, Any]:
        """The lease as a map of primitives."""
        return {
            "revision": self.revision,
            "settings": dict(self.settings),
            "ranks": str(self.ranks),
            "hosts": self.hosts,
            "ends_ns": self.ends_ns,
            "ttl_s": self.ttl_s,
            "author": self.author,
            "created_ns": self.created_ns,
            "replace": self.replace,
            "force": self.force,
        }

    @classmethod
    def from_map(cls, values: Any) -> Lease:
        """Read a map that `as_map` made; keys of a newer version are ignored.

        Raises:
            MessageError: not a map, a key is missing, or a value cannot be used.
        """
        if type(values) is not dict:
            raise MessageError(f"expected a lease, a map, found {type(values).__name__}")
        try:
            found = {name: _checked(name, values[name]) for name in _TYPES}
            text = found.pop("ranks")
            ranks = RankSet.parse(text) if text else RankSet()
        except KeyError as error:
            raise MessageError(f"a lease without {error}") from None
        except ConfigError as error:
            raise MessageError(f"a lease for no ranks: {error}") from None
        _check_settings(found["settings"], may_be_empty=found["replace"])
        return cls(ranks=ranks, **found)


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "revision": (int,),
    "settings": (dict,),
    "ranks": (str,),
    "hosts": (str, type(None)),
    "ends_ns": (int, type(None)),
    "ttl_s": (float, int, type(None)),
    "author": (str,),
    "created_ns": (int,),
    "replace": (bool,),
    "force": (bool,),
}


def _checked(name: str, value: Any) -> Any:
    if type(value) not in _TYPES[name]:
        raise MessageError(f"a lease whose {name} is {type(value).__name__}")
    if name == "ttl_s" and value is not None and not 0 <= value <= MAX_TTL_S:
        raise MessageError(f"a lease that lasts {value} seconds, expected 0 to {MAX_TTL_S}, or for ever")
    if type(value) is int and not 0 <= value < 2**63:
        raise MessageError(f"a lease whose {name} is {value}")
    return value


def _check_settings(settings: dict[Any, Any], *, may_be_empty: bool) -> None:
    if len(settings) > MAX_SETTINGS or not (settings or may_be_empty):
        raise MessageError(f"a lease with {len(settings)} settings, expected 1 to {MAX_SETTINGS}")
    for name, value in settings.items():
        if type(name) is not str or _NAME.fullmatch(name) is None:
            raise MessageError(f"a lease for {name!r}, which is not a valid name")
        if type(value) is not bool and (type(value) is not int or not 0 <= value <= _MAX_LEVEL):
            raise MessageError(f"a lease that sets {name} to {value!r}, expected a level or true or false")


def stack(leases: Iterable[Lease], new: Lease) -> list[Lease]:
    """*leases*, oldest first, with *new*: in the place of one with the same names and scope, else on top.

    A lease with `replace` always goes on top, since it hides everything below it; an earlier equal one is removed.
    """
    found = list(leases)
    for index, old in enumerate(found):
        if (old.replace, old.scope, old.settings.keys()) != (new.replace, new.scope, new.settings.keys()):
            continue
        if new.replace:
            del found[index]
            break
        found[index] = new
        return found
    return [*found, new]


def visible(leases: Iterable[Lease]) -> list[Lease]:
    """The leases of one rank, oldest first, without those that a later one with `replace` hides."""
    found: list[Lease] = []
    for lease in leases:
        if lease.replace:
            found.clear()
        found.append(lease)
    return found
