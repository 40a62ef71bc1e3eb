"""The socket: what it binds, what it refuses, and who may come through it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq
from tests.limits import scaled
from zmq.utils import z85

from tlogs_collector.listener import Listener
from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.secret import curve_seed

SECRET = b"a secret of this test, long enough"
PATIENCE_MS = int(scaled(10.0) * 1000)
REFUSED_MS = 300
"""A peer that is admitted is heard in a few milliseconds."""


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    found: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield found
    found.destroy(linger=0)


def peer_of(
    context: zmq.Context[zmq.Socket[bytes]], listener: Listener, secret: bytes | None = None
) -> zmq.Socket[bytes]:
    """A socket that connects to the listener, with keys where there is a secret."""
    peer = context.socket(zmq.DEALER)
    peer.linger = 0
    if secret is not None:
        own = z85.encode(curve_seed(secret, "peer"))
        peer.curve_secretkey, peer.curve_publickey = own, zmq.curve_public(own)
        peer.curve_serverkey = zmq.curve_public(z85.encode(curve_seed(secret, "collector")))
    peer.connect(f"tcp://127.0.0.1:{listener.endpoint.port}")
    return peer


def test_port_0_is_a_free_one_and_the_endpoint_says_which(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    listener = Listener(Endpoint("127.0.0.1", 0), None, asked=True)
    assert listener.endpoint.port > 0
    peer = peer_of(context, listener)
    peer.send(b"hello")
    assert listener.socket.poll(PATIENCE_MS)
    connection, message = listener.socket.recv_multipart()
    assert message == b"hello"
    listener.socket.send_multipart([connection, b"welcome"])
    assert peer.poll(PATIENCE_MS)
    assert peer.recv() == b"welcome"
    peer.close()
    listener.close()


def test_an_endpoint_that_was_asked_for_and_is_taken_is_an_error() -> None:
    first = Listener(Endpoint("127.0.0.1", 0), None, asked=True)
    with pytest.raises(
        ConfigError, match="it is taken; another collector may be running; choose another with --listen"
    ):
        Listener(first.endpoint, None, asked=True)
    first.close()


def test_an_endpoint_that_nobody_asked_for_gives_way_to_the_next_free_port() -> None:
    first = Listener(Endpoint("127.0.0.1", 0), None, asked=True)
    second = Listener(first.endpoint, None, asked=False)
    assert second.endpoint.port > first.endpoint.port
    first.close()
    second.close()


def test_an_address_that_is_not_this_machines_cannot_be_bound() -> None:
    with pytest.raises(
        ConfigError, match=r"cannot listen on tcp://192\.0\.2\.1:5655: .*; choose another with --listen"
    ):
        Listener(Endpoint("192.0.2.1", 5655), None, asked=True)


def test_a_message_to_nobody_is_an_error_and_does_not_vanish() -> None:
    listener = Listener(Endpoint("127.0.0.1", 0), None, asked=True)
    with pytest.raises(zmq.ZMQError) as raised:
        listener.socket.send_multipart([b"nobody", b""])
    assert raised.value.errno == zmq.EHOSTUNREACH
    listener.close()


@pytest.mark.parametrize(("secret", "is_admitted"), [(SECRET, True), (b"another secret", False), (None, False)])
def test_beyond_loopback_only_the_secret_comes_through(
    context: zmq.Context[zmq.Socket[bytes]], secret: bytes | None, is_admitted: bool
) -> None:
    listener = Listener(Endpoint("0.0.0.0", 0), SECRET, asked=True)
    peer = peer_of(context, listener, secret)
    peer.send(b"hello")
    assert bool(listener.socket.poll(PATIENCE_MS if is_admitted else REFUSED_MS)) is is_admitted
    peer.close()
    listener.close()
