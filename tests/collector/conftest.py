"""What tests of the hub need: a hub on a stage, with ranks and operators who speak to it in virtual time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tlogs_collector.hub import actions as do
from tlogs_collector.hub.hub import Hub, Known
from tlogs_collector.hub.peer import Peer
from tlogs_shared.end import End
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.wire import pack_plain
from tlogs_shared.storage.batch import Header, seal


@dataclass
class Kept:
    """What the store tells of a stream."""

    info: StreamInfo
    watermark: int = 0

    @property
    def records(self) -> int:
        return self.watermark


class Stage:
    """A hub whose actions are carried out in memory; messages to a connection wait in `sent`."""

    def __init__(self, *, known: Sequence[Known] = (), only_run: str | None = None) -> None:
        self.now = Moment(1000.0, 10**18)
        self.alive: dict[int, bool] = {}
        """By pid, what is known of processes on the collector's host; of others nothing is."""
        self.sent: dict[bytes, list[m.Message]] = {}
        self.done: list[do.Action] = []
        self.kept: dict[str, dict[bytes, Kept]] = {}
        self.control: dict[str, list[Mapping[str, Any]]] = {}
        self.refuses: set[str] = set()
        """Runs that the store cannot open."""
        self.pids = itertools.count(1000)
        names = (f"made-up-{number}" for number in itertools.count(1))
        self.hub = Hub(
            lambda: next(names),
            lambda origin: self.alive.get(origin.pid),
            boot_id="here",
            instance="this life",
            only_run=only_run,
            known=list(known),
        )

    def carry_out(self, actions: Sequence[do.Action]) -> None:
        """Carry actions out."""
        for action in actions:
            match action:
                case do.Send(connection, message):
                    self.sent.setdefault(connection, []).append(message)
                    continue
                case do.OpenRun(name) if name in self.refuses:
                    self.carry_out(self.hub.unopened(name, "it is another daemon's"))
                case do.OpenRun(name):
                    kept, control = self.kept.setdefault(name, {}), self.control.setdefault(name, [])
                    self.carry_out(self.hub.opened(name, kept, list(control), self.now))
                case do.Control(run, line):
                    self.control[run].append(line)
                case _:
                    pass
            self.done.append(action)

    def say(self, connection: bytes, message: m.Message) -> list[m.Message]:
        """Say something; what is said back to this connection."""
        self.sent.pop(connection, None)
        self.carry_out(self.hub.handle(connection, message, self.now))
        return self.heard(connection)

    def heard(self, connection: bytes) -> list[m.Message]:
        """What was sent to this connection since it last spoke or asked."""
        return self.sent.pop(connection, [])

    def took(self, kind: type[do.Action]) -> list[Any]:
        """The actions of this kind since this was last asked."""
        found = [action for action in self.done if isinstance(action, kind)]
        self.done = [action for action in self.done if not isinstance(action, kind)]
        return found

    def wait(self, seconds: float) -> None:
        """Let time pass, and the hub notice it."""
        self.now = Moment(self.now.s + seconds, self.now.ns + int(seconds * 1e9))
        self.carry_out(self.hub.tick(self.now))

    def rank(self, number: int | None = 0, **origin: Any) -> Rank:
        """A rank that has not said hello yet."""
        pid = origin.pop("pid", None) or next(self.pids)
        stream = origin.pop("stream", None) or pid.to_bytes(16, "big")
        given = {"host": "node1", "rank": number, "world_size": 4, "key": "job", **origin}
        return Rank(self, stream, b"c" + stream, Origin(pid=pid, **given))

    def ranks(self, count: int, **origin: Any) -> list[Rank]:
        """Ranks of one job that have said hello."""
        found = []
        for number in range(count):
            found.append(self.rank(number, **{"world_size": count, **origin}))
            found[-1].hello()
        return found

    def operator(self, name: bytes = b"operator") -> Callable[..., Any]:
        """Somebody who asks; returns what the report says, or None while it is awaited."""
        numbers = itertools.count(1)
        self.say(name, m.Ask(0, "hello"))

        def ask(message: Callable[[int], m.Message]) -> Any:
            return next(
                (found for found in self.say(name, message(next(numbers))) if isinstance(found, m.Report)), None
            )

        return ask


@dataclass
class Rank:
    """One stream, as it speaks to the hub."""

    stage: Stage
    stream: bytes
    connection: bytes
    origin: Origin
    head: int = 0
    answers: dict[int, m.Answer] = field(default_factory=dict)

    @property
    def peer(self) -> Peer:
        """What the hub knows of it."""
        found = self.stage.hub.arrivals.runs.find(self.stream)
        assert found is not None
        return found

    def say(self, message: m.Message) -> list[m.Message]:
        """Say something; what is said back."""
        return self.stage.say(self.connection, message)

    def hello(self, *, first: int = 0, recovering: bool = False, **origin: Any) -> list[m.Message]:
        """Say hello, with something changed in the origin."""
        self.origin = replace(self.origin, **origin)
        self.head = max(self.head, first)
        return self.say(m.Hello(self.stream, self.origin, self.head, first, recovering))

    def log(self, first: int, count: int, *, recovered: bool = False, stream: bytes | None = None) -> list[m.Message]:
        """Send a batch."""
        self.head = max(self.head, first + count)
        return self.say(m.Batch(*batch(stream or self.stream, first, count, recovered)))

    def pulse(self, revision: int = 0, **changed: Any) -> m.Pulse:
        """Its row in a heartbeat."""
        return m.Pulse(self.stream, self.head, 0, revision, {}, None)._replace(**changed)

    def beat(
        self, revision: int = 0, *, offset_ns: int | None = None, bound_ns: int | None = None, **changed: Any
    ) -> list[m.Message]:
        """Send a heartbeat."""
        row = self.pulse(revision, **changed)
        return self.say(m.Heartbeat(self.stage.now.ns, offset_ns, bound_ns, [row]))

    def answer(self, revision: int, kind: str = "applied", reason: str = "", **report: Any) -> list[m.Message]:
        """Say what became of the settings of this revision, whose newest lease it is."""
        self.answers[revision] = (kind, reason)
        return self.say(m.Applied([m.AppliedRow([self.stream], revision, dict(self.answers), pack_plain(report))]))

    def die(self) -> None:
        """Die without a word, on the collector's host, and the agent with it."""
        self.stage.alive[self.origin.pid] = False
        self.stage.hub.unreachable(self.connection)

    def bye(self, head: int | None = None, end: End | None = None) -> list[m.Message]:
        """Say bye."""
        return self.say(m.Bye(self.stream, self.head if head is None else head, end=end))


def batch(stream: bytes, first: int, count: int, recovered: bool = False) -> tuple[Header, bytes]:
    """A batch of *count* records of one byte."""
    return seal(
        Header(stream, first=first, count=count, recovered=recovered, first_ts=5, last_ts=10**18, low_ts=10**18),
        bytes(count),
    )


def lay(number: int, run: str | None = None, timeout_s: float = 5.0, once: str = "", **lease: Any) -> m.Change:
    """A change of levels; by default c10d to 10 on all ranks for ten minutes."""
    given = {"settings": {"c10d": 10}, "ttl_s": 600.0, "author": "ann@desk", **lease}
    return m.Change(number, run, timeout_s, lease=Lease(0, **given).as_map(), once=once)


@pytest.fixture
def stage() -> Stage:
    """A hub."""
    return Stage()
