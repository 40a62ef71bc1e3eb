"""One worker in the agent's care: its outbox, its process and its connection; or what a dead one left.

A ward is there until the collector has all of its records and knows how it ended. Alive is decided by the process: a
connection that closes says nothing, except where the process cannot be seen from here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from logging import CRITICAL
from pathlib import Path
from typing import Final

from zstandard import ZstdCompressor

from tlogs.access.agent_messages import Complain, FromAgent, Ping, Pong, Registered
from tlogs.agent.ends import Status, Word, end_record, judge
from tlogs.agent.line import Line
from tlogs.agent.setting import Setting
from tlogs.agent.source import Source
from tlogs.agent.watch import ALL_WAYS, Watch
from tlogs.outbox.file import CRASH_LOGGER
from tlogs.outbox.reader import Reader
from tlogs_shared.end import FINISHED, MAX_TEXT, End
from tlogs_shared.errors import MessageError
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.messages import Batch, Vital
from tlogs_shared.storage.batch import Header, seal
from tlogs_shared.storage.record import message_of, unpack_all

__all__ = ["Ward"]

STATUS_S: Final = 0.25
"""How long a status is asked for: a parent may take a moment to notice the end of its child."""

LOOK_S: Final = 0.02
MAX_LOOK_S: Final = 0.5
FOLLOWED_LOOK_S: Final = 0.025
GRID_S: Final = 0.1
"""Looks that are not urgent fall together, so that many idle workers do not wake the agent one by one."""

SETTLE_S: Final = 0.0015
"""Between two looks at what is asked for at once: a record comes out at the second."""

BLIND_LOOK_S: Final = 0.1
"""A process without a pidfd is looked at this often."""

VITAL_S: Final = 0.5
PING_S: Final = 10.0
WATCHED_PING_S: Final = 1.0

_compressor: Final = ZstdCompressor(level=1)


class Ward:
    """One worker. `ended_ns` is 0 while it lives; `counter` is the one of its memory cgroup."""

    def __init__(
        self,
        reader: Reader,
        origin: Origin,
        setting: Setting,
        *,
        collector: str,
        pid: int = 0,
        pidfd: int | None = None,
        counter: Path | None = None,
        ways: frozenset[str] = ALL_WAYS,
    ) -> None:
        self.stream = reader.stream
        self.origin = origin
        self.setting = setting
        self.source = Source(reader)
        self.collector = collector
        self.line: Line | None = None
        self.counter = counter
        self.watch: Watch | None = None
        if pid or pidfd is not None:
            self.watch = Watch(pid, reader.header.process.started, pidfd=pidfd, ways=ways)
        self.recovering = reader.sealed
        self.is_linked = False
        self.word = Word()
        self.status: Status | None = None
        self.oom = False
        self.ended_ns = 0
        self.end: End | None = None
        self.is_decided = False
        self.attempt = 0
        self._told: Registered | None = None
        self.unsent: Batch | None = None
        self.look_due_s = 0.0
        self.added_s = time.monotonic()
        self._uncaught = ""
        self._flush_below = 0
        self._pause_s = LOOK_S
        self._cut_s = 0.0
        self._complained: set[str] = set()
        self._ping = 0
        self._pinged_s = self._answered_s = self.added_s
        self._head_at_ping = -1
        self._vital: Vital | None = None
        self._vital_s = 0.0
        self._cpu_ms = 0

    # What the link reads.

    @property
    def head(self) -> int:
        """The number that the next record gets."""
        return self.source.head

    @property
    def acknowledged(self) -> int:
        """The number below which everything is safe."""
        return self.source.acknowledged

    @property
    def low_ts(self) -> int:
        """A time before which no record will follow."""
        return self.source.low_ts

    @property
    def oldest_unsent_ts(self) -> int | None:
        """The time of the oldest record that was not handed out."""
        return self.source.oldest_unsent_ts

    @property
    def dropped(self) -> Mapping[int, int]:
        """Records that found no room, counted by level."""
        return self.source.dropped

    def vital(self) -> Vital | None:
        """How the process is; asked of the system at most twice a second."""
        now = time.monotonic()
        unanswered_s = now - self._pinged_s if self._pinged_s > self._answered_s else 0.0
        if now - self._vital_s < VITAL_S:
            return self._vital and self._vital._replace(cpu_ms=0, unanswered_s=unanswered_s)
        self._vital_s = now
        found = None if self.watch is None or self.ended_ns else self.watch.vital()
        self._vital = None
        if found is not None:
            cpu_ms = max(found.cpu_ms - self._cpu_ms, 0) if self._cpu_ms else 0
            self._cpu_ms = found.cpu_ms
            self._vital = Vital(found.state, cpu_ms, unanswered_s)
        return self._vital

    # Records.

    @property
    def is_urgent(self) -> bool:
        """True if what is there is to be sent at once."""
        return self.source.is_sealed or self.source.handed < self._flush_below

    def flush(self, head: int) -> None:
        """Send what is below *head* at once."""
        self._flush_below = max(self._flush_below, min(head, self.source.head))
        self.look_due_s = 0.0

    def batch(self, now_s: float, age_s: float) -> Batch | None:
        """The next batch, None where there is none yet."""
        if self.unsent is not None:
            batch, self.unsent = self.unsent, None
            return batch
        close_open = self.is_urgent or now_s - self._cut_s >= age_s
        sealed = self.source.is_sealed
        extent = self.source.cut(close_open=close_open)
        if extent is None:
            return None
        if close_open:
            self._cut_s = now_s
        if extent.level >= CRITICAL and (found := _uncaught(bytes(extent.view))):
            self._uncaught = found
        header = Header(
            stream=self.stream,
            recovered=sealed,
            level=extent.level,
            first=extent.first,
            count=extent.count,
            first_ts=extent.first_ts,
            last_ts=extent.last_ts,
            low_ts=extent.last_ts,
        )
        return Batch(*seal(header, extent.view, _compressor))

    def rest(self, now_s: float, *, moved: bool, followed: bool) -> None:
        """Say when to look again: soon while something moves, ever more seldom while nothing does."""
        if self.is_urgent:
            self._pause_s = SETTLE_S if self.source.is_moving else LOOK_S
        elif moved or self.source.is_moving:
            self._pause_s = LOOK_S
        else:
            self._pause_s = min(self._pause_s * 1.5, FOLLOWED_LOOK_S if followed else MAX_LOOK_S)
        self.look_due_s = now_s + self._pause_s
        if self._pause_s > GRID_S:
            self.look_due_s -= self.look_due_s % GRID_S

    def take(self) -> bool:
        """Become the one who sends from the outbox; return False while another agent is."""
        self.is_linked = self.source.take()
        return self.is_linked

    # The worker.

    def greet(self, line: Line) -> None:
        """The worker has registered, or registered anew, over this connection."""
        self.line, self._told = line, None
        self._complained.clear()
        self.added_s = self._pinged_s = self._answered_s = time.monotonic()

    def is_same_process(self, other: Ward) -> bool:
        """Return True if both outboxes were made by one process."""
        mine, theirs = self.source.reader.header.process, other.source.reader.header.process
        return other is not self and mine.started != 0 and mine == theirs

    def said_bye(self, reason: str) -> None:
        """The worker has said that its stream ends."""
        self.word = Word(reason, self.word.exception)

    def failing(self, exception: str) -> None:
        """The worker has said that an uncaught exception ends it."""
        self.word = Word(self.word.bye, exception[:MAX_TEXT])

    def say(self, message: FromAgent) -> None:
        """Send the worker *message*, if it is there."""
        if self.line is not None:
            self.line.send(message)

    def tell(self, message: Registered) -> None:
        """Tell the worker where its records go, if that has changed."""
        if self.line is not None and message != self._told:
            self._told = message
            self.line.send(message)

    def complain(self, code: str, text: str) -> None:
        """Have the worker tell the person at the terminal, once a code."""
        if self.line is not None and code not in self._complained:
            self._complained.add(code)
            self.line.send(Complain(code, text))

    def is_due_to_ask(self, now_s: float, *, watched: bool) -> bool:
        """True if the worker should be pinged: it has logged nothing since the last time, or somebody looks."""
        if self.line is None or self.ended_ns:
            return False
        return now_s - self._pinged_s >= (WATCHED_PING_S if watched else PING_S)

    def ask(self, now_s: float, *, watched: bool) -> None:
        """Ping the worker, unless it has logged since the last time."""
        head = self.source.head
        if self._pinged_s > self._answered_s:
            return  # it has not answered the last one
        self._pinged_s = now_s
        if watched or head == self._head_at_ping:
            self._ping += 1
            assert self.line is not None
            self.line.send(Ping(self._ping))
        else:
            self._answered_s = now_s
        self._head_at_ping = head

    def answered(self, pong: Pong, now_s: float) -> None:
        """The worker has answered a ping."""
        if pong.number == self._ping:
            self._answered_s = now_s

    # The end.

    def look_for_end(self) -> bool:
        """Return True if the process has ended, as far as that can be seen without a pidfd."""
        if self.ended_ns:
            return False
        if self.watch is not None:
            return self.watch.fileno is None and self.watch.has_ended()
        if self.line is not None and self.line.is_open:
            return False
        return bool(self.word.bye) or not self.source.reader.is_alive()

    def process_ended(self, now_ns: int) -> None:
        """The process has ended: what its outbox holds now is final."""
        self.ended_ns = now_ns
        self.source.seal()
        self.look_due_s = 0.0
        self.ask_status()

    def ask_status(self) -> bool:
        """Ask how the process ended; return False while that may still become known."""
        if self.status is None or not self.status.is_sure:
            found = None if self.watch is None else self.watch.status()
            self.status = found or self.status
        if self.status is not None and (self.status.is_sure or self.word.bye):
            return True
        return self.watch is None or time.time_ns() - self.ended_ns > STATUS_S * 1e9

    def decide(self) -> End | None:
        """Say how it ended, once all of its records have been handed out; None if the process goes on."""
        assert self.source.is_sealed
        self.is_decided = True
        if self.source.reader.has_ended and not self.word.bye:
            self.word = Word("exit", self.word.exception)
        if self._uncaught and not self.word.exception and (self.status is None or self.status.code != 0):
            self.failing(self._uncaught)
        ended_ns = max(self.ended_ns, self.source.last_ts)  # of one that was brought in nobody knows more
        end = judge(self.word, self.status, oom=self.oom, ended_ns=ended_ns)
        if self.word.goes_on and self.status is None:
            self.end = None
            end = End(FINISHED, ended_ns=ended_ns)
        else:
            self.end = end
        if self.origin.rank is not None and self.origin.helper is None:
            self.source.finish(lambda after_ts: end_record(end, self.origin, self.attempt, after_ts))
        return self.end

    def close(self, *, delete: bool) -> None:
        """Let go of everything; with *delete* of the outbox's file too."""
        if self.line is not None:
            self.line.close()
        if self.watch is not None:
            self.watch.close()
        if delete:
            self.source.reader.delete()
        else:
            self.source.reader.close()


def _uncaught(packed: bytes) -> str:
    """The exception that nobody in the main thread caught, where one of these records tells of it."""
    found = ""
    try:
        for record in unpack_all(packed):
            if record.logger == CRASH_LOGGER and record.thread == "MainThread":
                kind, _, text = message_of(record).partition(" ")
                if kind == "uncaught":
                    found = text
    except MessageError:
        pass
    return found
