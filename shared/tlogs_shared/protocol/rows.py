"""A collector's answers to operators: the rows behind `tlogs ranks`, `levels`, `set-logs` and the list of live runs.

They travel as the maps that they are, and `--json` prints them so: a key of theirs is part of the contract. Sets of
ranks are texts (`0-3,8`). Answers come from the collector that the operator chose and authenticated; `expect` checks
that its rows have the same keys, so that another version's collector ends in a sentence and not in a KeyError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, TypeVar

from tlogs_shared.errors import MessageError

__all__ = [
    "ChangeReport",
    "ComponentLevel",
    "LeaseRow",
    "LevelsReport",
    "PeerRow",
    "RankLevels",
    "RanksReport",
    "Refusals",
    "Row",
    "RunRow",
    "expect",
]


class RunRow(TypedDict):
    """A run that this collector stores; `live` while a rank is, `over` once none is expected any more."""

    name: str
    created_ns: int
    live: bool
    over: bool
    ranks: int
    records: int
    dropped: int
    lost: int


class _SometimesOfPeer(TypedDict, total=False):
    duplicate: bool
    """Another live process says that it is this rank."""
    late: bool
    """Heartbeats of its host are missing."""
    outbox: str
    """Where its outbox lies, if it ended without a bye and nobody has brought that in."""


class PeerRow(_SometimesOfPeer):
    """A rank, as the collector last heard of it; times are on the collector's clock.

    `state` is one of `tlogs_shared.end`, held since `since_ns`; `exit` is `End.exit`.
    """

    stream: bytes
    rank: int
    host: str
    pid: int
    attempt: int
    state: str
    since_ns: int
    exit: dict[str, Any] | None
    stored: int
    in_flight: int
    dropped: int
    last_record_s: float | None
    last_heard_s: float
    clock_offset_ms: float
    revision: int


class Refusals(TypedDict):
    """How many messages the collector refused, how many seconds ago the last one, and why that."""

    count: int
    last_s: float
    why: str


class RanksReport(TypedDict):
    """The ranks of a run (None: before any run), and what the collector has refused, if anything."""

    run: str | None
    rows: list[PeerRow]
    refused: Refusals | None


class _SometimesOfLease(TypedDict, total=False):
    outside: str
    """Ranks that it names and the job does not have any more."""


class LeaseRow(_SometimesOfLease):
    """A lease in force, as `Lease.as_map` makes it."""

    revision: int
    settings: dict[str, int | bool]
    ranks: str
    hosts: str | None
    ends_ns: int | None
    ttl_s: float | None
    author: str
    created_ns: int
    replace: bool
    force: bool


class LevelsReport(TypedDict):
    """The leases in force in a run, and the report of each rank (`RankLevels`, packed), equal ones once."""

    run: str
    leases: list[LeaseRow]
    groups: list[tuple[str, bytes]]


class ComponentLevel(TypedDict):
    """The configured level (None if unset) and the effective one."""

    configured: str | None
    effective: str


class RankLevels(TypedDict, total=False):
    """A rank's report of its levels; empty before the first."""

    components: dict[str, ComponentLevel]
    artifacts: list[str]
    seams: str
    """How this rank notices that torch has changed its levels."""


class ChangeReport(TypedDict):
    """The outcome of a change; `ignored` and `failed` give the reason by rank."""

    run: str
    revision: int
    until_ns: int | None
    ended: list[int]
    applied: str
    ignored: dict[str, str]
    failed: dict[str, str]
    silent: str
    took_ms: float


Row = TypeVar("Row", bound=Mapping[str, Any])


def expect(kind: type[Row], value: Any) -> Row:
    """*value* as a row of this kind, if it has its keys.

    >>> expect(ComponentLevel, {"configured": None, "effective": "INFO"})
    {'configured': None, 'effective': 'INFO'}

    Raises:
        MessageError: it is not a map, or a key is missing.
    """
    required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
    if not isinstance(value, dict):
        raise MessageError(f"expected a {kind.__name__}, found {type(value).__name__}")
    if missing := required - value.keys():
        raise MessageError(f"expected a {kind.__name__}, found one without {', '.join(sorted(missing))}")
    row: Row = value  # type: ignore[assignment]
    return row
