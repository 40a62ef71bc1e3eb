"""The control thread: this process's side of its conversation with the agent of its host.

Theory of operation
-------------------
Records do not pass here: the agent reads them from the outbox. What does pass is who this process is, which leases
hold, and how it ends. The thread sleeps in a poll of one socket until the agent says something or a lease ends, so an
idle process makes no system call. Leases are held here and end by this process's own clock: with the agent stopped,
killed or never started as well.

The thread is raw, and from modules that nobody patched: a program may join every thread that `threading` knows, count
them, or run under gevent. It starts with all signals blocked but those of a fault, so that none is delivered to it.
Therefore nothing on it may call `threading.current_thread` (logging does, and leaves a dummy behind that cannot be
joined): its records go straight into the outbox and its complaints to descriptor 2.

No call here waits for the agent. A socket that takes nothing counts as no agent, and what was not said is said again
by the next registration, which carries all there is to know.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Final

from tlogs.access.agent_messages import (
    Applied,
    Change,
    Complain,
    Decoder,
    Ping,
    Pong,
    Register,
    Registered,
    Report,
    Settings,
    ToAgent,
    encode,
)
from tlogs.outbox.descriptors import Descriptor
from tlogs.worker.held_leases import HeldLeases
from tlogs.worker.originals import original
from tlogs_shared.errors import MessageError
from tlogs_shared.protocol.lease import Lease

__all__ = ["Control", "Hooks"]

_thread = original("_thread")
_select = original("select")
_socket = original("_socket")

RETRY_S: Final = 10.0
"""Without an agent one is looked for this often."""

CHECK_S: Final = 1.0
"""Where one of the seams in torch is missing, levels are compared this often."""

ANSWER_S: Final = 1.0
"""An agent that says nothing for this long, when asked, counts as none."""

VANISH_S: Final = 0.05
STOP_S: Final = 1.0
"""How long the end of the thread is waited for: a lease may be about to be applied."""

LOCK_S: Final = 0.2
"""A signal handler that interrupted a sender finds the lock held by its own thread."""

RECEIVE_BYTES: Final = 65536

FAULT_SIGNALS: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})
"""Never blocked: faulthandler prints nothing for a signal that its thread blocks."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the control thread calls in its owner, always on its own thread.

    `connect` returns the descriptor of a connection to the agent, or None; `register` says who this process is and
    which descriptor is its outbox; `lay` applies the leases in force and returns the answers and the report (`began`
    and `ended` are worth a record each); `registered` hears where the records go; `check` compares levels, and returns
    True while that has to be done every second; `covers` tells whether a lease is about this process.
    """

    connect: Callable[[], int | None]
    register: Callable[[], tuple[Register, int]]
    lay: Callable[[Sequence[Lease], Sequence[Lease], Sequence[Lease]], tuple[Mapping[int, Sequence[str]], bytes]]
    registered: Callable[[Registered], None]
    check: Callable[[], bool]
    covers: Callable[[Lease], bool]
    loud: bool = True


class Control:
    """The conversation with the agent.

    `state` is `none`, `greeting` until the agent has answered, then the agent's: `waiting`, `connected` or `refused`.
    `heard_s` is when the agent last said something, in seconds of the monotonic clock.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._held = HeldLeases()
        self._revision = 0
        self._decoder = Decoder()
        self._rest = b""
        self._descriptor: Descriptor | None = None
        self._socket: Any = None
        self._wake_out: Descriptor | None = None
        self._wake_in: Descriptor | None = None
        self._sending = _thread.allocate_lock()
        self._done = _thread.allocate_lock()
        self._id = 0
        self._is_running = False
        self._is_ending = False
        self._retry_s = 0.0
        self._complained: set[str] = set()
        self._numbers = 0
        self._reports: dict[int, tuple[Any, list[Report]]] = {}
        self.state = "none"
        self.heard_s = 0.0

    # From any thread.

    def open(self) -> bool:
        """Connect to the agent and register; return False where there is none."""
        self._retry_s = monotonic() + RETRY_S
        fd = self._hooks.connect()
        if fd is None:
            return False
        try:
            descriptor = Descriptor(fd)
        except OSError:
            return False
        connection = _socket.socket(fileno=descriptor.number)
        register, outbox = self._hooks.register()
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, outbox.to_bytes(4, sys.byteorder))]
        data = encode(register)
        try:
            sent = connection.sendmsg([data], rights, _socket.MSG_DONTWAIT)
        except OSError:
            connection.close()
            return False
        with self._sending:
            self._rest, self._decoder = data[sent:], Decoder()
            self._descriptor, self._socket, self.state = descriptor, connection, "greeting"
        return True

    def send(self, message: ToAgent) -> bool:
        """Say *message* to the agent; return False where there is none that takes it. Never waits for the agent."""
        if not self._sending.acquire(True, LOCK_S):
            return False
        try:
            return self._find_socket() and self._write(self._rest + encode(message))
        finally:
            self._sending.release()

    def ask(self, lease: Lease, once: str, timeout: float) -> Report | None:
        """Have the collector apply *lease*; return its answer, or None after *timeout* seconds (0: at once)."""
        self._numbers += 1
        number, done, found = self._numbers, _thread.allocate_lock(), list[Report]()
        done.acquire()
        if timeout > 0:
            self._reports[number] = done, found
        try:
            if self.send(Change(number, lease.as_map(), once, timeout)) and timeout > 0:
                done.acquire(True, timeout + ANSWER_S)
        finally:
            self._reports.pop(number, None)
        return found[0] if found else None

    def start(self) -> None:
        """Begin the thread, if it does not run; where none can be started leases are not applied, records are sent."""
        if self._is_running or self._is_ending:
            return
        try:
            self._keep_wake()
        except OSError:
            return  # no descriptor is free: as without a thread
        self._done.acquire(False)
        # A new thread inherits the mask of the one that starts it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - FAULT_SIGNALS)
        try:
            self._is_running = True
            _thread.start_new_thread(self._work, ())
        except RuntimeError:  # no more threads for this process, or the interpreter is going down
            self._is_running = False
            _release(self._done)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def stop(self) -> bool:
        """End the thread and wait for that; return False where it did not end in time. `start` begins another."""
        if not self._is_running:
            return True
        self._is_ending = True
        self._wake()
        ended: bool = self._done.acquire(True, STOP_S)
        if ended:
            _release(self._done)
            # The kernel counts it a moment longer, and the interpreter asks the kernel.
            deadline = monotonic() + VANISH_S
            while os.path.exists(f"/proc/self/task/{self._id}") and monotonic() < deadline:
                sleep(0)
        self._is_ending = False
        return ended

    def close(self) -> None:
        """Disconnect; the agent sends what the outbox still holds."""
        with self._sending:
            self._disconnect()
        for descriptor in (self._wake_in, self._wake_out):
            if descriptor is not None:
                descriptor.close()
        self._wake_in = self._wake_out = None

    def abandon(self) -> None:
        """In a forked child: the connection is the parent's, and the thread did not come along."""
        self._sending = _thread.allocate_lock()
        self._is_running = False
        self.close()

    # The wake-up: a byte in a pipe ends the thread's poll.

    def _keep_wake(self) -> None:
        """Have a pipe to wake the thread by; a program that closes all descriptors has closed the one before."""
        if self._wake_out is None or not self._wake_out.is_ours:
            out, into = os.pipe()
            self._wake_out, self._wake_in = Descriptor(out), Descriptor(into)
            os.set_blocking(self._wake_out.number, False)
            os.set_blocking(self._wake_in.number, False)

    def _wake(self) -> None:
        if self._wake_in is not None and self._wake_in.is_ours:
            try:
                os.write(self._wake_in.number, b".")
            except OSError:
                pass  # it is full, so the thread is being woken

    # The socket, under `_sending`.

    def _find_socket(self) -> bool:
        """Return whether there is a connection; its number may lead to a file of the program's by now."""
        if self._descriptor is None:
            return False
        if self._descriptor.is_ours:
            return True
        self._socket.detach()
        self._forget()
        return False

    def _disconnect(self) -> None:
        if self._find_socket():
            self._socket.close()
            self._forget()

    def _forget(self) -> None:
        self._descriptor = self._socket = None
        self._rest, self.state = b"", "none"

    def _write(self, data: bytes) -> bool:
        try:
            self._rest = data[self._socket.send(data, _socket.MSG_DONTWAIT) :]
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS):
                self._disconnect()
            return False
        return True

    # The thread.

    def _work(self) -> None:
        self._id = _thread.get_native_id()
        try:
            while not self._is_ending:
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001 - the thread's outermost loop: the job must not notice
                    self._complain("fault", f"an internal error in the control thread: {error!r}; records are kept")
                    self._wait(monotonic() + RETRY_S)
        finally:
            self._is_running = False
            _release(self._done)

    def _turn(self) -> None:
        now = monotonic()
        if ended := self._held.expire(now):
            self._lay([], ended)
        due_s = [now + CHECK_S] if self._hooks.check() else []
        if (end := self._held.next_end_s) is not None:
            due_s.append(end)
        if self._descriptor is None:
            if now >= self._retry_s:
                self.open()
                return
            due_s.append(self._retry_s)
        self._wait(min(due_s, default=None))
        if not self._is_ending:
            self._receive()

    def _wait(self, due_s: float | None) -> None:
        """Sleep until something has arrived, somebody wakes this thread, or *due_s* has come."""
        self._keep_wake()
        assert self._wake_out is not None
        poll = _select.poll()
        poll.register(self._wake_out.number, _select.POLLIN)
        if self._descriptor is not None:
            poll.register(self._descriptor.number, _select.POLLIN | (_select.POLLOUT if self._rest else 0))
        found = dict(poll.poll(None if due_s is None else max(due_s - monotonic(), 0.0) * 1000 + 1))
        if self._wake_out.number in found and self._wake_out.is_ours:
            try:
                os.read(self._wake_out.number, 4096)
            except BlockingIOError:
                pass

    def _receive(self) -> None:
        with self._sending:
            if not self._find_socket():
                return
            if self._rest:
                self._write(self._rest)
            try:
                data = b"" if self._socket is None else self._socket.recv(RECEIVE_BYTES, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:  # the agent has gone; another may be there already
                self._disconnect()
                self._retry_s = monotonic()
                return
        self.heard_s = monotonic()
        try:
            for message in self._decoder.feed(data):
                self._handle(message)
        except MessageError as error:
            self._complain("protocol", f"the agent of this host sent what cannot be read: {error}")
            with self._sending:
                self._disconnect()

    def _handle(self, message: Any) -> None:
        match message:
            case Settings(revision, leases):
                self._set(revision, leases)
            case Ping(number):
                self.send(Pong(number))
            case Registered():
                self.state = message.state
                self._hooks.registered(message)
            case Complain(code, text):
                self._complain(code, text)
            case Report(number, error):
                done, found = self._reports.get(number, (None, None))
                if done is not None and found is not None:
                    found.append(message)
                    _release(done)
                elif error:  # nobody waits for the result, so nobody else would hear of it
                    self._complain(f"broadcast {number}", f"broadcast: {error}")
            case _:
                pass  # of a newer agent

    # Leases.

    def _set(self, revision: int, leases: Sequence[Mapping[str, Any]]) -> None:
        began, ended = self._held.replace([Lease.from_map(dict(values)) for values in leases], monotonic())
        self._revision = revision
        self._lay(began, ended)

    def _lay(self, began: Sequence[Lease], ended: Sequence[Lease]) -> None:
        covers = self._hooks.covers
        mine = [[lease for lease in some if covers(lease)] for some in (self._held.leases, began, ended)]
        answers, report = self._hooks.lay(*mine)
        self.send(Applied(self._revision, answers, report))

    # Words.

    def _complain(self, code: str, text: str) -> None:
        """Tell the person at the terminal, once a kind and once a host."""
        if code in self._complained or not self._hooks.loud or sys.__stderr__ is None:
            return
        self._complained.add(code)
        try:
            os.write(2, f"tlogs: {text}\n".encode(errors="backslashreplace"))
        except OSError:
            pass


def _release(lock: Any) -> None:
    try:
        lock.release()
    except RuntimeError:
        pass  # it was not held
