"""The connection to one collector: it carries the link's decisions out, and sends from the wards' outboxes.

The collector's address is found afresh whenever nobody answers. Of the settings that workers have registered with, the
newest is tried first; one that is refused is told to exactly the workers that came with it, and then the next is tried.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import zmq

from tlogs.access.agent_messages import Registered, Settings
from tlogs.access.discovery import Address
from tlogs.access.transport import Transport, why_unheard
from tlogs.agent import link as to
from tlogs.agent.sending import State
from tlogs.agent.setting import Setting
from tlogs.agent.ward import Ward
from tlogs_shared.errors import AccessDenied, CollectorUnavailable, ConfigError, MessageError, ProtocolError
from tlogs_shared.origin import Origin
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.messages import Message, Report

__all__ = ["Conversation", "moment"]

RESOLVE_S: Final = 0.1
MAX_RESOLVE_S: Final = 1.0
"""While nobody answers, the address is found afresh: at first often, since a collector that was killed is soon back."""

REDIAL_S: Final = 10.0
"""A connection on which nobody answers for so long is made anew, with what waits in it."""

REDIAL_PAUSE_S: Final = 0.2
PROBE_S: Final = 3.0
"""An attempt that is not answered for so long is looked into: ZeroMQ does not tell why."""

UNHEARD_S: Final = 10.0
"""A worker whose records have had no collector for so long says so, with the cause."""

MESSAGES_A_TURN: Final = 100
BATCHES_A_TURN: Final = 16
"""Then control messages have their turn again: a worker that floods delays no heartbeat."""


def moment() -> Moment:
    """Now, on both clocks."""
    return Moment(time.monotonic(), time.time_ns())


class Conversation:
    """All wards of one collector; `collector` names it as the workers do. `done` are the wards that need no more care.

    `reply` is told the collector's answers to changes that workers asked for.
    """

    def __init__(
        self,
        collector: str,
        environ: Mapping[str, str],
        reply: Callable[[Report], None] = lambda _: None,
        *,
        fixed: Address | None = None,
    ) -> None:
        self.collector = collector
        self.wards: dict[bytes, Ward] = {}
        self.link = to.Link(random.random)
        self.transport: Transport | None = None
        self.address: Address | None = None
        self.problem = ""
        """Why there is no connection, as far as that is known."""
        self.done: list[Ward] = []
        self._environ = environ
        self._fixed = fixed
        self._reply = reply
        self._settings: list[Setting] = []
        self._tried: Setting | None = None
        self._refused: dict[Setting, str] = {}
        self._directory: Path | None = None
        self._dialled_s = -REDIAL_S
        self._resolve_due_s = 0.0
        self._resolve_s = RESOLVE_S
        self._probes: deque[tuple[Transport, CollectorUnavailable]] = deque()
        self._is_probed = False

    @property
    def is_connected(self) -> bool:
        """True while the collector answers."""
        return self.link.has_answered

    @property
    def is_followed(self) -> bool:
        """True while somebody looks at what the ranks say, as the pace of the heartbeats tells."""
        return self.link.period_s < 1.0

    def add(self, ward: Ward, now: Moment) -> None:
        """Send this ward's records too."""
        if ward.setting not in self._settings or ward.setting in self._refused:
            self._refused.pop(ward.setting, None)  # what was wrong may have been put right
        if ward.setting in self._settings:
            self._settings.remove(ward.setting)
        self._settings.insert(0, ward.setting)
        self.wards[ward.stream] = ward
        self.link.add(ward.stream, ward.origin, ward, now, recovering=ward.recovering)
        if ward.ended_ns:
            self.link.died(ward.stream)
        self.inform(ward)

    def inform(self, ward: Ward) -> None:
        """Tell a worker where its records go, and the settings in force."""
        self._tell(ward.stream)
        if (settings := self.link.settings_of(ward.stream)) is not None:
            self._do([to.Inform([ward.stream], settings.revision, settings.leases)], moment())

    def drop(self, ward: Ward) -> None:
        """Forget this ward."""
        self.wards.pop(ward.stream, None)
        self.link.drop(ward.stream)

    def belongs(self, endpoint: str, origin: Origin) -> bool:
        """Return True if an outbox that names this endpoint and origin is for this collector."""
        if endpoint == self.collector or (self.address is not None and endpoint == str(self.address.endpoint)):
            return True
        # A collector that was started again may listen elsewhere; the runs in its directory are its own.
        known = self._directory
        return known is not None and origin.run is not None and (known / origin.run).is_dir()

    def ask(self, message: Message) -> bool:
        """Send a message of a worker's; return False where there is no collector."""
        return self.is_connected and self._send(message, moment())

    # Turns.

    def due_s(self) -> float:
        """When `turn` has something to do, in seconds of the monotonic clock."""
        due = [float("inf") if self.transport is None else self.link.due_s()]
        if not self.is_connected and self.wards:
            due.append(self._resolve_due_s)
        for stream, ward in self.wards.items():
            if ward.is_linked and self.link.room(stream) > 0:
                due.append(ward.look_due_s)
        return min(due)

    def receive(self) -> None:
        """Handle what the collector has sent."""
        for _ in range(MESSAGES_A_TURN):
            frame = None if self.transport is None else self.transport.receive()
            if frame is None:
                return
            now = moment()
            try:
                message = wire.decode(frame)
            except wire.VersionError as error:
                self._complain("version", f"{self._where}: {error}; install the same version of tlogs on both sides")
                continue
            except MessageError as error:
                self._complain("protocol", f"{self._where}: {error}")
                continue
            self._do(self.link.handle(message, now), now)

    def check(self) -> None:
        """Look whether the connection was lost: the collector may be back elsewhere before it is missed."""
        if self.transport is not None and self.transport.was_lost() and self.is_connected:
            now = moment()
            self.problem = "the connection to the collector was lost"
            self._do(self.link.connected(self.link.instance, now), now)
            self._resolve_due_s, self._resolve_s = now.s, RESOLVE_S

    def turn(self) -> bool:
        """One round; return True if records are moving."""
        now = moment()
        if self.wards and not self.is_connected:
            self._keep_dialled(now)
        if self.transport is None:
            self._complain_unheard(now.s)
            return False
        self._do(self.link.tick(now), now)
        moved = self._send_batches(now)
        self._complain_unheard(now.s)
        return moved

    def _send_batches(self, now: Moment) -> bool:
        due = [ward for ward in self.wards.values() if ward.is_linked and ward.look_due_s <= now.s]
        due.sort(key=lambda ward: not ward.source.is_sealed)  # what has ended goes first
        queue, sent = deque(due), set()
        for _ in range(BATCHES_A_TURN):
            while queue and self.link.room(queue[0].stream) <= 0:
                queue.popleft()
            if not queue:
                break
            ward = queue.popleft()
            ward.attempt = self.link.streams[ward.stream].attempt
            batch = ward.batch(now.s, self.link.age_s)
            if batch is None:
                continue
            if not self._send(batch, now):
                ward.unsent = batch  # the other side does not read at present
                break
            self.link.sent(ward.stream, batch.header.end, batch.header.size, now)
            sent.add(ward.stream)
            queue.append(ward)
        waiting = {ward.stream for ward in queue}
        for ward in due:
            if ward.stream not in waiting:
                ward.rest(now.s, moved=ward.stream in sent, followed=self.is_followed)
        return bool(sent)

    def _send(self, message: Message, now: Moment) -> bool:
        if self.transport is not None and self.transport.send(wire.encode(message)):
            return True
        self.link.unsent(message, now)
        return False

    # Actions.

    def _do(self, actions: Sequence[to.Action], now: Moment) -> None:
        for action in actions:
            match action:
                case to.Send(message):
                    self._send(message, now)
                case to.Rewound(stream, watermark):
                    ward = self.wards[stream]
                    ward.unsent, ward.look_due_s = None, 0.0
                    self._mark(ward.source.rewind, watermark)
                case to.Free(stream, stored):
                    self._mark(self.wards[stream].source.acknowledge, stored)
                case to.Tell(stream):
                    self._tell(stream)
                case to.Inform(streams, revision, leases):
                    for stream in streams:
                        if (line := self.wards[stream].line) is not None:
                            line.send(Settings(revision, leases))
                case to.Reply(report):
                    self._reply(report)
                case to.Done(stream):
                    self.done.append(self.wards[stream])
                case to.Complain(None, code, text):
                    self._complain(code, f"{self._where}: {text}")
                case to.Complain(stream, code, text):
                    if stream in self.wards:
                        self.wards[stream].complain(code, f"{self._where}: {text}")
                case to.Redial(why):
                    self.problem = why
                    self._hang_up(now)
                    return

    def _mark(self, move: Callable[[int], Any], number: int) -> None:
        try:
            move(number)
        except ProtocolError as error:
            self._complain("protocol", f"{self._where}: {error}")

    def _tell(self, stream: bytes) -> None:
        ward, one = self.wards.get(stream), self.link.streams.get(stream)
        if ward is not None and one is not None:
            endpoint = None if self.address is None else str(self.address.endpoint)
            state = State.REFUSED if one.state is State.WAITING and ward.setting in self._refused else one.state
            ward.tell(Registered(one.run, one.attempt, endpoint, state.value))

    # Dialling.

    @property
    def _where(self) -> str:
        return self.collector if self.address is None else str(self.address.endpoint)

    def _keep_dialled(self, now: Moment) -> None:
        """Have a connection to where the collector is now; called while nobody answers."""
        while self._probes:
            transport, error = self._probes.popleft()
            if transport is self.transport:
                self._unanswered(error, now)
        if now.s < self._resolve_due_s:
            return
        self._resolve_due_s = now.s + self._resolve_s
        self._resolve_s = min(1.25 * self._resolve_s, MAX_RESOLVE_S)
        setting = next((one for one in self._settings if one not in self._refused), None)
        if setting is None:  # all were refused: from the start again, in a while
            if now.s - self._dialled_s < REDIAL_S:
                return
            self._refused.clear()
            setting = self._settings[0]
        try:
            address = self._fixed or setting.resolve(self.collector, self._environ, self._directory)
        except ConfigError as error:
            self.problem = str(error)
            return
        is_old = now.s - self._dialled_s >= REDIAL_S * (1 + self.link.jitter() / 2)
        if self.transport is None or address != self.address or is_old:
            self._dial(address, setting, now)
        elif not self._is_probed and now.s - self._dialled_s >= PROBE_S:
            self._is_probed = True
            threading.Thread(target=self._probe, args=(self.transport, address), daemon=True).start()

    def _dial(self, address: Address, setting: Setting, now: Moment) -> None:
        self._close_transport()
        self.address, self._tried = address, setting
        self._dialled_s, self._is_probed = now.s, False
        try:
            self.transport = Transport(address)
        except AccessDenied as error:
            self._unanswered(error, now)
            return
        except (CollectorUnavailable, zmq.ZMQError) as error:
            self.problem = str(error)
            return
        if address.directory is not None:
            self._directory = address.directory
        self._do(self.link.connected(address.instance, now), now)

    def _hang_up(self, now: Moment) -> None:
        self._close_transport()
        self._do(self.link.connected("", now), now)
        self._resolve_due_s, self._resolve_s = now.s + REDIAL_PAUSE_S, RESOLVE_S

    def _close_transport(self) -> None:
        """Close the connection, on a thread: its own may be asking for the host's name, and is waited for."""
        transport, self.transport = self.transport, None
        if transport is not None:
            threading.Thread(target=transport.close, daemon=True).start()

    def _probe(self, transport: Transport, address: Address) -> None:
        self._probes.append((transport, why_unheard(address)))

    def _unanswered(self, error: CollectorUnavailable, now: Moment) -> None:
        """It is known why nobody answers; where the reason is a secret, the next setting is tried."""
        self.problem = str(error)
        setting = self._tried
        if isinstance(error, AccessDenied) and setting is not None:
            self._refused[setting] = self.problem
            self._resolve_due_s = now.s
            for ward in self.wards.values():
                if ward.setting == setting:
                    ward.complain("access", self.problem)
                    self._tell(ward.stream)
            self._close_transport()

    # Words.

    def _complain(self, code: str, text: str) -> None:
        self.problem = text
        for ward in self.wards.values():
            ward.complain(code, text)

    def _complain_unheard(self, now_s: float) -> None:
        if self.is_connected:
            return
        text = self.problem or f"no collector at {self._where} answers"
        for ward in self.wards.values():
            if now_s - ward.added_s >= UNHEARD_S and ward.setting not in self._refused:
                ward.complain("unheard", f"{text}; records are kept in the outbox")

    def close(self, linger_ms: int = 0) -> None:
        """Disconnect."""
        if self.transport is not None:
            transport, self.transport = self.transport, None
            if self.is_connected:
                transport.close(linger_ms)
            else:
                threading.Thread(target=transport.close, daemon=True).start()
