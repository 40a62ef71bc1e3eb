"""The socket to a collector: one DEALER, with the options that keep it honest; and why nobody answers on it."""

from __future__ import annotations

import os
import socket as sockets
from typing import Final

import zmq
from zmq.utils import z85

from tlogs_shared.errors import AccessDenied, CollectorUnavailable
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.secret import curve_seed
from tlogs_shared.protocol.wire import MAX_FRAME_BYTES

__all__ = ["dial", "why_unheard"]

RECONNECT_MS: Final = 100
MAX_RECONNECT_MS: Final = 5000
HANDSHAKE_MS: Final = 5000
HEARTBEAT_MS: Final = 5000
HEARTBEAT_TIMEOUT_MS: Final = 15000
"""ZeroMQ's own heartbeats are off by default, and a machine that vanished is then never noticed."""

DESCRIPTORS: Final = 16
"""What a context with one socket opens, and some more: where there are not so many, ZeroMQ ends the whole process."""

PROBE_S: Final = 1.0
GREETING_BYTES: Final = 64


def dial(context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint, secret: bytes | None) -> zmq.Socket[bytes]:
    """A socket that connects to *endpoint*, now or when somebody listens there.

    To another machine it is encrypted, unless there is no secret: the collector may be one that asks for none.

    Raises:
        CollectorUnavailable: this process has hardly any descriptors left.
    """
    _find_descriptors()
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
        if secret is not None and not endpoint.is_loopback:
            seed = curve_seed(secret, "peer")
            socket.curve_secretkey = z85.encode(seed)
            socket.curve_publickey = zmq.curve_public(z85.encode(seed))
            socket.curve_serverkey = zmq.curve_public(z85.encode(curve_seed(secret, "collector")))
        socket.connect(str(endpoint))
    except BaseException:
        socket.close()
        raise
    return socket


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


def why_unheard(endpoint: Endpoint, secret: bytes | None) -> CollectorUnavailable:
    """Why nobody answers at *endpoint*, found out by a connection of its own; it takes two seconds at most.

    ZeroMQ keeps to itself what stands in its greeting, which names the mechanism that the other side insists on.
    """
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
    if theirs[12:32].rstrip(b"\0") != b"CURVE":
        return CollectorUnavailable(f"the collector at {endpoint} does not answer")
    if secret is None:
        return AccessDenied(
            f"the collector at {endpoint} requires a secret, and none is set here: set TLOGS_SECRET_FILE"
        )
    if endpoint.is_loopback:
        return AccessDenied(
            f"the collector at {endpoint} is encrypted: use the endpoint that it printed when it started"
        )
    return AccessDenied(
        f"the collector at {endpoint} has a different secret than this process: compare the secret files"
    )
