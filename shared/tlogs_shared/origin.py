"""Where records come from: what a process reports of itself, and what the collector knows of its stream.

A *stream* is the life of one process's outbox, named by 16 random bytes. Its *rank* is a label, found in the
environment or learnt late; the newest label holds for the stream from its first record on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, Final, get_args, get_origin, get_type_hints

from tlogs_shared.end import ENDED, FINISHED, End
from tlogs_shared.errors import MessageError

__all__ = ["MAX_RANK", "Origin", "StreamInfo"]

STREAM_ID_BYTES: Final = 16

_ENDS_OF_0_1: Final = {"bye": FINISHED, "gone": ENDED, "recovered": ENDED}

MAX_RANK: Final = 1_000_000
"""No job has more ranks, and every set of ranks can name them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A process's description of itself.

    `rank` is None for a process that has none (a launcher); `provisional` marks a rank that was assumed for want of
    a better one. `helper` is the name of a process that works for a rank (a data loader worker), None for the rank
    itself. `run` is the run that was asked for by name; `key` is what the processes of one job have in common.
    `torch_logs` is the value of TORCH_LOGS at start, None where it was not set. `started_ns` is the process's start
    on its own clock. `restart_count` and `max_restarts` are torchrun's. `outbox` is the path of the stream's outbox on
    its host. `command` is its script with the arguments, secrets masked. `parent` is the process with tlogs that
    started it, 0 where there is none.
    """

    host: str
    pid: int
    boot_id: str = ""
    rank: int | None = None
    local_rank: int | None = None
    world_size: int | None = None
    provisional: bool = False
    helper: str | None = None
    run: str | None = None
    key: str = ""
    restart_count: int | None = None
    max_restarts: int | None = None
    torch_logs: str | None = None
    started_ns: int = 0
    version: str = ""
    outbox: str = ""
    command: str = ""
    parent: int = 0

    def as_map(self) -> dict[str, Any]:
        """The origin as a map of primitives."""
        return asdict(self)

    @classmethod
    def from_map(cls, values: Any) -> Origin:
        """Read a map that `as_map` made; keys of a newer version are skipped.

        Raises:
            MessageError: not a map, a key is missing or has the wrong type.
        """
        origin = cls(**_checked(cls, values))
        if not 0 <= (origin.rank or 0) <= MAX_RANK:
            raise MessageError(f"rank {origin.rank}: expected one from 0 to {MAX_RANK}")
        return origin

    @property
    def label(self) -> str:
        """The name in front of each line: `rank3`, `rank3/DataLoader1`, or `host:pid` without a rank.

        >>> Origin(host="a", pid=7).label, Origin(host="a", pid=7, rank=3, helper="DataLoader1").label
        ('a:7', 'rank3/DataLoader1')
        """
        if self.rank is None:
            return f"{self.host}:{self.pid}"
        return f"rank{self.rank}/{self.helper}" if self.helper else f"rank{self.rank}"


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """The collector's description of one stream: the payload of a stream frame in a segment, the last one holding.

    `head` is the highest number ever reported (the number that the next record would get); `dropped` counts, by
    level, what a full outbox had to leave out; `lost` counts numbers that the rank could no longer supply. `end` is
    how its process ended, None while the stream may still speak. `offset_ns` is what to add to its times to get the
    collector's, with its error bound; None where nothing is corrected.
    """

    origin: Origin
    attempt: int = 0
    head: int = 0
    lost: int = 0
    dropped: Mapping[int, int] = field(default_factory=dict)
    end: End | None = None
    offset_ns: int | None = None
    bound_ns: int | None = None

    def as_map(self) -> dict[str, Any]:
        """The whole as a map of primitives."""
        return {**asdict(self), "end": None if self.end is None else self.end.as_map()}

    @classmethod
    def from_map(cls, values: Any) -> StreamInfo:
        """Read a map that `as_map` made, by this version or 0.1; keys of a newer version are skipped.

        Raises:
            MessageError: not a map, a key is missing or has the wrong type.
        """
        if not isinstance(values, dict):
            raise MessageError(f"expected a map about a stream, found {type(values).__name__}")
        origin, end = Origin.from_map(values.get("origin")), _end(values.get("end"))
        return cls(**_checked(cls, {**values, "origin": origin, "end": end}))

    @property
    def is_rank(self) -> bool:
        """Whether this is a rank itself: no helper of one, no launcher."""
        return self.origin.rank is not None and self.origin.helper is None

    @property
    def since_ns(self) -> int:
        """When its process ended or, while it has not, began, on the collector's clock; 0 where that is not known."""
        ns = self.origin.started_ns if self.end is None else self.end.ended_ns
        return self.corrected(ns) if ns else 0

    def corrected(self, ts: int) -> int:
        """A time of this stream on the collector's clock."""
        return ts if self.offset_ns is None else ts + self.offset_ns


def _end(value: Any) -> End | None:
    """How a stream ended; version 0.1 had a word for it, "" while the stream might still speak."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return End(_ENDS_OF_0_1.get(value, ENDED))
    return End.from_map(value)


def _checked(cls: type, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise MessageError(f"expected a map, found {type(values).__name__}")
    found = {}
    for name, types in _types(cls).items():
        if name not in values:
            if name in ("host", "pid", "origin"):
                raise MessageError(f"{cls.__name__} without {name!r}")
            continue
        value = values[name]
        if type(value) not in types or (type(value) is dict and not _counts(value)):
            raise MessageError(f"{cls.__name__}.{name} has the wrong type: {value!r:.80}")
        found[name] = value
    return found


def _counts(values: Mapping[Any, Any]) -> bool:
    return all(type(key) is int and type(value) is int for key, value in values.items())


@cache
def _types(cls: type) -> dict[str, tuple[type, ...]]:
    """The types that each field may have; computed once, because that takes longer than all else about a hello."""
    hints = get_type_hints(cls)
    types = {}
    for item in fields(cls):
        hint = hints[item.name]
        types[item.name] = (dict,) if get_origin(hint) is Mapping else get_args(hint) or (hint,)
    return types
