"""The socket to a collector: one DEALER, with the options that keep it honest; and why nobody answers on it."""

from __future__ import annotations

import os
import socket as sockets
from typing import Final

import zmq
from zmq.utils import z85

from tlogs.access.discovery import Address
from tlogs_shared.errors import AccessDenied, CollectorUnavailable
from tlogs_shared.protocol.secret import curve_seed
from tlogs_shared.protocol.wire import MAX_FRAME_BYTES
from tlogs_shared.unix_socket import open_private, short_path

__all__ = ["Transport", "why_unheard"]

RECONNECT_MS: Final = 100
MAX_RECONNECT_MS: Final = 5000
HANDSHAKE_MS: Final = 5000

DESCRIPTORS: Final = 16
"""What a context with one socket opens, and some more: where there are not so many, ZeroMQ ends the whole process."""

PROBE_S: Final = 1.0
GREETING_BYTES: Final = 64


class Transport:
    """A connection to a collector, now or when somebody listens there, with a context of its own."""

    def __init__(self, address: Address) -> None:
        """Dial *address*: by its unix socket where it has one, else encrypted over TCP.

        Raises:
            CollectorUnavailable: this process has hardly any descriptors left, or the unix socket cannot be reached.
            AccessDenied: over TCP the collector's secret is needed, and there is none here.
        """
        _find_descriptors()
        self._directory_fd = -1
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self.socket = self._context.socket(zmq.DEALER)
        self.losses = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        """Readable when the connection was lost; see `was_lost`."""
        try:
            self._dial(address)
        except BaseException:
            self.close()
            raise

    def _dial(self, address: Address) -> None:
        socket = self.socket
        socket.linger = 0  # with the default, closing waits for ever for a peer that is gone
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, MAX_RECONNECT_MS)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        # No high-water mark below what a window allows, and no heartbeats of libzmq's; see `Listener`.
        socket.setsockopt(zmq.RCVHWM, 0)
        if address.socket:
            directory, name = os.path.split(address.socket)
            try:
                self._directory_fd = open_private(directory)
                path = short_path(directory, self._directory_fd, name)
            except OSError as error:
                raise CollectorUnavailable(
                    f"the collector's socket {address.socket}: {error.strerror or error}"
                ) from None
            socket.connect(f"ipc://{path}")
            return
        if ":" in address.endpoint.host:
            socket.setsockopt(zmq.IPV6, 1)
        if not address.insecure:
            if address.secret is None and address.endpoint.is_loopback:
                raise why_unheard(address)  # it may not have been started yet
            if address.secret is None:
                raise AccessDenied(
                    f"the collector at {address.endpoint} is none of yours on this machine, so its secret is needed: "
                    "set TLOGS_SECRET_FILE"
                )
            seed = curve_seed(address.secret, "peer")
            socket.curve_secretkey = z85.encode(seed)
            socket.curve_publickey = zmq.curve_public(z85.encode(seed))
            socket.curve_serverkey = zmq.curve_public(z85.encode(curve_seed(address.secret, "collector")))
        socket.connect(str(address.endpoint))

    def send(self, frame: bytes) -> bool:
        """Put *frame* on its way; return False where the socket does not take it at present."""
        try:
            self.socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> bytes | None:
        """The next frame; None where none has arrived. A message of several frames is none of ours: an empty frame."""
        try:
            frames = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return frames[0] if len(frames) == 1 else b""

    def wait(self, seconds: float, *, to_send: bool = False) -> bool:
        """Block until a frame has arrived (or one can be sent); return False after *seconds*."""
        return bool(self.socket.poll(int(max(seconds, 0.0) * 1000) + 1, zmq.POLLOUT if to_send else zmq.POLLIN))

    def was_lost(self) -> bool:
        """Return True if the connection was lost since this was last asked; ZeroMQ connects anew by itself."""
        found = False
        try:
            while True:
                self.losses.recv_multipart(zmq.NOBLOCK)
                found = True
        except zmq.Again:
            return found

    def close(self, linger_ms: int = 0) -> None:
        """Disconnect; what is on its way out has *linger_ms*."""
        self.socket.disable_monitor()
        self.losses.close(linger=0)
        self.socket.close(linger=linger_ms)
        self._context.term()
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
            self._directory_fd = -1


def _find_descriptors() -> None:
    found: list[int] = []
    try:
        while len(found) < DESCRIPTORS:
            found.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        text = f"no socket to a collector: {error.strerror}, {DESCRIPTORS} are needed; raise the limit (ulimit -n)"
        raise CollectorUnavailable(text) from None
    finally:
        for descriptor in found:
            os.close(descriptor)


def why_unheard(address: Address) -> CollectorUnavailable:
    """Why nobody answers at *address*, found out by a connection of its own; it takes two seconds at most.

    ZeroMQ keeps to itself what stands in its greeting, which names the mechanism that the other side insists on.
    """
    endpoint, secret = address.endpoint, address.secret
    if address.socket:
        return CollectorUnavailable(f"the collector at {address.socket} (process {address.pid}) does not answer")
    # Signature and version, as the ZeroMQ message transport protocol has them. No more: to a mechanism that it does not
    # like the other side gives no answer.
    ours = b"\xff\0\0\0\0\0\0\0\1\x7f\3"
    theirs = b""
    try:
        with sockets.create_connection((endpoint.host, endpoint.port), timeout=PROBE_S) as connection:
            connection.sendall(ours)
            while len(theirs) < GREETING_BYTES and (more := connection.recv(GREETING_BYTES - len(theirs))):
                theirs += more
    except ConnectionRefusedError:
        return CollectorUnavailable(f"no collector at {endpoint}: nothing listens there")
    except sockets.gaierror:
        return CollectorUnavailable(f"no collector at {endpoint}: no host of that name")
    except TimeoutError:
        text = "no answer; no route there, or a firewall" if not theirs else "what listens there is something else"
        return CollectorUnavailable(f"no collector at {endpoint}: {text}")
    except OSError as error:
        if not theirs:
            return CollectorUnavailable(f"no collector at {endpoint}: {error.strerror or error}")
    if len(theirs) < GREETING_BYTES or theirs[0] != 0xFF:
        return CollectorUnavailable(f"no collector at {endpoint}: what listens there is something else")
    mechanism = theirs[12:32].rstrip(b"\0")
    if mechanism == b"NULL":
        if address.insecure:
            return CollectorUnavailable(f"the collector at {endpoint} does not answer")
        return AccessDenied(
            f"what listens at {endpoint} requires no secret, so it is not your collector, or was started with "
            "--insecure: to use it, set TLOGS_INSECURE=1"
        )
    if address.insecure:
        return AccessDenied(f"the collector at {endpoint} requires a secret: it was not started with --insecure")
    if secret is None:
        return AccessDenied(
            f"the collector at {endpoint} requires a secret, and none is set here: set TLOGS_SECRET_FILE"
        )
    return AccessDenied(
        f"the collector at {endpoint} has a different secret than this process: compare the secret files"
    )
