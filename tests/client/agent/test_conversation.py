"""The real link and the real hub over a network that loses, doubles, delays and reconnects, in virtual time.

Three streams share the connection: their records must not mix, and nothing may happen to them.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tlogs.agent import link as to
from tlogs.agent.sending import State
from tlogs_collector.hub import actions as do
from tlogs_collector.hub.hub import Hub, Known
from tlogs_shared.end import End
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import Ask, Batch, Change, Message, Report, Vital
from tlogs_shared.protocol.wire import pack_plain
from tlogs_shared.storage.batch import Header, seal

STREAMS = [bytes([number]) * 16 for number in (1, 2, 3)]
LONGEST_DELAY_S = 60.0
"""What the network has not delivered by then is lost: a collector that answers a hello from longer ago is not one."""

END = End("killed", signal="SIGKILL", ended_ns=7)


@dataclass
class Supply:
    """An outbox whose records are their own numbers."""

    stream: bytes
    head: int = 0
    acknowledged: int = 0
    handed: int = 0
    dropped: dict[int, int] = field(default_factory=dict)
    low_ts: int = 0
    oldest_unsent_ts: int | None = None
    leases: Sequence[Lease] = ()
    is_done: bool = False

    def vital(self) -> Vital | None:
        return None

    def cut(self, most: int) -> Batch | None:
        first, end = self.handed, min(self.head, self.handed + most)
        if first == end:
            return None
        self.handed = end
        payload = b",".join(b"%d" % number for number in range(first, end))
        return Batch(*seal(Header(self.stream, first=first, count=end - first), payload))


@dataclass
class Stored:
    """What the collector has written of a stream, and how much of it a crash would leave."""

    info: StreamInfo
    numbers: list[int] = field(default_factory=list)
    synced: int = 0

    @property
    def watermark(self) -> int:
        return len(self.numbers)

    @property
    def records(self) -> int:
        return len(self.numbers)


class Conversation(RuleBasedStateMachine):
    """Anything may happen to the messages; nothing may happen to the records."""

    @initialize()
    def begin(self) -> None:
        self.now = Moment(100.0, 1_000_000_000_000)
        self.supplies = {stream: Supply(stream) for stream in STREAMS}
        self.disk: dict[bytes, Stored] = {}
        self.control: list[Any] = []
        self.full = False
        self.lives = itertools.count(1)
        self.connections = itertools.count(1)
        self.ranks = dict(zip(STREAMS, itertools.count(), strict=False))
        self.link = to.Link(lambda: 0.5)
        for stream, supply in self.supplies.items():
            origin = Origin(host="node1", pid=7, rank=self.ranks[stream], key="job")
            self.link.add(stream, origin, supply, self.now)
        self.to_hub: deque[tuple[bytes, bytes, float]] = deque()
        self.to_link: deque[tuple[bytes, bytes, float]] = deque()
        self.reports: list[Report] = []
        self.hub = self.new_hub([])
        self.redial()

    def new_hub(self, known: list[Known]) -> Hub:
        self.instance = f"life {next(self.lives)}"
        return Hub(lambda: "run", lambda _: None, instance=self.instance, known=known)

    def redial(self) -> None:
        """What the conversation does: the address is resolved afresh."""
        self.connection = b"c%d" % next(self.connections)
        self.to_link.clear()
        self.to_hub.clear()
        self.link_does(self.link.connected(self.instance, self.now))

    # What the edges do.

    def link_does(self, actions: Sequence[to.Action]) -> None:
        for action in actions:
            match action:
                case to.Send(message):
                    self.to_hub.append((self.connection, wire.encode(message), self.now.s))
                case to.Rewound(stream, watermark):
                    self.supplies[stream].handed = watermark
                case to.Free(stream, stored):
                    supply = self.supplies[stream]
                    supply.acknowledged = max(supply.acknowledged, stored)
                case to.Inform(streams, revision, leases):
                    for stream in streams:
                        self.supplies[stream].leases = [Lease.from_map(dict(values)) for values in leases]
                        answers = {lease.revision: ("applied", "") for lease in self.supplies[stream].leases}
                        self.link.applied(stream, revision, answers, pack_plain({}))
                case to.Done(stream):
                    self.supplies[stream].is_done = True
                    self.link.drop(stream)
                case to.Redial():
                    self.redial()
                    return
                case to.Tell():
                    pass
                case _:
                    raise AssertionError(action)

    def hub_does(self, actions: Sequence[do.Action]) -> None:
        for action in actions:
            match action:
                case do.Send(b"operator", message):
                    if isinstance(message, Report):
                        self.reports.append(message)
                case do.Send(connection, message):
                    if connection == self.connection:
                        self.to_link.append((connection, wire.encode(message), self.now.s))
                    else:
                        self.hub.unreachable(connection)
                case do.OpenRun(name, _):
                    self.hub_does(self.hub.opened(name, {**self.disk}, self.control, self.now))
                case do.Append(run, header, payload):
                    if self.full:
                        self.hub.stall(run, "full")
                        self.hub_does(self.hub.unstored(run, header, "full"))
                    else:
                        self.disk[header.stream].numbers += [int(number) for number in payload.split(b",")]
                case do.PutStream(_, stream, info):
                    self.disk.setdefault(stream, Stored(info)).info = info
                case do.Control(_, line):
                    self.control.append(line)
                case _:
                    pass

    def sync(self, part: float) -> None:
        covered = {}
        for stream, stored in self.disk.items():
            stored.synced += int((len(stored.numbers) - stored.synced) * part)
            if "run" in self.hub.runs and stream in self.hub.runs["run"].peers:
                covered["run", stream] = stored.synced
        self.hub_does(self.hub.stored(covered))

    def send(self, most: int) -> None:
        for stream, supply in self.supplies.items():
            if not supply.is_done and self.link.room(stream) > 0 and (batch := supply.cut(most)) is not None:
                self.link.sent(stream, batch.header.end, batch.header.size, self.now)
                self.to_hub.append((self.connection, wire.encode(batch), self.now.s))

    def deliver(self, to_hub: bool) -> None:
        queue = self.to_hub if to_hub else self.to_link
        if not queue:
            return
        connection, frame, sent_s = queue.popleft()
        if self.now.s - sent_s > LONGEST_DELAY_S:
            pass
        elif to_hub:
            self.hub_does(self.hub.handle(connection, wire.decode(frame), self.now))
        elif connection == self.connection:
            self.link_does(self.link.handle(wire.decode(frame), self.now))

    def operator(self, message: Message) -> None:
        if b"operator" not in self.hub.admission.connections:
            self.hub_does(self.hub.handle(b"operator", Ask(0, "hello"), self.now))
        self.hub_does(self.hub.handle(b"operator", message, self.now))

    # What may happen.

    @rule(stream=st.sampled_from(STREAMS), count=st.integers(1, 20))
    def log(self, stream: bytes, count: int) -> None:
        if (one := self.link.streams.get(stream)) is not None and not one.has_ended:
            self.supplies[stream].head += count

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
        """The connection breaks unnoticed: some of what was under way still arrives under the new one's name."""
        self.connection = b"c%d" % next(self.connections)
        self.to_link.clear()
        self.to_hub = deque((self.connection, frame, sent_s) for _, frame, sent_s in list(self.to_hub)[-kept:] if kept)

    @rule(seconds=st.floats(0.05, 20.0))
    def wait(self, seconds: float) -> None:
        self.now = Moment(self.now.s + seconds, self.now.ns + int(seconds * 1e9))
        self.link_does(self.link.tick(self.now))
        self.hub_does(self.hub.tick(self.now))

    @rule(part=st.floats(0.0, 1.0))
    def sync_part(self, part: float) -> None:
        self.sync(part)

    @rule()
    def fill_disk(self) -> None:
        self.full = True

    @rule()
    def free_disk(self) -> None:
        self.full = False
        if "run" in self.hub.runs and self.hub.runs["run"].stalled:
            self.hub_does(self.hub.resume("run"))

    @rule(part=st.floats(0.0, 1.0))
    def crash(self, part: float) -> None:
        """kill -9 and a power cut: what was not synced survives in part, as a beginning."""
        for stored in self.disk.values():
            ahead = len(stored.numbers) - stored.synced
            del stored.numbers[stored.synced + int(ahead * part) :]
            stored.synced = len(stored.numbers)
        self.full = False
        self.hub = self.new_hub([Known("run", "job", self.now.ns)] if self.disk else [])
        self.reconnect(2)

    @rule(level=st.sampled_from([10, 20, 40]), ttl=st.sampled_from([None, 5.0, 600.0]))
    def lease(self, level: int, ttl: float | None) -> None:
        self.operator(Change(1, None, 1.0, lease=Lease(0, {"c10d": level}, ttl_s=ttl).as_map()))

    @rule()
    def reset(self) -> None:
        self.operator(Change(2, None, 1.0, ends=[]))

    @rule(stream=st.sampled_from(STREAMS))
    def learn_rank(self, stream: bytes) -> None:
        """The label is learnt late, or once more."""
        if (one := self.link.streams.get(stream)) is not None:
            self.ranks[stream] += 3
            self.link.relabel(stream, replace(one.origin, rank=self.ranks[stream]), self.now)

    @rule(stream=st.sampled_from(STREAMS[1:]))
    def die(self, stream: bytes) -> None:
        if stream in self.link.streams:
            self.link.end(stream, END)

    # What must hold.

    @invariant()
    def everything_stored_is_stored_once_and_in_order(self) -> None:
        for stored in getattr(self, "disk", {}).values():
            assert stored.numbers == list(range(len(stored.numbers)))

    @invariant()
    def nothing_is_freed_that_a_crash_could_take(self) -> None:
        for stream, supply in getattr(self, "supplies", {}).items():
            assert not supply.acknowledged or supply.acknowledged <= self.disk[stream].synced

    @invariant()
    def what_is_in_flight_is_counted_right(self) -> None:
        if hasattr(self, "link"):
            assert self.link.in_flight == sum(one.in_flight_bytes for one in self.link.streams.values())

    def has_settled(self) -> bool:
        run = self.hub.runs.get("run")
        if run is None or len(run.peers) < len(STREAMS):
            return False
        for stream, supply in self.supplies.items():
            one, peer = self.link.streams.get(stream), run.peers[stream]
            if not (supply.acknowledged == supply.head == len(self.disk[stream].numbers)):
                return False
            if one is None:
                continue
            if one.has_ended or one.state is not State.LIVE or peer.rank != self.ranks[stream]:
                return False
            revisions = {lease.revision for lease in supply.leases}
            if not revisions == {lease.revision for lease in run.leases} == set(peer.answers):
                return False
            if not one.revision == peer.answered == run.revision:
                return False
        return True

    def teardown(self) -> None:
        """Once faults stop everything logged is stored, ends are known, and ranks run the collector's settings."""
        if not hasattr(self, "disk"):
            return
        self.free_disk()
        for stream, one in self.link.streams.items():
            # A welcome says nothing of the label that it answers, and one that was doubled is no proof.
            self.link.relabel(stream, one.origin, self.now)
        self.to_link.clear()
        for _ in range(200):
            if self.has_settled():
                break
            self.wait(0.5)
            while self.to_hub or self.to_link:
                self.send(8)
                self.deliver(True)
                self.deliver(False)
            self.sync(1.0)
        assert self.has_settled()
        for stream, supply in self.supplies.items():
            assert self.disk[stream].numbers == list(range(supply.head))
            peer = self.hub.runs["run"].peers[stream]
            assert peer.is_open == (stream in self.link.streams)


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestConversation = Conversation.TestCase
