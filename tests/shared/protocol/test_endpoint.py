"""Endpoints as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.endpoint import Endpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://127.0.0.1:5655", "127.0.0.1", 5655),
        ("node1:5655", "node1", 5655),
        (" node1.cluster:65535 ", "node1.cluster", 65535),
        ("tcp://[::1]:5655", "::1", 5655),
        ("*:0", "*", 0),
        ("0.0.0.0:*", "0.0.0.0", 0),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    found = Endpoint.parse(text, listening=True)
    assert found == Endpoint(host, port)
    assert Endpoint.parse(str(found), listening=True) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "node1", ":5655", "node1:", "node1:x", "node1:-1", "node1:65536", "node1:99999999999", "node1:٣"),
        *("::1:5655", "ipc:///tmp/x", "http://node1:80", "tcp://node1:80/x", "no de:80", "udp://x:1"),
    ],
)
def test_what_is_no_endpoint_says_what_one_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--listen .*expected tcp://HOST:PORT"):
        Endpoint.parse(text, source="--listen", listening=True)


@pytest.mark.parametrize("text", ["node1:0", "node1:*", "*:5655"])
def test_only_who_listens_may_leave_something_open(text: str) -> None:
    with pytest.raises(ConfigError, match="the host and port that the collector printed"):
        Endpoint.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_an_endpoint_or_a_config_error(text: str) -> None:
    try:
        found = Endpoint.parse(text, listening=True)
    except ConfigError:
        return
    assert Endpoint.parse(str(found), listening=True) == found


@pytest.mark.parametrize(
    ("host", "loopback", "wildcard"),
    [
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("::1", True, False),
        ("localhost", True, False),
        ("localhost.evil.org", False, False),
        ("10.0.0.1", False, False),
        ("node1", False, False),
        ("*", False, True),
        ("0.0.0.0", False, True),
        ("::", False, True),
    ],
)
def test_who_can_be_at_the_other_end(host: str, loopback: bool, wildcard: bool) -> None:
    """What is not loopback for certain is encrypted."""
    endpoint = Endpoint(host, 1)
    assert (endpoint.is_loopback, endpoint.is_wildcard) == (loopback, wildcard)
