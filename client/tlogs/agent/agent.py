"""The loop: workers that register and end, what they say, and the collectors that their records go to.

Theory of operation
-------------------
One thread polls everything: the workers' connections, a pidfd for each worker, the sockets to collectors. A turn
serves the end of a worker before all else, since the end of the last one may be ours as well; then what collectors
and workers say; then records, a few batches at a time.

An outbox is a ward of this agent from its registration, or from when it is found with its process dead, until all of
it is stored. Who sends from an outbox holds a lock on it; one that another agent has is left alone until that lets go.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import zmq

from tlogs.access import agent_messages as m
from tlogs.access.discovery import Address
from tlogs.agent.conversation import Conversation, moment
from tlogs.agent.line import Line
from tlogs.agent.oom import OomLedger, find_counter
from tlogs.agent.search import find_outboxes
from tlogs.agent.setting import Setting
from tlogs.agent.ward import BLIND_LOOK_S, Ward
from tlogs.agent.watch import ALL_WAYS
from tlogs.outbox.dead import open_dead
from tlogs.outbox.reader import Reader, attach
from tlogs_shared.errors import MessageError
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.messages import Change, Report

__all__ = ["Agent"]

SECOND_S: Final = 1.0
STATUS_LOOK_S: Final = 0.01
LOCK_LOOK_S: Final = 0.5
SEARCH_S: Final = 10.0
"""Outboxes of dead workers are looked for this often."""

MAX_WAIT_S: Final = 10.0


class Agent:
    """All that one agent does, but for its start and its end as a process.

    Without a *listener* nobody registers: it brings in what is handed to `bring_in`.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        listener: socket.socket | None = None,
        *,
        ways: frozenset[str] = ALL_WAYS,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.wards: dict[bytes, Ward] = {}
        self.lines: dict[int, tuple[Line, Ward | None]] = {}
        self.conversations: dict[str, Conversation] = {}
        self.done: Callable[[Ward], None] = lambda _: None
        """Called with each ward whose records are all stored, before its outbox is deleted."""
        self._environ = environ
        self._listener = listener
        self._ways = ways
        self._say = say
        self._ledger = OomLedger()
        self._second_due_s = 0.0
        self._lock_due_s = 0.0
        self._search_due_s = 0.0
        self._changes: dict[int, tuple[Ward, int]] = {}
        self._number = 0
        self._draining: list[tuple[Line, dict[bytes, int]]] = []
        self.wakes: list[int] = []
        """Descriptors that end a wait."""

    # The loop.

    def turn(self, most_s: float = MAX_WAIT_S) -> None:
        """Wait until something happens, for at most *most_s* seconds, and serve it."""
        events = self._poll(min(most_s, self._due_s() - time.monotonic()))
        pidfds = {ward.watch.fileno: ward for ward in self._living() if ward.watch is not None}
        ended = [ward for fd, ward in pidfds.items() if fd in events]
        if ended:
            for ward in ended:
                self._ended(ward)
            self._talk()
        for conversation in self.conversations.values():
            transport = conversation.transport
            if transport is not None and transport.socket in events:
                conversation.receive()
            if transport is not None and transport.losses in events:
                conversation.check()
        for fd in [fd for fd in self.lines if fd in events]:
            self._serve(fd, events[fd])
        if self._listener is not None and self._listener.fileno() in events:
            self._accept(self._listener)
        for fd in self.wakes:
            if fd in events:
                os.read(fd, 4096)
        self._look(time.monotonic())
        self._talk()
        self._finish()

    def _poll(self, wait_s: float) -> dict[Any, int]:
        polled: list[tuple[Any, int]] = [(fd, zmq.POLLIN) for fd in self.wakes]
        if self._listener is not None:
            polled.append((self._listener.fileno(), zmq.POLLIN))
        for fd, (line, _) in self.lines.items():
            polled.append((fd, zmq.POLLIN | (zmq.POLLOUT if line.has_waiting else 0)))
        for ward in self._living():
            if ward.watch is not None and ward.watch.fileno is not None:
                polled.append((ward.watch.fileno, zmq.POLLIN))
        for conversation in self.conversations.values():
            if conversation.transport is not None:
                polled.append((conversation.transport.socket, zmq.POLLIN))
                polled.append((conversation.transport.losses, zmq.POLLIN))
        return dict(zmq.zmq_poll(polled, int(min(max(wait_s, 0.0), MAX_WAIT_S) * 1000 + 0.999)))

    def _due_s(self) -> float:
        due = [conversation.due_s() for conversation in self.conversations.values()]
        now = time.monotonic()
        if self.wards:
            due.append(self._second_due_s)
        for ward in self.wards.values():
            if ward.ended_ns:
                if not ward.is_decided:
                    due.append(now + STATUS_LOOK_S)
            elif ward.watch is None or ward.watch.fileno is None:
                due.append(now + BLIND_LOOK_S)
            if not ward.is_linked:
                due.append(self._lock_due_s)
        return min(due, default=now + MAX_WAIT_S)

    def _talk(self) -> None:
        for conversation in self.conversations.values():
            conversation.turn()

    def _living(self) -> list[Ward]:
        return [ward for ward in self.wards.values() if not ward.ended_ns]

    # Workers.

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # there are no more, or no descriptor is free: they wait in the backlog, or come again
            line = Line(connection)
            if line.uid not in (-1, os.getuid(), 0):
                line.close()
                continue
            self.lines[line.fileno] = line, None

    def _serve(self, fd: int, event: int) -> None:
        line, _ = self.lines[fd]
        if event & zmq.POLLOUT:
            line.flush()
        try:
            for message, descriptor in line.receive():
                self._handle(fd, message, descriptor)
        except MessageError as error:
            line.send(m.Complain("protocol", f"the agent of this host cannot read what this process sent: {error}"))
            line.close()
        if not line.is_open:
            _, ward = self.lines.pop(fd)
            if ward is not None and ward.line is line:
                ward.line = None  # the process may live on: it has closed its descriptors, or will be back

    def _handle(self, fd: int, message: m.Message, descriptor: int | None) -> None:
        line, ward = self.lines[fd]
        if isinstance(message, m.Register):
            if descriptor is None:
                raise MessageError("a registration without an outbox")
            self._register(fd, line, message, descriptor)
            return
        if isinstance(message, m.Drain):
            self._drain(line)
            return
        if ward is None:
            raise MessageError(f"a {type(message).__name__} before the registration")
        conversation = self.conversations[ward.collector]
        match message:
            case m.Relabel(origin):
                ward.origin = Origin.from_map(origin)
                if ward.is_linked:
                    conversation.link.relabel(ward.stream, ward.origin, moment())
            case m.Applied(revision, answers, report):
                conversation.link.applied(ward.stream, revision, _answers(answers), report)
            case m.Failing(exception):
                ward.failing(exception)
            case m.Flush(head):
                ward.flush(head)
            case m.Pong():
                ward.answered(message, time.monotonic())
            case m.Change(number, lease, once, timeout_s):
                self._ask(ward, conversation, number, lease, once, timeout_s)
            case m.Bye(reason=reason):
                ward.said_bye(reason)
                if ward.word.goes_on:
                    self._ended(ward)
            case _:
                raise MessageError(f"a {type(message).__name__}, which only an agent sends")

    def _register(self, fd: int, line: Line, message: m.Register, descriptor: int) -> None:
        origin = Origin.from_map(message.origin)
        try:
            reader = attach(descriptor, origin.outbox)
        except (OSError, MessageError) as error:
            line.send(m.Complain("outbox", f"the agent of this host cannot read the outbox {origin.outbox}: {error}"))
            line.close()
            return
        if reader.stream != message.stream:
            reader.close()
            raise MessageError("a registration with the outbox of another stream")
        if (known := self.wards.get(message.stream)) is not None:
            reader.close()
            if known.line is not None:
                known.line.close()
            known.greet(line)
            self.lines[fd] = line, known
            self.conversations[known.collector].inform(known)
            return
        setting = Setting(message.secret, message.secret_file, message.insecure)
        counter = find_counter(line.pid) if line.pid else None
        if counter is not None:
            self._ledger.follow(counter)
        ward = Ward(
            reader, origin, setting, collector=message.collector, pid=line.pid, counter=counter, ways=self._ways
        )
        for other in self._living():
            if ward.is_same_process(other):
                other.said_bye("exit")  # it has begun anew as another program (os.execv)
                self._ended(other)
        ward.greet(line)
        self.lines[fd] = line, ward
        self._take_care(ward)
        if ward.watch is not None and ward.watch.has_ended():
            self._ended(ward)

    def _take_care(self, ward: Ward, fixed: Address | None = None) -> None:
        self.wards[ward.stream] = ward
        if ward.collector not in self.conversations:
            conversation = Conversation(ward.collector, self._environ, self._answered, fixed=fixed)
            self.conversations[ward.collector] = conversation
        self._link(ward)

    def _link(self, ward: Ward) -> None:
        """Send from an outbox, once nobody else does."""
        if not ward.is_linked and ward.take():
            self.conversations[ward.collector].add(ward, moment())

    def _ask(
        self, ward: Ward, conversation: Conversation, number: int, lease: Mapping[str, Any], once: str, timeout_s: float
    ) -> None:
        """Ask the collector for a lease on behalf of a worker's job."""
        self._number += 1
        one = conversation.link.streams.get(ward.stream)
        run = None if one is None else one.run
        if run is None or not conversation.ask(Change(self._number, run, timeout_s, lease=lease, once=once)):
            ward.say(m.Report(number, conversation.problem or "no collector answers", None))
            return
        self._changes[self._number] = ward, number

    def _answered(self, report: Report) -> None:
        ward, number = self._changes.pop(report.number, (None, 0))
        if ward is not None:
            ward.say(m.Report(number, report.error, report.data))

    # Ends.

    def _ended(self, ward: Ward) -> None:
        ward.process_ended(time.time_ns())
        self.conversations[ward.collector].link.died(ward.stream)
        if ward.counter is not None and ward.status is not None and ward.status.signal == signal.SIGKILL:
            ward.oom = self._ledger.claim(ward.counter)

    def _look(self, now_s: float) -> None:
        """Do what is due from time to time."""
        for ward in self._living():
            if ward.look_for_end():
                self._ended(ward)
        if now_s >= self._second_due_s:
            self._second_due_s = now_s + SECOND_S
            self._ledger.refresh()
        for ward in self._living():
            watched = self.conversations[ward.collector].is_followed
            if ward.is_due_to_ask(now_s, watched=watched):
                ward.ask(now_s, watched=watched)
        if now_s >= self._lock_due_s:
            self._lock_due_s = now_s + LOCK_LOOK_S
            for ward in list(self.wards.values()):
                self._link(ward)
                if not ward.is_linked and ward.ended_ns and ward.source.is_gone:
                    self._remove(ward, delete=False)  # another agent has brought it in
        if now_s >= self._search_due_s and any(one.is_connected for one in self.conversations.values()):
            self._search_due_s = now_s + SEARCH_S
            self._search()

    def _search(self) -> None:
        """Take care of what dead workers of our collectors left."""
        if self._listener is None:
            return
        for path in find_outboxes(self._environ):
            try:
                reader = open_dead(path)
            except OSError:
                continue
            if reader is None:
                continue
            conversation = self._owner(reader)
            if conversation is None or not self.bring_in(reader, conversation.collector):
                reader.close()

    def _owner(self, reader: Reader) -> Conversation | None:
        try:
            meta = reader.meta
            origin = Origin.from_map(meta.get("origin"))
        except MessageError:
            return None
        for conversation in self.conversations.values():
            if conversation.is_connected and conversation.belongs(str(meta.get("endpoint", "")), origin):
                return conversation
        return None

    def bring_in(
        self, reader: Reader, collector: str, setting: Setting = Setting(), fixed: Address | None = None
    ) -> Ward | None:
        """Take care of the outbox of a dead process, which is sealed and taken; None where it is a ward already.

        Raises:
            MessageError: it does not say whose it is.
        """
        if reader.stream in self.wards:
            return None
        origin = Origin.from_map(reader.meta.get("origin"))
        ward = Ward(reader, origin, setting, collector=collector)
        ward.ended_ns = ward.source.reader.header.created_ns or 1
        self._take_care(ward, fixed)
        return ward

    def _finish(self) -> None:
        """Decide how those ended whose records are handed out, and let go of those that are stored."""
        for ward in list(self.wards.values()):
            if ward.ended_ns and not ward.is_decided and ward.is_linked and ward.source.is_spent and ward.ask_status():
                if ward.status is not None and ward.status.signal == signal.SIGKILL and ward.counter is not None:
                    ward.oom = ward.oom or self._ledger.claim(ward.counter)
                end = ward.decide()
                self.conversations[ward.collector].link.end(ward.stream, end)
        for conversation in self.conversations.values():
            while conversation.done:
                self._remove(conversation.done.pop(), delete=True)
        for line, goals in list(self._draining):
            if not line.is_open:
                self._draining.remove((line, goals))
            elif all(self._is_stored(stream, head) for stream, head in goals.items()):
                line.send(m.Drained())
                self._draining.remove((line, goals))

    def _remove(self, ward: Ward, *, delete: bool) -> None:
        self.done(ward)
        self.conversations[ward.collector].drop(ward)
        del self.wards[ward.stream]
        if ward.line is not None:
            self.lines.pop(ward.line.fileno, None)
        ward.close(delete=delete)

    # Draining and leaving.

    def _drain(self, line: Line) -> None:
        self._search()
        goals = {stream: ward.source.head for stream, ward in self.wards.items()}
        for ward in self.wards.values():
            ward.flush(ward.source.head)
        self._draining.append((line, goals))

    def _is_stored(self, stream: bytes, head: int) -> bool:
        ward = self.wards.get(stream)
        return ward is None or (not ward.ended_ns and ward.source.acknowledged >= head)

    @property
    def has_workers(self) -> bool:
        """True while a worker is registered whose process lives."""
        return bool(self._living())

    @property
    def is_sent(self) -> bool:
        """True if everything is stored that was logged so far."""
        return all(not ward.ended_ns and ward.source.acknowledged >= ward.source.head for ward in self.wards.values())

    def has_callers(self) -> bool:
        """Serve who has connected meanwhile; return True if anybody has."""
        if self._listener is not None:
            self._accept(self._listener)
        return not self.is_idle and bool(self.lines)

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to wait for."""
        return not self.wards and not self.lines

    def close(self) -> None:
        """Let go of everything; what is not stored stays in the outboxes."""
        for ward in list(self.wards.values()):
            ward.close(delete=False)
        for line, _ in self.lines.values():
            line.close()
        for conversation in self.conversations.values():
            conversation.close(linger_ms=200)


def _answers(values: Mapping[Any, Any]) -> dict[int, tuple[str, str]]:
    found = {}
    for revision, answer in values.items():
        if type(revision) is not int or len(answer) != 2 or not all(type(part) is str for part in answer):
            raise MessageError(f"what became of a lease cannot be {answer!r:.80}")
        found[revision] = (answer[0], answer[1])
    return found
