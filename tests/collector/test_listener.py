"""The doors: what is bound, what is refused, and who may come through which."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collector.doors import NULL_HANDSHAKE, PATIENCE_S, PING, SECRET, Peers, listening, parts, raw, receives

from tlogs_collector.listener import Listener
from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.endpoint import Endpoint

REFUSED_S = 0.3
"""A peer that is admitted is heard in a few milliseconds."""

PATIENCE_MS = int(PATIENCE_S * 1000)


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Peers that are gone after the test."""
    with Peers() as found:
        yield found


# What is bound.


def test_port_0_is_a_free_one_and_the_endpoint_says_which(tmp_path: Path, peers: Peers) -> None:
    with listening(tmp_path) as listener:
        assert listener.endpoint.port > 0
        peer = peers.tcp(listener.endpoint.port, SECRET)
        peer.send(b"hello")
        found = receives(listener)
        assert found is not None
        connection, frame = found
        assert frame == b"hello"
        assert listener.send(connection, b"welcome")
        assert peer.poll(PATIENCE_MS)
        assert peer.recv_multipart() == [b"welcome"]


def test_an_endpoint_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    expected = "it is taken; another collector may be running; choose another with --listen"
    with listening(tmp_path) as first, pytest.raises(ConfigError, match=expected):
        Listener(first.endpoint, SECRET, {"XDG_RUNTIME_DIR": str(tmp_path)}, asked=True)


def test_an_endpoint_that_nobody_asked_for_gives_way_to_the_next_free_port(tmp_path: Path) -> None:
    with listening(tmp_path) as first:
        second = Listener(first.endpoint, SECRET, {"XDG_RUNTIME_DIR": str(tmp_path)}, asked=False)
        assert second.endpoint.port > first.endpoint.port
        assert second.path != first.path, "two collectors of one user do not meet"
        second.close()


def test_an_address_that_is_not_this_machines_cannot_be_bound(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot listen on tcp://192\.0\.2\.1:5655: .*; choose another with --listen"
    ):
        Listener(Endpoint("192.0.2.1", 5655), SECRET, {"XDG_RUNTIME_DIR": str(tmp_path)}, asked=True)


def test_the_unix_socket_lies_in_a_directory_of_this_users_alone(tmp_path: Path) -> None:
    with listening(tmp_path) as listener:
        assert os.path.dirname(listener.path) == str(tmp_path / "tlogs")
        assert (tmp_path / "tlogs").stat().st_mode & 0o777 == 0o700
        assert os.path.exists(listener.path)


def test_a_path_longer_than_a_socket_may_have_is_no_matter(tmp_path: Path, peers: Peers) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with listening(deep) as listener:
        peers.local(listener.path).send(b"hello")
        found = receives(listener)
        assert found is not None
        assert found[1] == b"hello"


@pytest.mark.parametrize("how", ["open", "link"])
def test_a_directory_that_others_may_enter_holds_no_door(tmp_path: Path, how: str) -> None:
    """The next place is taken; a link is not followed, wherever it leads."""
    taken, beside = tmp_path / "tlogs", tmp_path / "outboxes"
    if how == "open":
        taken.mkdir(mode=0o755)
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        taken.symlink_to(tmp_path / "elsewhere")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "TLOGS_OUTBOX_DIR": str(beside)}
    listener = Listener(Endpoint("127.0.0.1", 0), SECRET, environ, asked=True)
    assert os.path.dirname(listener.path) == str(beside)
    assert list(taken.iterdir()) == []
    listener.close()


# Who comes in.


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(("secret", "is_admitted"), [(SECRET, True), (b"another secret", False), (None, False)])
def test_over_tcp_only_the_secret_comes_through(
    tmp_path: Path, peers: Peers, host: str, secret: bytes | None, is_admitted: bool
) -> None:
    """On loopback as on any interface: whose process is there is not known."""
    with listening(tmp_path, host=host) as listener:
        peer = peers.tcp(listener.endpoint.port, secret)
        peer.send(b"hello")
        assert (receives(listener, PATIENCE_S if is_admitted else REFUSED_S) is not None) is is_admitted


def test_who_listens_for_all_has_asked_for_it(tmp_path: Path, peers: Peers) -> None:
    """`--insecure`: no keys; who comes with some is not understood."""
    with listening(tmp_path, None) as listener:
        peers.tcp(listener.endpoint.port, SECRET).send(b"with a key")
        peers.tcp(listener.endpoint.port, None).send(b"without")
        found = receives(listener)
        assert found is not None
        assert found[1] == b"without"
        assert receives(listener, REFUSED_S) is None


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(NULL_HANDSHAKE + parts(20, more=False) + PING, id="messages-and-a-ping"),
        pytest.param(NULL_HANDSHAKE + parts(2000, more=True), id="half-a-message-of-many-parts"),
        pytest.param(NULL_HANDSHAKE, id="a-handshake-and-silence"),
        pytest.param(b"", id="silence"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another-protocol"),
        pytest.param(NULL_HANDSHAKE[:12] + b"CURVE".ljust(52, b"\0") + b"\x04\xff" + bytes(255), id="no-curve"),
    ],
)
def test_nothing_of_a_strangers_is_parsed(tmp_path: Path, peers: Peers, written: bytes) -> None:
    """Whatever it sends without the key, nothing arrives, and who has the key is served meanwhile."""
    with listening(tmp_path) as listener:
        strangers = [raw(listener.endpoint.port) for _ in range(50)]
        for stranger in strangers:
            stranger.sendall(written)
        for stranger in strangers[:25]:
            stranger.close()
        for peer in (peers.tcp(listener.endpoint.port, SECRET), peers.local(listener.path)):
            peer.send(b"hello")
            found = receives(listener)
            assert found is not None
            assert found[1] == b"hello"
        assert receives(listener, REFUSED_S) is None
        for stranger in strangers[25:]:
            stranger.close()


# Messages.


def test_a_message_of_several_frames_is_none_of_ours(tmp_path: Path, peers: Peers) -> None:
    """From who is admitted too; it counts as an empty one, which the protocol refuses."""
    with listening(tmp_path) as listener:
        for peer in (peers.tcp(listener.endpoint.port, SECRET), peers.local(listener.path)):
            peer.send_multipart([b"\x02B", b"and more"])
            peer.send(b"one")
            assert [found[1] for found in (receives(listener), receives(listener)) if found] == [b"", b"one"]


def test_a_name_at_one_door_is_another_at_the_other(tmp_path: Path, peers: Peers) -> None:
    """A peer chooses its routing id itself: each is answered by its own door."""
    with listening(tmp_path) as listener:
        first, second = peers.tcp(listener.endpoint.port, SECRET, b"same"), peers.local(listener.path, b"same")
        first.send(b"first")
        second.send(b"second")
        found = dict(one[::-1] for one in (receives(listener), receives(listener)) if one)
        assert found[b"first"] != found[b"second"]
        for peer, said in ((first, b"first"), (second, b"second")):
            assert listener.send(found[said], b"to the " + said)
            assert peer.poll(PATIENCE_MS)
            assert peer.recv() == b"to the " + said


def test_the_doors_take_turns(tmp_path: Path, peers: Peers) -> None:
    """Who floods one door does not keep the other waiting."""
    with listening(tmp_path) as listener:
        flood, other = peers.local(listener.path), peers.tcp(listener.endpoint.port, SECRET)
        other.send(b"other")
        assert listener.sockets[b"t"].poll(PATIENCE_MS)
        for _ in range(10):
            flood.send(b"flood")
        assert listener.sockets[b"u"].poll(PATIENCE_MS)
        assert b"other" in [found[1] for found in (receives(listener), receives(listener)) if found]


@pytest.mark.parametrize("door", [b"u", b"t"])
def test_a_message_to_nobody_does_not_vanish(tmp_path: Path, door: bytes) -> None:
    with listening(tmp_path) as listener:
        assert not listener.send(door + b"nobody", b"")


def test_a_frame_that_is_too_large_ends_that_connection_and_no_other(tmp_path: Path, peers: Peers) -> None:
    with listening(tmp_path) as listener:
        large, other = peers.local(listener.path), peers.local(listener.path)
        large.send(bytes(64 << 20))
        other.send(b"hello")
        found = receives(listener)
        assert found is not None
        assert found[1] == b"hello"
        assert receives(listener, REFUSED_S) is None


def test_a_closed_listener_leaves_no_socket_behind(tmp_path: Path) -> None:
    with listening(tmp_path) as listener:
        path = listener.path
    assert not os.path.exists(path)
    assert listener.context.closed
