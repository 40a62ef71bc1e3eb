"""What the hub asks the server to do. Frozen values: a test compares them, the server carries them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tlogs_shared.origin import StreamInfo
from tlogs_shared.protocol.messages import Fetch, Message
from tlogs_shared.storage.batch import Header

__all__ = ["Action", "Append", "Conclude", "Control", "OpenRun", "PutStream", "Read", "Recover", "Say", "Send", "Tell"]


@dataclass(frozen=True, slots=True)
class Send:
    """Put a message on the way to a connection; one that is gone is reported by `Hub.unreachable`."""

    connection: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class OpenRun:
    """Open or create this run; the outcome is reported by `Hub.opened` or `Hub.unopened`."""

    name: str
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Append:
    """Store a batch as it came; the outcome is reported by `Hub.stored` or `Hub.unstored`."""

    run: str
    header: Header
    payload: bytes


@dataclass(frozen=True, slots=True)
class PutStream:
    """Store what is now known of a stream."""

    run: str
    stream: bytes
    info: StreamInfo


@dataclass(frozen=True, slots=True)
class Control:
    """Write a line into the run's control journal."""

    run: str
    line: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conclude:
    """Store that a run is over since then; None: that it goes on after all."""

    run: str
    ended_ns: int | None


@dataclass(frozen=True, slots=True)
class Tell:
    """Send `News` to a follower, with the position up to which the run is stored."""

    connection: bytes
    run: str
    horizon_ns: int
    live: bool


@dataclass(frozen=True, slots=True)
class Read:
    """Answer a `Fetch` from the store."""

    connection: bytes
    fetch: Fetch


@dataclass(frozen=True, slots=True)
class Recover:
    """Bring in these outboxes, which processes on this host left when they died."""

    outboxes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the person who started the daemon."""

    text: str


Action: TypeAlias = Send | OpenRun | Append | PutStream | Control | Conclude | Tell | Read | Recover | Say
