"""Who speaks: what a stream says of itself, and what the collector knows of a stream.

A *stream* is the life of one process's outbox, named by 16 random bytes. Its *rank* is a label, found in the
environment or learnt late; the newest label holds for the stream from its first record on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, Final, get_args, get_origin, get_type_hints

from tlogs_shared.errors import ConfigError, MessageError

__all__ = ["Origin", "StreamInfo", "find_key", "find_origin"]

STREAM_ID_BYTES: Final = 16

"""What a run may be called."""


MAX_RANK: Final = 1_000_000
"""No job has more ranks, and every set of ranks can name them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a process says of itself.

    `rank` is None for a process that has none (a launcher); `provisional` marks a rank that was assumed for want of
    a better one. `helper` is the name of a process that works for a rank (a data loader worker), None for the rank
    itself. `run` is the run that was asked for by name; `key` is what the processes of one job have in common.
    `torch_logs` is the value of TORCH_LOGS at start, None where it was not set. `started_ns` is the process's start
    on its own clock. `restart_count` is torchrun's. `outbox` is the path of the stream's outbox on its host.
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
    torch_logs: str | None = None
    started_ns: int = 0
    version: str = ""
    outbox: str = ""

    def as_map(self) -> dict[str, Any]:
        """The origin as a map of primitives."""
        return asdict(self)

    @classmethod
    def from_map(cls, values: Any) -> Origin:
        """Read a map that `as_map` made; keys of a newer version are passed over.

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
    """What the collector knows of one stream: the payload of a stream frame in a segment, the last one holding.

    `head` is the highest number ever heard of (the number that the next record would get); `dropped` counts, by
    level, what a full outbox had to leave out; `lost` counts numbers that the rank could no longer supply. `end` is
    how the stream ended: "" while it may still speak, else `bye`, `gone` or `recovered`. `offset_ns` is what to add
    to its times to get the collector's, with its error bound; None where nothing is corrected.
    """

    origin: Origin
    attempt: int = 0
    head: int = 0
    lost: int = 0
    dropped: Mapping[int, int] = field(default_factory=dict)
    end: str = ""
    offset_ns: int | None = None
    bound_ns: int | None = None

    def as_map(self) -> dict[str, Any]:
        """The whole as a map of primitives."""
        return asdict(self)

    @classmethod
    def from_map(cls, values: Any) -> StreamInfo:
        """Read a map that `as_map` made; keys of a newer version are passed over.

        Raises:
            MessageError: not a map, a key is missing or has the wrong type.
        """
        if not isinstance(values, dict):
            raise MessageError(f"expected a map about a stream, found {type(values).__name__}")
        return cls(**_checked(cls, {**values, "origin": Origin.from_map(values.get("origin"))}))

    def corrected(self, ts: int) -> int:
        """A time of this stream on the collector's clock."""
        return ts if self.offset_ns is None else ts + self.offset_ns


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
    """What the value of each field may be; found out once, because that takes longer than all else about a hello."""
    hints = get_type_hints(cls)
    types = {}
    for item in fields(cls):
        hint = hints[item.name]
        types[item.name] = (dict,) if get_origin(hint) is Mapping else get_args(hint) or (hint,)
    return types


def find_origin(environ: Mapping[str, str], origin: Origin) -> Origin:
    """Label *origin* with what the environment says, in the order of launchers that the README gives.

    Raises:
        ConfigError: a rank variable that is no number, or a rank outside its world.
    """

    def number(name: str) -> int | None:
        text = environ.get(name)
        if not text:  # some launchers leave an empty one
            return None
        try:
            value = int(text)
        except ValueError:
            value = -1
        if value < 0:
            raise ConfigError(f"{name}={text!r}: expected a number from 0 on, as the launcher sets it")
        return value

    def found(rank: int, local_rank: int | None, world_size: int | None, **more: Any) -> Origin:
        if world_size is not None and rank >= world_size:
            raise ConfigError(f"rank {rank} in a world of {world_size}: expected a rank from 0 to {world_size - 1}")
        if rank > MAX_RANK:
            raise ConfigError(f"rank {rank}: expected one from 0 to {MAX_RANK}")
        return replace(origin, rank=rank, local_rank=local_rank, world_size=world_size, provisional=False, **more)

    if (rank := number("RANK")) is not None:
        return found(
            rank, number("LOCAL_RANK"), number("WORLD_SIZE"), restart_count=number("TORCHELASTIC_RESTART_COUNT")
        )
    if (local := number("LOCAL_RANK")) is not None and (node := number("NODE_RANK")) is not None:
        # Lightning starts its own processes so; the ranks of a node follow each other.
        per_node = number("LOCAL_WORLD_SIZE") or number("NPROC_PER_NODE")
        world = number("WORLD_SIZE")
        if node == 0 or per_node is not None:
            return found(node * (per_node or 0) + local, local, world)
    if "SLURM_STEP_ID" in environ and (rank := number("SLURM_PROCID")) is not None:
        return found(rank, number("SLURM_LOCALID"), number("SLURM_NTASKS"))
    if (rank := number("OMPI_COMM_WORLD_RANK")) is not None:
        return found(rank, number("OMPI_COMM_WORLD_LOCAL_RANK"), number("OMPI_COMM_WORLD_SIZE"))
    if (rank := number("PMI_RANK")) is not None:
        local = number("MPI_LOCALRANKID")
        return found(rank, number("PMI_LOCAL_RANK") if local is None else local, number("PMI_SIZE"))
    return replace(origin, rank=0, local_rank=0, world_size=1, provisional=True)


def find_key(environ: Mapping[str, str], host: str, parent_pid: int) -> str:
    """What the processes of one job have in common and other jobs have not.

    >>> find_key({"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}, "n1", 12)
    'master:n1:29500'
    """
    run_id = environ.get("TORCHELASTIC_RUN_ID", "none")
    if run_id not in ("", "none"):
        return f"torchelastic:{run_id}"
    if job := environ.get("SLURM_JOB_ID"):
        return f"slurm:{job}"
    if environ.get("MASTER_ADDR") and environ.get("MASTER_PORT"):
        return f"master:{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
    return f"parent:{host}:{parent_pid}"
