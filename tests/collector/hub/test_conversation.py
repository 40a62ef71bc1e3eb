"""The real link and the real hub over a network that loses, doubles, delays and reconnects, in virtual time."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tlogs.worker.link import Complain, Free, GoBack, Lay, Link, Send, State

from tlogs_collector.hub import actions as do
from tlogs_collector.hub.hub import Hub, Known
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import Ask, Batch, Change, Message, Report
from tlogs_shared.storage.batch import Header, seal

STREAM = b"s" * 16
SECRET = b"a secret of this test"

LONGEST_DELAY_S = 60.0
"""What the network has not delivered by then is lost: a collector that answers a hello from longer ago is not one."""


@dataclass
class Supply:
    """An outbox whose records are their own numbers."""

    head: int = 0
    acknowledged: int = 0
    handed: int = 0
    dropped: dict[int, int] = field(default_factory=dict)
    low_ts: int = 0
    oldest_unsent_ts: int | None = None

    def cut(self, most: int) -> Batch | None:
        first, end = self.handed, min(self.head, self.handed + most)
        if first == end:
            return None
        self.handed = end
        payload = b",".join(b"%d" % number for number in range(first, end))
        return Batch(*seal(Header(STREAM, first=first, count=end - first), payload))


@dataclass
class Disk:
    """What the collector has written of the stream, and how much of it a crash would leave."""

    records: list[int] = field(default_factory=list)
    synced: int = 0
    info: StreamInfo | None = None
    control: list[Any] = field(default_factory=list)
    full: bool = False


class Conversation(RuleBasedStateMachine):
    """Anything may happen to the messages; nothing may happen to the records."""

    @initialize()
    def begin(self) -> None:
        self.now = Moment(100.0, 1_000_000_000_000)
        self.supply = Supply()
        self.disk = Disk()
        self.connections = itertools.count()
        self.random = itertools.count(1)
        self.rank = 0
        origin = Origin(host="node1", pid=7, rank=self.rank, key="job")
        self.link = Link(STREAM, origin, self.supply, secret=SECRET, nonce=self.token)
        self.laid: Sequence[Lease] = ()
        self.hub = self.new_hub([])
        self.connection = b"c0"
        self.to_hub: deque[tuple[bytes, list[bytes], float]] = deque()
        self.to_link: deque[tuple[bytes, list[bytes], float]] = deque()
        self.reports: list[Report] = []
        self.freed = 0

    def token(self, size: int) -> bytes:
        return next(self.random).to_bytes(size, "big")

    def new_hub(self, known: list[Known]) -> Hub:
        return Hub(SECRET, self.token, lambda: "run", lambda _: None, known=known)

    # What the edges do.

    def link_does(self, actions: Sequence[Any]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self.to_hub.append((self.connection, wire.encode(message), self.now.s))
                case GoBack(watermark):
                    self.supply.handed = watermark
                case Free(stored):
                    self.freed = max(self.freed, stored)
                    self.supply.acknowledged = max(self.supply.acknowledged, stored)
                case Lay(revision, leases):
                    self.laid = leases
                    self.link_does(self.link.laid(revision, {lease.revision: ["applied", ""] for lease in leases}, {}))
                case Complain():
                    raise AssertionError(action)
                case _:
                    raise AssertionError(action)

    def hub_does(self, actions: Sequence[do.Action]) -> None:
        for action in actions:
            match action:
                case do.Send(connection, message) if connection == b"operator":
                    if isinstance(message, Report):
                        self.reports.append(message)
                case do.Send(connection, message):
                    if connection == self.connection:
                        self.to_link.append((connection, wire.encode(message), self.now.s))
                    else:
                        self.hub.unreachable(connection)
                case do.OpenRun(name, _):
                    stored = {}
                    if self.disk.info is not None:
                        stored = {STREAM: StoredStream(self.disk.info, len(self.disk.records))}
                    self.hub_does(self.hub.opened(name, stored, self.disk.control, self.now))
                case do.Append(run, header, payload):
                    if self.disk.full:
                        self.hub.stall(run, "full")
                        self.hub_does(self.hub.unstored(run, header, "full"))
                    else:
                        self.disk.records += [int(number) for number in payload.split(b",")]
                case do.PutStream(_, _, info):
                    self.disk.info = info
                case do.Control(_, line):
                    self.disk.control.append(line)
                case _:
                    pass

    def sync(self, covered: int) -> None:
        self.disk.synced = covered
        if "run" in self.hub.runs and STREAM in self.hub.runs["run"].peers:
            self.hub_does(self.hub.stored({("run", STREAM): covered}))

    def send(self, most: int) -> None:
        if self.link.room > 0 and (batch := self.supply.cut(most)) is not None:
            self.link.sent(batch.header.end, batch.header.size, self.now)
            self.to_hub.append((self.connection, wire.encode(batch), self.now.s))

    def deliver(self, to_hub: bool) -> None:
        queue = self.to_hub if to_hub else self.to_link
        if not queue:
            return
        connection, frames, sent_s = queue.popleft()
        if self.now.s - sent_s > LONGEST_DELAY_S:
            return
        if to_hub:
            self.hub_does(self.hub.handle(connection, wire.decode(frames), self.now))
        elif connection == self.connection:
            self.link_does(self.link.handle(wire.decode(frames), self.now))

    def operator(self, message: Message) -> None:
        connections = self.hub.admission.connections
        if b"operator" not in connections:
            self.hub_does(self.hub.handle(b"operator", Ask(0, "hello", b"n"), self.now))
            connections[b"operator"].admitted = True
        self.hub_does(self.hub.handle(b"operator", message, self.now))

    # What may happen.

    @rule(count=st.integers(1, 20))
    def log(self, count: int) -> None:
        self.supply.head += count

    @rule(most=st.integers(1, 8))
    def forward(self, most: int) -> None:
        self.send(most)

    @rule(to_hub=st.booleans(), count=st.integers(1, 6))
    def arrive(self, to_hub: bool, count: int) -> None:
        for _ in range(count):
            self.deliver(to_hub)

    @rule(to_hub=st.booleans(), data=st.data())
    def lose(self, to_hub: bool, data: st.DataObject) -> None:
        queue = self.to_hub if to_hub else self.to_link
        if queue:
            del queue[data.draw(st.integers(0, len(queue) - 1))]

    @rule(to_hub=st.booleans(), data=st.data())
    def double(self, to_hub: bool, data: st.DataObject) -> None:
        queue = self.to_hub if to_hub else self.to_link
        if queue:
            queue.append(queue[data.draw(st.integers(0, len(queue) - 1))])

    @rule()
    def swap(self) -> None:
        if len(self.to_hub) > 1:
            self.to_hub[0], self.to_hub[1] = self.to_hub[1], self.to_hub[0]

    @rule(kept=st.integers(0, 3))
    def reconnect(self, kept: int) -> None:
        """The connection breaks: some of what was under way still arrives under the new one's name."""
        self.connection = b"c%d" % (next(self.connections) + 1)
        self.to_link.clear()
        self.to_hub = deque(
            (self.connection, frames, sent_s) for _, frames, sent_s in list(self.to_hub)[-kept:] if kept
        )

    @rule(seconds=st.floats(0.05, 20.0))
    def wait(self, seconds: float) -> None:
        self.now = Moment(self.now.s + seconds, self.now.ns + int(seconds * 1e9))
        self.link_does(self.link.tick(self.now))
        self.hub_does(self.hub.tick(self.now))

    @rule(part=st.floats(0.0, 1.0))
    def sync_part(self, part: float) -> None:
        ahead = len(self.disk.records) - self.disk.synced
        self.sync(self.disk.synced + int(ahead * part))

    @rule()
    def fill_disk(self) -> None:
        self.disk.full = True

    @rule()
    def free_disk(self) -> None:
        self.disk.full = False
        if "run" in self.hub.runs and self.hub.runs["run"].stalled:
            self.hub_does(self.hub.resume("run"))

    @rule(part=st.floats(0.0, 1.0))
    def crash(self, part: float) -> None:
        """kill -9 and a power cut: what was not synced survives in part, as a beginning."""
        ahead = len(self.disk.records) - self.disk.synced
        del self.disk.records[self.disk.synced + int(ahead * part) :]
        self.disk.synced = len(self.disk.records)
        self.disk.full = False
        known = [Known("run", "job", self.now.ns)] if self.disk.info is not None else []
        self.hub = self.new_hub(known)
        self.reconnect(2)

    @rule(level=st.sampled_from([10, 20, 40]), ttl=st.sampled_from([None, 5.0, 600.0]))
    def lease(self, level: int, ttl: float | None) -> None:
        lease = Lease(0, {"c10d": level}, ttl_s=ttl)
        self.operator(Change(1, None, 1.0, lease=lease.as_map()))

    @rule()
    def learn_rank(self) -> None:
        """The label is learnt late, or once more."""
        self.rank += 1
        self.link_does(self.link.relabel(replace(self.link.origin, rank=self.rank), self.now))

    @rule()
    def reset(self) -> None:
        self.operator(Change(2, None, 1.0, ends=[]))

    # What must hold.

    @invariant()
    def everything_stored_is_stored_once_and_in_order(self) -> None:
        if hasattr(self, "disk"):
            assert self.disk.records == list(range(len(self.disk.records)))

    @invariant()
    def nothing_is_freed_that_a_crash_could_take(self) -> None:
        if hasattr(self, "disk"):
            assert self.freed <= self.disk.synced

    def has_settled(self) -> bool:
        run = self.hub.runs.get("run")
        live = self.link.state is State.LIVE and not self.to_hub and not self.to_link
        done = self.supply.acknowledged == self.supply.head == len(self.disk.records)
        if not live or not done or run is None:
            return False
        peer = run.peers[STREAM]
        # A lease ends a little later where it was laid than where it was asked for: it took time to arrive.
        same = {lease.revision for lease in self.laid} == {lease.revision for lease in run.leases} == set(peer.answers)
        return same and self.link.revision == peer.answered == run.revision and peer.rank == self.rank

    def teardown(self) -> None:
        """Once faults stop everything logged is stored, and the rank runs the collector's settings."""
        if not hasattr(self, "disk"):
            return
        self.free_disk()
        for _ in range(200):
            if self.has_settled():
                break
            self.wait(0.5)
            while self.to_hub or self.to_link:
                self.send(8)
                self.deliver(True)
                self.deliver(False)
            self.sync(len(self.disk.records))
        assert self.disk.records == list(range(self.supply.head))
        assert self.supply.acknowledged == self.supply.head
        assert self.link.state is State.LIVE
        run = self.hub.runs["run"]
        peer = run.peers[STREAM]
        assert self.link.revision == peer.answered == run.revision
        assert peer.answers.keys() == {lease.revision for lease in run.leases}
        assert peer.rank == self.rank
        assert run.live == 1
        assert run.newest() == run.ranks() == [peer]
        run.expire(self.now)
        assert [lease.revision for lease in self.laid] == [lease.revision for lease in run.leases]


@dataclass
class StoredStream:
    """What the store tells of a stream."""

    info: StreamInfo
    watermark: int

    @property
    def records(self) -> int:
        return self.watermark


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestConversation = Conversation.TestCase


def test_a_lease_on_the_way_to_a_rank_never_grows() -> None:
    """What is left of a lease travels with it, so a resend shortens it if anything."""
    machine = Conversation()
    machine.begin()
    for _ in range(5):
        machine.wait(0.3)
        machine.arrive(True, 5)
        machine.arrive(False, 5)
    machine.lease(10, 600.0)
    machine.arrive(False, 5)
    ends = machine.link.tenure.next_end_s
    machine.wait(60.0)
    machine.hub.runs["run"].leases = [replace(lease, ttl_s=600.0) for lease in machine.hub.runs["run"].leases]
    for _ in range(20):
        machine.wait(1.0)
        machine.arrive(True, 5)
        machine.arrive(False, 5)
    assert machine.link.tenure.next_end_s == ends
