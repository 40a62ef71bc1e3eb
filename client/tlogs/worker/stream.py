"""One stream of this process: its outbox, and the conversation with the agent that sends from it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import Any, Final

from tlogs.access.agent_messages import Bye, Failing, Flush, Register, Registered, Relabel
from tlogs.outbox.outbox import Outbox
from tlogs.worker.config import Target
from tlogs.worker.control import ANSWER_S, Control, Hooks
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.version import __version__

__all__ = ["LINGER_S", "Owner", "Stream"]

LINGER_S: Final = 5.0
"""At exit: at most so long for what has not been acknowledged, while the agent is making progress."""

LOOK_S: Final = 0.002
MAX_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Owner:
    """What a stream needs of its session. `connect` returns a connection's descriptor."""

    connect: Callable[[], int | None]
    lay: Callable[[Sequence[Lease], Sequence[Lease], Sequence[Lease]], tuple[Mapping[int, Sequence[str]], bytes]]
    check: Callable[[], bool]
    registered: Callable[[Registered], None]
    loud: bool


class Stream:
    """Where the records of this process go."""

    def __init__(self, origin: Origin, target: Target, outbox: Outbox, owner: Owner) -> None:
        """Register *outbox* with the agent, where there is one; the records wait in it where there is none."""
        self.outbox = outbox
        self.origin = replace(origin, outbox=outbox.path)
        self.run: str | None = None
        self.attempt = 0
        self.endpoint: str | None = None
        self._target = target
        self._owner = owner
        self.outbox.set_meta(self._meta())
        self.control = Control(
            Hooks(
                connect=owner.connect,
                register=self._register,
                lay=owner.lay,
                registered=self._registered,
                check=self._check,
                covers=lambda lease: lease.covers(self.origin.rank, self.origin.host),
                loud=owner.loud,
            )
        )
        self.control.open()
        self.control.start()

    def _meta(self) -> dict[str, Any]:
        """What whoever brings this outbox in must know; not the secret, which has a place of its own."""
        return {"endpoint": self.endpoint or self._target.collector, "origin": self.origin.as_map()}

    def _register(self) -> tuple[Register, int]:
        target = self._target
        message = Register(
            __version__,
            self.outbox.stream,
            self.origin.as_map(),
            target.collector,
            target.secret,
            target.secret_file,
            target.insecure,
            self.run or self.origin.run,
        )
        return message, self.outbox.fd

    def _registered(self, message: Registered) -> None:
        """The agent has said where the records go: the outbox names it too, for whoever brings it in."""
        news = (message.run, message.endpoint) != (self.run, self.endpoint)
        self.run, self.attempt, self.endpoint = message.run or self.run, message.attempt, message.endpoint
        if news:
            self.origin = replace(self.origin, run=self.run or self.origin.run)
            self.outbox.set_meta(self._meta())
        self._owner.registered(message)

    def _check(self) -> bool:
        self.outbox.trim()
        return self._owner.check()

    def relabel(self, origin: Origin) -> None:
        """A rank was learnt late: it labels the stream from its first record on."""
        self.origin = replace(origin, outbox=self.origin.outbox, run=self.run or origin.run)
        self.outbox.set_meta(self._meta())
        self.control.send(Relabel(self.origin.as_map()))

    def fail(self, exception: str) -> None:
        """An uncaught exception ends this process."""
        self.control.send(Failing(exception))

    def flush(self, timeout: float) -> bool:
        """Block until everything logged so far is acknowledged; return False after *timeout* seconds."""
        goal = self.outbox.head
        self.control.send(Flush(goal))
        return self._await(goal, monotonic() + timeout)

    def _await(self, goal: int, deadline: float) -> bool:
        look_s = LOOK_S
        while self.outbox.acknowledged < goal:
            if monotonic() >= deadline:
                return False
            sleep(look_s)
            look_s = min(look_s * 1.5, MAX_LOOK_S)
        return True

    def _await_progress(self, timeout: float) -> None:
        """Wait for acknowledgements while the agent is connected to a collector and gets on."""
        now = monotonic()
        deadline, heard_s, goal, before = now + timeout, now, self.outbox.head, -1
        while before < goal and now < deadline and self.control.state in ("greeting", "connected"):
            if (acknowledged := self.outbox.acknowledged) != before:
                before, heard_s = acknowledged, now
            if now - max(heard_s, self.control.heard_s) > ANSWER_S:
                return
            self._await(goal, min(now + MAX_LOOK_S, deadline))
            now = monotonic()

    def close(self, timeout: float, *, at_exit: bool = False) -> bool:
        """End the stream; return True where everything is acknowledged. What is not stays in the file.

        A rank waits while its agent is connected and makes progress, a helper not at all: the agent outlives both,
        unless the end of this process is the end of its container or its Slurm step. *at_exit* the outbox stays open:
        exit handlers that were registered before ours run after it, and may log.
        """
        if self.origin.helper is None and self.control.send(Flush(self.outbox.head)):
            self._await_progress(timeout)
        self.control.stop()
        self.control.send(Bye(self.outbox.head, "exit" if at_exit else "shutdown"))
        done = self.outbox.acknowledged >= self.outbox.head
        if at_exit:
            _close_late(self.outbox)
            return done  # the connection stays as well, until the process has ended
        self.control.close()
        self.outbox.close(delete=done)
        return done

    def abandon(self) -> None:
        """In a forked child: this is the parent's."""
        self.control.abandon()
        self.outbox.abandon()


def _close_late(outbox: Outbox) -> None:
    """Close *outbox* when exit handlers have run too: the interpreter then collects garbage once more, and tells.

    Where it does not (``gc.disable()``), the agent finds what is left when the process has ended.
    """

    def close(phase: str, _: object) -> None:
        if phase == "start" and sys.is_finalizing():
            gc.callbacks.remove(close)
            outbox.close(delete=False)

    gc.callbacks.append(close)
