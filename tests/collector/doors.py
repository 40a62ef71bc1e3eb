"""The two doors of a collector, and who stands before them: peers with the secret, without it, and strangers."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import zmq
from tests.limits import scaled
from zmq.utils import z85

from tlogs_collector.listener import Listener
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.secret import curve_seed
from tlogs_shared.unix_socket import open_private, short_path

__all__ = ["NULL_HANDSHAKE", "PATIENCE_S", "PING", "SECRET", "Peers", "listening", "parts", "raw", "receives"]

SECRET: Final = b"a secret of this test, long enough"
PATIENCE_S: Final = scaled(20.0)

# As the ZeroMQ message transport protocol has them.
_READY: Final = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
NULL_HANDSHAKE: Final = (
    (b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0")).ljust(64, b"\0")
    + bytes([4, len(_READY)])
    + _READY
)
"""A greeting and the command that ends the handshake of the mechanism that asks for nothing."""

PING: Final = b"\x04\x07\x04PING\x00\x0a"


def parts(count: int, *, more: bool) -> bytes:
    """Small frames; with *more* each says that its message goes on."""
    return bytes([more, 5, 2, ord("a"), 1, 2, 3]) * count


@contextmanager
def listening(root: Path, secret: bytes | None = SECRET, *, host: str = "127.0.0.1") -> Iterator[Listener]:
    """A listener with both doors, its unix socket below *root*."""
    listener = Listener(Endpoint(host, 0), secret, {"XDG_RUNTIME_DIR": str(root)}, asked=True)
    try:
        yield listener
    finally:
        listener.close()


class Peers:
    """Sockets that connect to a collector; a context manager that closes them."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        self._directories: list[int] = []

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *exc: object) -> None:
        for peer in self._sockets:
            peer.close()
        self._context.term()
        for directory in self._directories:
            os.close(directory)

    def local(self, path: str, identity: bytes = b"") -> zmq.Socket[bytes]:
        """One at the unix socket."""
        directory, name = os.path.split(path)
        self._directories.append(open_private(directory))
        return self._dial(f"ipc://{short_path(directory, self._directories[-1], name)}", None, identity)

    def tcp(self, port: int, secret: bytes | None, identity: bytes = b"") -> zmq.Socket[bytes]:
        """One over TCP, with the keys where there is a secret, else with the NULL mechanism."""
        return self._dial(f"tcp://127.0.0.1:{port}", secret, identity)

    def _dial(self, endpoint: str, secret: bytes | None, identity: bytes) -> zmq.Socket[bytes]:
        self._sockets.append(peer := self._context.socket(zmq.DEALER))
        peer.linger = 0
        if identity:
            peer.setsockopt(zmq.IDENTITY, identity)
        if secret is not None:
            own = z85.encode(curve_seed(secret, "peer"))
            peer.curve_secretkey, peer.curve_publickey = own, zmq.curve_public(own)
            peer.curve_serverkey = zmq.curve_public(z85.encode(curve_seed(secret, "collector")))
        peer.connect(endpoint)
        return peer


def raw(port: int) -> socket.socket:
    """A bare TCP connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def receives(listener: Listener, seconds: float = PATIENCE_S) -> tuple[bytes, bytes] | None:
    """What arrives at one of the doors next; None after *seconds*."""
    deadline = time.monotonic() + seconds
    while (found := listener.receive()) is None and (left := deadline - time.monotonic()) > 0:
        zmq.zmq_poll([(one, zmq.POLLIN) for one in listener.sockets.values()], int(left * 1000) + 1)
    return found
