"""The doors: a unix socket for this user's processes on this machine, and a TCP port for everybody with the secret.

libzmq parses nothing of a stranger's but a CURVE handshake: behind the unix socket's directory there are no strangers,
and on TCP, loopback as well, nobody is heard who has not the one key that the secret gives. ``--insecure`` opens the
TCP port to everybody.
"""

from __future__ import annotations

import os
import resource
import secrets
import threading
from collections.abc import Mapping
from typing import Any, Final

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.secret import curve_seed
from tlogs_shared.protocol.wire import MAX_FRAME_BYTES
from tlogs_shared.unix_socket import open_private, short_path, socket_directories

__all__ = ["Listener", "raise_file_limit"]

BACKLOG: Final = 4096
"""A job of thousands of hosts connects within one second."""

HANDSHAKE_MS: Final = 5000
PORTS_TRIED: Final = 100
ZAP_DOMAIN: Final = "tlogs"


class Listener:
    """Two bound ROUTER sockets. A connection is named by a byte for its door and the socket's routing id."""

    def __init__(self, endpoint: Endpoint, secret: bytes | None, environ: Mapping[str, str], *, asked: bool) -> None:
        """Bind; an endpoint that nobody *asked* for gives way to the next free port.

        `endpoint` is then where it listens, `path` the unix socket, "" where none can be made.

        Raises:
            ConfigError: the endpoint cannot be bound.
        """
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self.context.max_sockets = 65536
        self._authenticator: ThreadAuthenticator | None = None
        self._directory_fd = -1
        self.path = ""
        self.sockets: dict[bytes, zmq.Socket[bytes]] = {}
        try:
            self._open_local(environ)
            self.sockets[b"t"] = tcp = self._router()
            if ":" in endpoint.host:
                tcp.setsockopt(zmq.IPV6, 1)
            if secret is not None:
                self._encrypt(tcp, secret)
            self.endpoint = _bind(tcp, endpoint, asked=asked)
        except BaseException:
            self.close()
            raise

    def _router(self) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.ROUTER)
        socket.linger = 0
        # Without it a message to a peer that is gone vanishes without a word.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.BACKLOG, BACKLOG)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        # No high-water mark and no heartbeats of libzmq's: with both, a ROUTER that was stopped for some time under
        # load ends the process on an assertion. What a peer may have under way is bounded by its window.
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        return socket

    def _open_local(self, environ: Mapping[str, str]) -> None:
        # A random name: libzmq takes a path that another collector listens on without a word.
        name = f"d-{secrets.token_hex(8)}"
        for directory in socket_directories(environ):
            try:
                fd = open_private(directory)
            except OSError:
                continue
            socket = self._router()
            try:
                socket.bind(f"ipc://{short_path(directory, fd, name)}")
            except (zmq.ZMQError, OSError):
                socket.close()
                os.close(fd)
                continue
            self.sockets[b"u"], self._directory_fd, self.path = socket, fd, os.path.join(directory, name)
            return

    def _encrypt(self, socket: zmq.Socket[bytes], secret: bytes) -> None:
        """CURVE: only who has the secret can derive the one key that is admitted."""
        admitted = zmq.curve_public(z85.encode(curve_seed(secret, "peer")))

        class OnlyHolders:
            def callback(self, domain: str, key: bytes) -> bool:
                return secrets.compare_digest(key, admitted)

        self._authenticator = ThreadAuthenticator(self.context)
        self._authenticator.start()
        provider: Any = OnlyHolders()
        self._authenticator.configure_curve_callback(domain=ZAP_DOMAIN, credentials_provider=provider)
        own = z85.encode(curve_seed(secret, "collector"))
        socket.curve_secretkey = own
        socket.curve_publickey = zmq.curve_public(own)
        socket.curve_server = True
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN.encode())

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next message, as its connection and frame, of the door whose turn it is; None where none has arrived.

        A message of more than one frame is no message of ours: it is returned as an empty frame.
        """
        for door in list(self.sockets):
            try:
                connection, *frames = self.sockets[door].recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                continue
            self.sockets[door] = self.sockets.pop(door)  # the other door is next
            return door + connection, frames[0] if len(frames) == 1 else b""
        return None

    def send(self, connection: bytes, frame: bytes) -> bool:
        """Put *frame* on its way; return False where that connection is gone.

        One that does not read loses it: what it missed is sent again with the next heartbeat.
        """
        try:
            self.sockets[connection[:1]].send_multipart([connection[1:], frame], zmq.NOBLOCK)
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True

    def close(self) -> None:
        """Close the sockets; what is on its way out has half a second."""
        for socket in self.sockets.values():
            socket.close(linger=500)
        if self.path:
            try:
                os.unlink(os.path.basename(self.path), dir_fd=self._directory_fd)  # libzmq leaves it there
            except FileNotFoundError:
                pass  # its directory is removed when the user logs out
            self.path = ""
        if self._authenticator is not None:
            self._authenticator.stop()
        # A term that found a socket open would wait for ever; it must not keep the daemon from ending.
        closer = threading.Thread(target=self.context.term, daemon=True)
        closer.start()
        closer.join(2.0)
        if self._directory_fd >= 0 and not closer.is_alive():
            os.close(self._directory_fd)
            self._directory_fd = -1


def _bind(socket: zmq.Socket[bytes], endpoint: Endpoint, *, asked: bool) -> Endpoint:
    ports = range(endpoint.port, endpoint.port + (1 if asked else PORTS_TRIED))
    for port in ports:
        candidate = Endpoint(endpoint.host, port)
        try:
            socket.bind(str(candidate))
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or asked:
                why = "it is taken; another collector may be running" if error.errno == zmq.EADDRINUSE else str(error)
                raise ConfigError(f"cannot listen on {candidate}: {why}; choose another with --listen") from None
            continue
        bound = socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        return Endpoint(endpoint.host, int(bound.decode().rstrip("\0").rpartition(":")[2]))
    raise ConfigError(f"no free port from {ports[0]} to {ports[-1]}; choose one with --listen")


def raise_file_limit() -> None:
    """Let this process have as many open files as it may: each rank is a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS says unlimited and allows less
            pass
