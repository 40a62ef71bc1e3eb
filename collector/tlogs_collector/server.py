"""The loop: messages from the socket to the hub, and what the hub decided to socket and store. No decisions here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import zmq

from tlogs_collector.hub.actions import (
    Action,
    Append,
    Conclude,
    Control,
    OpenRun,
    PutStream,
    Read,
    Recover,
    Say,
    Send,
    Tell,
)
from tlogs_collector.hub.hub import Hub
from tlogs_collector.listener import Listener
from tlogs_collector.stop import Stop
from tlogs_collector.store.store import RunFailed, Store
from tlogs_collector.syncer import Syncer
from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.messages import Ask, Fetch, Follow, Message, News, Page, Report
from tlogs_shared.storage.index_page import pack_index
from tlogs_shared.storage.position import Position

__all__ = ["Edges", "Server"]

MESSAGES_A_TURN: Final = 256
"""So many messages are handled before timers and acknowledgements get their turn."""

TICK_S: Final = 0.25
FOLLOWED_TICK_S: Final = 0.1
RETRY_S: Final = 1.0
SAME_WORDS_S: Final = 60.0
"""The same sentence is not said again before so long."""

FAREWELL_S: Final = 10.0
"""At the end those who follow have so long to read the rest; a pager that nobody reads must not keep the daemon."""

SPEECHLESS_S: Final = 2.0
"""A follower that fetches nothing for so long then has read all, or is stopped."""

MAX_PAGE_BYTES: Final = 1024 * 1024
MAX_INDEX_FRAMES: Final = 4096

LAST_NEWS: Final = News(run="", segment=0, offset=0, horizon_ns=0, live=False, closing=True)


@dataclass(frozen=True, slots=True)
class Edges:
    """What the loop calls outside itself: words for the operator, a run's beginning, recovery of dead outboxes.

    `poll_recovery` is called every second; it begins what is due and returns whether something is under way.
    """

    say: Callable[[str], None]
    run_opened: Callable[[str], None]
    recover: Callable[[Sequence[str]], None]
    poll_recovery: Callable[[], bool]


class Server:
    """One collector at work."""

    def __init__(
        self,
        listener: Listener,
        store: Store,
        hub: Hub,
        edges: Edges,
        stop: Stop,
        *,
        grace_s: float,
        wait_for_sync: bool,
    ) -> None:
        self._listener = listener
        self._poller = zmq.Poller()
        for socket in listener.sockets.values():
            self._poller.register(socket, zmq.POLLIN)
        self._store = store
        self._hub = hub
        self._edges = edges
        self._stop = stop
        self._grace_s = grace_s
        self._syncer = Syncer(store)
        self._wait_for_sync = wait_for_sync
        self._awaited: deque[tuple[int, str, bytes, int]] = deque()
        self._covered = 0
        self._to_reopen: set[str] = set()
        self._begun: dict[str, Position] = {}
        self._is_over = False
        self._said: dict[str, float] = {}
        self._ticked_s = self._retried_s = 0.0
        self._grace_ends_s: float | None = None
        self._heard_s = 0.0

    def run(self) -> None:
        """Serve until stopped; afterwards everything that was taken is synced and acknowledged."""
        self._poller.register(self._syncer.ready, zmq.POLLIN)
        self._poller.register(self._stop.ready, zmq.POLLIN)
        while not self._advance_stop():
            drained = self._drain()
            self._acknowledge()
            self._tick(drained)
            if not drained:
                continue
            followed = bool(self._hub.followers.by_connection)
            self._poller.poll(int(1000 * (FOLLOWED_TICK_S if followed else TICK_S)))
            self._stop.clear()
        self._finish()

    def _advance_stop(self) -> bool:
        """Begin to end where that was requested; return whether it is time to."""
        if not self._stop.requests:
            return False
        if self._grace_ends_s is None:
            self._hub.stop()
            self._grace_ends_s = time.monotonic() + self._grace_s
            if not self._hub.is_idle:
                self._edges.say(
                    f"waiting for ranks to end, at most {self._grace_s:g} s; press Ctrl-C again to stop now"
                )
        over = self._stop.requests > 1 or time.monotonic() >= self._grace_ends_s
        return over or (self._hub.is_idle and not self._awaited and not self._edges.poll_recovery())

    def _finish(self) -> None:
        self._drain()
        self._poller.unregister(self._syncer.ready)
        self._poller.unregister(self._stop.ready)
        self._syncer.stop()
        try:
            self._store.sync()
        except StoreError as error:
            self._say(f"the last records could not be synced: {error}")
        else:
            self._settle(self._store.written)
        self._is_over = True

    def farewell(self, is_printing: Callable[[], bool]) -> None:
        """Let those who follow read the last records: the printer, as long as *is_printing*, and those elsewhere."""
        deadline = time.monotonic() + FAREWELL_S
        self._heard_s = time.monotonic()
        while (now := moment()).s < deadline:
            followers = list(self._hub.followers.by_connection)
            speechless = now.s - self._heard_s > SPEECHLESS_S
            if not is_printing() and (not followers or speechless):
                return
            self._carry_out(self._hub.tick_operators(now), now)
            for connection in followers:
                self._send(connection, LAST_NEWS)
            self._poller.poll(int(1000 * FOLLOWED_TICK_S))
            self._drain()

    def close_runs(self) -> None:
        """Mark what ended as ended: the next daemon then does not wait for its ranks."""
        for name, run in self._hub.runs.items():
            if run.is_open and not run.is_concluded:
                self._mark_ended(name, time.time_ns())

    def _mark_ended(self, name: str, ended_ns: int | None) -> None:
        try:
            meta = {key: value for key, value in self._store.run_meta(name).items() if key != "ended_ns"}
            self._store.set_meta(name, meta if ended_ns is None else {**meta, "ended_ns": ended_ns})
        except StoreError as error:
            self._say(f"run {name}: {error}")

    # Messages.

    def _drain(self) -> bool:
        """Handle queued messages; return True once the socket is drained."""
        hub = self._hub
        for _ in range(MESSAGES_A_TURN):
            received = self._listener.receive()
            if received is None:
                return True
            connection, frame = received
            now = moment()
            try:
                message = wire.decode(frame)
                if self._is_over:
                    if not isinstance(message, Ask | Follow | Fetch):
                        continue  # what a rank has to say it says to the next daemon
                    self._heard_s = now.s
            except wire.VersionError as error:
                self._carry_out(hub.broken(connection, "version", str(error)), now)
            except MessageError as error:
                self._carry_out(hub.broken(connection, "protocol", str(error)), now)
            else:
                self._carry_out(hub.handle(connection, message, now), now)
        return False

    def _carry_out(self, actions: Sequence[Action], now: Moment) -> None:
        for action in actions:
            match action:
                case Send(connection, message):
                    self._send(connection, message)
                case Append():
                    self._append(action, now)
                case PutStream(run, stream, info):
                    try:
                        self._store.put_stream(run, stream, info)
                    except StoreError as error:
                        self._stall(run, error)
                    self._syncer.wake()
                case OpenRun(name, meta):
                    self._open(name, meta, now)
                case Control(run, line):
                    try:
                        self._store.append_control(run, line)
                    except StoreError as error:
                        self._say(f"run {run}: the control journal could not be written: {error}")
                case Conclude(run, ended_ns):
                    self._mark_ended(run, ended_ns)
                case Tell(connection, run, horizon_ns, live):
                    end, begun = self._store.end(run), self._begun[run]
                    news = News(
                        run=run,
                        segment=end.segment,
                        offset=end.offset,
                        horizon_ns=horizon_ns,
                        live=live,
                        closing=False,
                        begin_segment=begun.segment,
                        begin_offset=begun.offset,
                    )
                    self._send(connection, news)
                case Read(connection, fetch):
                    self._send(connection, self._page(fetch))
                case Recover(outboxes):
                    self._edges.recover(outboxes)
                case Say(text):
                    self._say(text)

    def _send(self, connection: bytes, message: Message) -> None:
        if not self._listener.send(connection, wire.encode(message)):
            self._hub.unreachable(connection)

    def _page(self, fetch: Fetch) -> Message:
        try:
            if fetch.what == "index":
                limit = max(1, min(fetch.size, MAX_INDEX_FRAMES))
                frames, end = self._store.index(fetch.run, Position(fetch.segment, fetch.offset), limit)
                return Page(fetch.number, pack_index(frames, end))
            size = max(1, min(fetch.size, MAX_PAGE_BYTES))
            return Page(fetch.number, self._store.read(fetch.run, fetch.segment, fetch.offset, size))
        except StoreError as error:
            return Report(fetch.number, str(error), None)

    # The store.

    def _open(self, name: str, meta: Mapping[str, Any], now: Moment) -> None:
        try:
            stored = self._store.open_run(name, meta)
            control = self._store.read_control(name)
        except StoreError as error:
            self._carry_out(self._hub.unopened(name, str(error)), now)
            return
        self._begun.setdefault(name, self._store.end(name))
        for note in stored.notes:
            self._say(f"run {name}: {note}")
        if "ended_ns" in stored.meta:
            self._mark_ended(name, None)  # it goes on
        self._edges.run_opened(name)
        self._carry_out(self._hub.opened(name, stored.streams, control, now), now)

    def _append(self, action: Append, now: Moment) -> None:
        header = action.header
        try:
            self._store.append(action.run, header, action.payload)
        except StoreError as error:
            self._stall(action.run, error)
            self._carry_out(self._hub.unstored(action.run, header, str(error)), now)
            return
        if self._wait_for_sync:
            self._awaited.append((self._store.written, action.run, header.stream, header.end))
        else:
            self._carry_out(self._hub.stored({(action.run, header.stream): header.end}), now)
        self._syncer.wake()

    def _stall(self, run: str, error: StoreError) -> None:
        if isinstance(error, RunFailed):
            self._to_reopen.add(run)
        self._hub.stall(run, str(error))

    def _acknowledge(self) -> None:
        covered, failures = self._syncer.take()
        for failure in failures:
            self._say(f"cannot sync: {failure}; the ranks keep their records and wait")
            if isinstance(failure, RunFailed):
                self._stall(failure.run, failure)
                # What was written since the last good sync is forgotten; opening the run again says where it stands.
                self._awaited = deque(entry for entry in self._awaited if entry[1] != failure.run)
        if covered > self._covered:
            self._settle(covered)

    def _settle(self, covered: int) -> None:
        self._covered = covered
        watermarks: dict[tuple[str, bytes], int] = {}
        while self._awaited and self._awaited[0][0] <= covered:
            _, run, stream, end = self._awaited.popleft()
            watermarks[run, stream] = end
        if watermarks:
            self._carry_out(self._hub.stored(watermarks), moment())

    # Time.

    def _tick(self, drained: bool) -> None:
        """Look at the time: operators' deadlines and news always, who is late only once all messages are read."""
        now = moment()
        interval = FOLLOWED_TICK_S if self._hub.followers.by_connection else TICK_S
        if now.s - self._ticked_s < interval:
            return
        self._ticked_s = now.s
        if not drained:
            self._carry_out(self._hub.tick_operators(now), now)
            return
        self._carry_out(self._hub.tick(now), now)
        if now.s - self._retried_s >= RETRY_S:
            self._retried_s = now.s
            self._retry(now)
            self._edges.poll_recovery()

    def _retry(self, now: Moment) -> None:
        """Runs that took nothing for a while: perhaps they do again."""
        for name in list(self._to_reopen):
            try:
                stored = self._store.open_run(name, {})
            except StoreError as error:
                self._say(f"run {name}: {error}")
                continue
            self._to_reopen.discard(name)
            self._carry_out(self._hub.reopened(name, stored.streams), now)
        for name, run in self._hub.runs.items():
            if run.stalled and name not in self._to_reopen and self._store.room():
                self._carry_out(self._hub.resume(name), now)

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if now - self._said.get(text, -SAME_WORDS_S) >= SAME_WORDS_S:
            if len(self._said) > 1000:
                self._said.clear()
            self._said[text] = now
            self._edges.say(text)


def moment() -> Moment:
    """Now, on both clocks."""
    return Moment(time.monotonic(), time.time_ns())
