"""The socket to a collector: one DEALER, with the options that keep it honest."""

from __future__ import annotations

from typing import Final

import zmq
from zmq.utils import z85

from tlogs_shared.endpoint import Endpoint
from tlogs_shared.errors import AccessDenied
from tlogs_shared.secret import curve_seed
from tlogs_shared.wire import MAX_FRAME_BYTES

__all__ = ["dial"]

RECONNECT_MS: Final = 100
MAX_RECONNECT_MS: Final = 5000
HANDSHAKE_MS: Final = 5000
HEARTBEAT_MS: Final = 5000
HEARTBEAT_TIMEOUT_MS: Final = 15000
"""ZeroMQ's own heartbeats are off by default, and a machine that vanished is then never noticed."""


def dial(context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint, secret: bytes | None) -> zmq.Socket[bytes]:
    """A socket that connects to *endpoint*, now or when somebody listens there.

    Raises:
        AccessDenied: the endpoint is on another machine and there is no secret to encrypt with.
    """
    socket = context.socket(zmq.DEALER)
    try:
        socket.linger = 0  # with the default, closing waits for ever for a peer that is gone
        # Nothing is queued for a peer that is not there: what was not sent stays in the outbox, where it is safe.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, MAX_RECONNECT_MS)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        if ":" in endpoint.host:
            socket.setsockopt(zmq.IPV6, 1)
        if not endpoint.is_loopback:
            if secret is None:
                raise AccessDenied(
                    f"{endpoint} is on another machine and there is no secret to encrypt with; "
                    "set TLOGS_SECRET_FILE to the file that the collector was given"
                )
            seed = curve_seed(secret, "peer")
            socket.curve_secretkey = z85.encode(seed)
            socket.curve_publickey = zmq.curve_public(z85.encode(seed))
            socket.curve_serverkey = zmq.curve_public(z85.encode(curve_seed(secret, "collector")))
        socket.connect(str(endpoint))
    except BaseException:
        socket.close()
        raise
    return socket
