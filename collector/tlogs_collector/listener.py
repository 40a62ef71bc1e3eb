"""The socket that ranks and operators connect to: one ROUTER, with the options that keep it honest."""

from __future__ import annotations

import resource
import secrets
import threading
from typing import Any, Final

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.secret import curve_seed
from tlogs_shared.protocol.wire import MAX_FRAME_BYTES

__all__ = ["Listener", "raise_file_limit"]

BACKLOG: Final = 4096
"""A job of thousands of ranks connects within one second."""

HANDSHAKE_MS: Final = 5000
HEARTBEAT_MS: Final = 5000
HEARTBEAT_TIMEOUT_MS: Final = 15000
RECEIVE_MESSAGES: Final = 64
"""What one peer may have waiting here; an honest one is bounded by its window long before."""

PORTS_TRIED: Final = 100
ZAP_DOMAIN: Final = "tlogs"


class Listener:
    """A bound ROUTER socket, encrypted unless only this machine can reach it."""

    def __init__(self, endpoint: Endpoint, secret: bytes | None, *, asked: bool) -> None:
        """Bind; an endpoint that nobody *asked* for gives way to the next free port.

        Raises:
            ConfigError: the endpoint cannot be bound.
        """
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self.context.max_sockets = 65536
        self._authenticator: ThreadAuthenticator | None = None
        self.socket = socket = self.context.socket(zmq.ROUTER)
        socket.linger = 0
        # Without it a message to a peer that is gone vanishes without a word.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.BACKLOG, BACKLOG)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_MESSAGES)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        if ":" in endpoint.host:
            socket.setsockopt(zmq.IPV6, 1)
        try:
            if secret is not None and not endpoint.is_loopback:
                self._encrypt(secret)
            self.endpoint = self._bind(endpoint, asked=asked)
        except BaseException:
            self.close()
            raise

    def _bind(self, endpoint: Endpoint, *, asked: bool) -> Endpoint:
        ports = range(endpoint.port, endpoint.port + (1 if asked else PORTS_TRIED))
        for port in ports:
            candidate = Endpoint(endpoint.host, port)
            try:
                self.socket.bind(str(candidate))
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE or asked:
                    why = (
                        "it is taken; another collector may be running" if error.errno == zmq.EADDRINUSE else str(error)
                    )
                    raise ConfigError(f"cannot listen on {candidate}: {why}; choose another with --listen") from None
                continue
            bound = self.socket.getsockopt(zmq.LAST_ENDPOINT)
            assert isinstance(bound, bytes)
            return Endpoint(endpoint.host, int(bound.decode().rstrip("\0").rpartition(":")[2]))
        raise ConfigError(f"no free port from {ports[0]} to {ports[-1]}; choose one with --listen")

    def _encrypt(self, secret: bytes) -> None:
        """CURVE both ways: only who has the secret can derive the one key that is admitted."""
        admitted = zmq.curve_public(z85.encode(curve_seed(secret, "peer")))

        class OnlyHolders:
            def callback(self, domain: str, key: bytes) -> bool:
                return secrets.compare_digest(key, admitted)

        self._authenticator = ThreadAuthenticator(self.context)
        self._authenticator.start()
        provider: Any = OnlyHolders()
        self._authenticator.configure_curve_callback(domain=ZAP_DOMAIN, credentials_provider=provider)
        own = z85.encode(curve_seed(secret, "collector"))
        self.socket.curve_secretkey = own
        self.socket.curve_publickey = zmq.curve_public(own)
        self.socket.curve_server = True
        self.socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN.encode())

    def close(self) -> None:
        """Close the socket; what is on its way out has half a second."""
        self.socket.close(linger=500)
        if self._authenticator is not None:
            self._authenticator.stop()
        # A term that found a socket open would wait for ever; it must not keep the daemon from ending.
        closer = threading.Thread(target=self.context.term, daemon=True)
        closer.start()
        closer.join(2.0)


def raise_file_limit() -> None:
    """Let this process have as many open files as it may: each rank is a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS says unlimited and allows less
            pass
