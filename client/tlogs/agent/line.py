"""A worker's connection to the agent: messages in both directions and descriptors in one, never waiting."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from tlogs.access.agent_messages import Decoder, FromAgent, Message, Register, encode
from tlogs_shared.errors import MessageError

__all__ = ["Line"]

RECEIVE_BYTES: Final = 65536
MAX_DESCRIPTORS: Final = 4
MAX_WAITING: Final = 4 * 1024 * 1024
"""Bytes for a worker that does not read; beyond them the connection is ended, and the worker registers anew."""

SO_PEERPIDFD: Final = 77
"""A pidfd of who connected (Linux 6.5), also once it has been reaped (6.16); Python has no name for it yet."""

_CREDENTIALS: Final = struct.Struct("=iII")


class Line:
    """One connection. `pid` is 0 where its process cannot be seen from here, `uid` -1 where the system does not say."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._decoder = Decoder()
        self._waiting = bytearray()
        self._descriptors: list[int] = []
        self.pid, self.uid = _peer(connection)
        self.is_open = True

    def take_pidfd(self) -> int | None:
        """A pidfd of the process at the other end, which is the caller's; None where the system has none to give.

        Also of one that has no number here: it is in another namespace, or its parent has reaped it already.
        """
        try:
            fd = self._socket.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError:
            return None
        os.set_inheritable(fd, False)
        return fd

    @property
    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._socket.fileno()

    @property
    def has_waiting(self) -> bool:
        """True if `flush` has something to send once the connection takes more."""
        return bool(self._waiting)

    def receive(self) -> Iterator[tuple[Message, int | None]]:
        """What has arrived, each registration with the descriptor that came with it; at the end the line is closed.

        Raises:
            MessageError: what arrives is not a message.
        """
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                RECEIVE_BYTES, socket.CMSG_SPACE(MAX_DESCRIPTORS * 4), getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary, flags = b"", [], 0
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(content[: len(content) // found.itemsize * found.itemsize])
                self._descriptors += found
        if flags & socket.MSG_CTRUNC:
            raise MessageError("more descriptors than a registration has, or none left here")
        for message in self._decoder.feed(data):
            yield message, self._descriptors.pop(0) if isinstance(message, Register) and self._descriptors else None
        if not data:
            self.close()

    def send(self, message: FromAgent) -> None:
        """Send *message*, now or when the connection takes more."""
        if self.is_open:
            self._waiting += encode(message)
            self.flush()
            if len(self._waiting) > MAX_WAITING:
                self._waiting.clear()
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the other end was faster

    def flush(self) -> None:
        """Send what waits, as far as the connection takes it."""
        try:
            while self._waiting:
                del self._waiting[: self._socket.send(self._waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self._waiting.clear()  # the other end is closed; what it has said before is still to be read

    def close(self) -> None:
        """Close the connection."""
        if self.is_open:
            self.is_open = False
            self._socket.close()
            self._waiting.clear()
            for descriptor in self._descriptors:
                os.close(descriptor)
            self._descriptors.clear()


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as the kernel has it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return 0, -1
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid
