"""The one thread that owns the socket: it carries the link's decisions out and moves bytes from the outbox.

It packs and formats nothing; compression, which releases the interpreter lock, is all the work it does per record.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import zmq
import zstandard

from tlogs.access.transport import dial, why_unheard
from tlogs.outbox.ring import Extent
from tlogs.worker.link import Complain, Free, GoBack, Held, Lay, Link, Send, State
from tlogs_shared.errors import MessageError, ProtocolError
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.messages import Batch, Message
from tlogs_shared.storage.batch import Header, seal

__all__ = ["Forwarder", "Hooks", "Supply"]

log = logging.getLogger("tlogs")

IDLE_S: Final = 0.1
"""An idle forwarder looks for records this often; so nothing has to wake it from a logging call."""

UNHEARD_S: Final = 10.0
"""After so long without a collector the person at the terminal is told why."""

LINGER_S: Final = 5.0
"""At exit: at most so long for what is on its way."""

SILENT_PERIODS: Final = 1.5
"""At exit a collector that answers no heartbeat for so long is not waited for: what is left is recovered."""

GREET_S: Final = 1.0
"""At exit, before any collector has answered: a short script must have time to connect."""

FAULT_PAUSE_S: Final = 1.0
MESSAGES_A_TURN: Final = 100
COMPRESSION_LEVEL: Final = 1


def moment() -> Moment:
    """Now, on both clocks."""
    return Moment(time.monotonic(), time.time_ns())


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the forwarder calls in its owner, always on its own thread.

    `lay` puts leases onto the levels and returns the answers and the report; `every_second` lets the owner look
    whether something was learnt late, and is also called when the collector has named the run; `loud` says whether
    this process complains on behalf of its host.
    """

    lay: Callable[[Lay], tuple[Mapping[int, Sequence[str]], Mapping[str, Any]]]
    every_second: Callable[[], None]
    loud: bool = True


_left: Final[list[zmq.Context[zmq.Socket[bytes]]]] = []
"""Contexts that are not taken down, and must not be by the garbage collector."""


class Supply(Held, Protocol):
    """Where records come from: the outbox of this process, or one that a dead process left."""

    @property
    def unsent_bytes(self) -> int:
        """The size of what was not handed out yet."""

    def cut(self, close_open: bool) -> Extent | None:
        """The next extent that was not handed out; with *close_open* also what would not fill one yet."""

    def rewind(self, watermark: int) -> None:
        """Hand out again from this number on."""

    def acknowledge(self, watermark: int) -> None:
        """Let go of what stands below this number."""


class Forwarder:
    """Sends what lies in the outbox, for as long as the process lives."""

    def __init__(
        self,
        link: Link,
        outbox: Supply,
        endpoint: Endpoint,
        secret: bytes | None,
        hooks: Hooks,
        *,
        recovered: bool = False,
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._endpoint = endpoint
        self._secret = secret
        self._hooks = hooks
        self._recovered = recovered
        self._compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
        self._unsent: Batch | None = None
        self._cut_s = 0.0
        self._changed = threading.Condition()
        self._urgent = False
        self._deadline_s: float | None = None
        self._greeted_by_s = 0.0
        self._heard_s = 0.0
        self._complained: set[str] = set()
        self._jobs: list[Callable[[Link, Moment], Sequence[Any]]] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._socket = dial(self._context, endpoint, secret)
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._poller = zmq.Poller()
        self._thread = threading.Thread(target=self._work, name="tlogs-forwarder", daemon=True)

    def start(self) -> None:
        """Begin; an interpreter that is going down starts no threads, and what is in the outbox is recovered later."""
        try:
            self._thread.start()
        except RuntimeError:
            log.debug("no forwarder: the interpreter is going down")

    # From other threads.

    def flush(self, timeout: float) -> bool:
        """Block until everything logged so far is acknowledged; return False after *timeout* seconds."""
        goal = self._outbox.head
        self._urgent = True
        self._wake()
        with self._changed:
            return self._changed.wait_for(
                lambda: self._outbox.acknowledged >= goal or not self._thread.is_alive(), timeout
            ) and (self._outbox.acknowledged >= goal)

    def tell(self, job: Callable[[Link, Moment], Sequence[Any]]) -> None:
        """Have *job* done with the link, on the forwarder's thread."""
        self._jobs.append(job)
        self._wake()

    def close(self, timeout: float = LINGER_S, *, greet_s: float = GREET_S) -> bool:
        """Send what is left, say bye and end; whether everything was acknowledged.

        It takes *timeout* seconds at most, and no longer than *greet_s* where no collector answers.
        """
        now = time.monotonic()
        self._greeted_by_s, self._heard_s = now + greet_s, max(now, self._heard_s)
        self._deadline_s = now + timeout
        self._wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout + 1.0)
        return self._outbox.acknowledged >= self._outbox.head

    def _wake(self) -> None:
        try:
            os.write(self._wake_in, b".")
        except OSError:
            pass  # full: it is being woken already; closed: there is nobody to wake

    # The thread.

    def _work(self) -> None:
        self._began_s = self._second_s = time.monotonic()
        self._run: str | None = None
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_out, zmq.POLLIN)
        pause_s = IDLE_S
        while not self._is_done():
            try:
                moved = self._turn()
                pause_s = self._link.age_s if moved else min(pause_s * 1.5, max(IDLE_S, self._link.age_s))
                self._wait(pause_s)
            except Exception:  # noqa: BLE001 - the thread's outermost loop: the job must not notice
                self._complain("fault", "an internal error; records are kept in the outbox", exc_info=True)
                self._wait(FAULT_PAUSE_S)
        self._end()

    def _turn(self) -> bool:
        """One round; whether records are moving."""
        now = moment()
        for _ in range(MESSAGES_A_TURN):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._receive(frames, moment())
        while self._jobs:
            self._carry_out(self._jobs.pop(0)(self._link, now), now)
        self._carry_out(self._link.tick(now), now)
        moved = self._send_batches(now)
        if now.s >= self._second_s or self._link.run != self._run:
            self._second_s, self._run = now.s + 1.0, self._link.run
            self._hooks.every_second()
            unheard = self._link.state is State.WAITING and self._run is None and now.s - self._began_s > UNHEARD_S
            if unheard and self._deadline_s is None and "unheard" not in self._complained:
                self._complain("unheard", f"{why_unheard(self._endpoint, self._secret)}; records wait in the outbox")
        return moved

    def _wait(self, pause_s: float) -> None:
        if self._deadline_s is not None:
            pause_s = min(pause_s, 0.01)
        pause_s = max(0.0, min(pause_s, self._link.due_s() - time.monotonic()))
        events = dict(self._poller.poll(int(pause_s * 1000) + 1))
        if self._wake_out in events:
            os.read(self._wake_out, 4096)

    def _receive(self, frames: list[bytes], now: Moment) -> None:
        self._heard_s = now.s
        try:
            message = wire.decode(frames)
        except wire.VersionError as error:
            self._complain("version", f"{self._endpoint}: {error}; install the same version of tlogs on both sides")
            return
        except MessageError as error:
            self._complain("protocol", f"{self._endpoint}: {error}")
            return
        self._carry_out(self._link.handle(message, now), now)

    def _carry_out(self, actions: Sequence[Any], now: Moment) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self._send(message, now)
                case GoBack(watermark):
                    self._unsent = None
                    self._mark(self._outbox.rewind, watermark)
                case Free(stored):
                    self._mark(self._outbox.acknowledge, stored)
                    with self._changed:
                        self._changed.notify_all()
                case Lay(revision=revision):
                    answers, report = self._hooks.lay(action)
                    self._carry_out(self._link.laid(revision, answers, report), now)
                case Complain(code, text):
                    self._complain(code, f"{self._endpoint}: {text}")
                case _:
                    raise AssertionError(action)

    def _mark(self, move: Callable[[int], None], number: int) -> None:
        try:
            move(number)
        except ProtocolError as error:
            self._complain("protocol", f"{self._endpoint}: {error}")

    def _send(self, message: Message, now: Moment) -> bool:
        try:
            self._socket.send_multipart(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            self._link.unsent(message, now)
            return False
        return True

    def _send_batches(self, now: Moment) -> bool:
        """Send what the window allows; whether anything went, or waits to go."""
        old_enough = self._urgent or self._deadline_s is not None or now.s - self._cut_s >= self._link.age_s
        self._urgent = False
        moved = False
        while self._link.room > 0:
            batch = self._unsent or self._next_batch(close_open=old_enough)
            if batch is None:
                break
            moved = True
            if old_enough:
                self._cut_s = now.s
            if not self._send(batch, now):
                self._unsent = batch  # the other side does not read at present
                break
            self._unsent = None
            self._link.sent(batch.header.end, batch.header.size, now)
        return moved or self._outbox.unsent_bytes > 0

    def _next_batch(self, *, close_open: bool) -> Batch | None:
        extent = self._outbox.cut(close_open)
        if extent is None:
            return None
        header = Header(
            stream=self._link.stream,
            recovered=self._recovered,
            level=extent.level,
            first=extent.first,
            count=extent.count,
            first_ts=extent.first_ts,
            last_ts=extent.last_ts,
            low_ts=extent.last_ts,
        )
        return Batch(*seal(header, extent.view, self._compressor))

    # The end.

    def _is_done(self) -> bool:
        if self._deadline_s is None:
            return False
        now = time.monotonic()
        if now >= self._deadline_s:
            return True
        if self._link.state is State.LIVE:
            silent = now - self._heard_s > SILENT_PERIODS * max(self._link.period_s, 1.0)
            return silent or self._outbox.acknowledged >= self._outbox.head
        # Nobody has answered yet: a short wait for a collector that is there, none for one that said no.
        return self._link.state is State.REFUSED or now >= self._greeted_by_s

    def _end(self) -> None:
        self._carry_out(self._link.bye(), moment())
        with self._changed:
            self._changed.notify_all()
        waiting = self._outbox.head - self._outbox.acknowledged
        if waiting and self._link.run is None and not self._complained:
            self._complain(
                "unheard",
                f"no collector answered at {self._endpoint}; {waiting} records kept in the outbox; "
                "deliver them with: tlogs recover",
            )
        self._socket.close(linger=500 if self._link.state is State.LIVE else 0)
        if self._link.run is not None:
            self._context.term()
        else:
            _left.append(self._context)  # its thread may be asking for the host's name, and term would wait for that
        os.close(self._wake_in)
        os.close(self._wake_out)

    # Complaints.

    def _complain(self, code: str, text: str, *, exc_info: bool = False) -> None:
        """Tell the person at the terminal, once a kind and once a host."""
        if code not in self._complained:
            self._complained.add(code)
            if self._hooks.loud:
                log.warning("tlogs: %s", text, exc_info=exc_info)
