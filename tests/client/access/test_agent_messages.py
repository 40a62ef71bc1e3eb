"""What a worker and its agent say to each other, as bytes and back."""

from __future__ import annotations

from itertools import chain

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs.access import agent_messages as m
from tlogs_shared.errors import MessageError

MESSAGES: list[m.Message] = [
    m.Register("0.2", b"s" * 16, {"host": "n1", "pid": 3}, "n0:5655", "s" * 16, None, False, None),
    m.Register("0.2", b"s" * 16, {"host": "n1\udc80", "pid": 3}, "/runs", None, "/secret", True, "run"),
    m.Relabel({"rank": 3}),
    m.Applied(3, {3: ["applied", ""]}, b"report"),
    m.Failing("ValueError: loss is nan"),
    m.Flush(7),
    m.Bye(7, "exit"),
    m.Pong(1),
    m.Change(1, {"settings": {"c10d": 10}}, "x:1", 5.0),
    m.Drain(),
    m.Drained(),
    m.Registered(None, 0, None, "waiting"),
    m.Registered("run", 1, "tcp://n0:5655", "connected"),
    m.Settings(2, [{"revision": 1}]),
    m.Complain("access", "another secret"),
    m.Ping(1),
    m.Report(1, "", {"applied": "0-3"}),
]


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.integers(1, 40))
def test_messages_arrive_whole_however_the_bytes_are_cut(said: list[m.Message], size: int) -> None:
    """A stream socket delivers any part of what was sent."""
    data = b"".join(map(m.encode, said))
    decoder = m.Decoder()
    heard = chain.from_iterable(decoder.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert list(heard) == said


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    """Nothing but MessageError comes out of what is no message."""
    for part in (data, framed(data)):
        try:
            list(m.Decoder().feed(part))
        except MessageError:
            pass


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        [1],
        ["?"],
        ["P"],
        ["P", 1, 2],
        ["P", "1"],
        ["P", True],
        ["S", 1, {}],
        ["L", []],
        ["r", None, 0, None, None],
    ],
)
def test_a_message_of_another_form_is_refused(values: object) -> None:
    """Fields are counted and their types compared before anybody uses them."""
    with pytest.raises(MessageError):
        list(m.Decoder().feed(framed(msgpack.packb(values))))


def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept() -> None:
    """A peer cannot make the other side wait for, and hold, a gigabyte."""
    with pytest.raises(MessageError, match="at most"):
        list(m.Decoder().feed((m.MAX_BYTES + 1).to_bytes(4, "big")))
