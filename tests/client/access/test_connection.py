"""The operator's side of the conversation, over a real socket with a collector that says what the test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest
import zmq

from tlogs.access.connection import Operator, author
from tlogs.access.discovery import Address
from tlogs_shared.errors import AccessDenied, CollectorUnavailable, ConfigError, ProtocolError
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.rows import ChangeReport, RanksReport
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.index_page import pack_index
from tlogs_shared.storage.position import Position

SECRET = b"what only friends know"
RANKS: Final[RanksReport] = {"run": "run", "rows": [], "refused": None}
CHANGED: Final[ChangeReport] = {
    "run": "run",
    "revision": 3,
    "until_ns": None,
    "ended": [],
    "applied": "0",
    "ignored": {},
    "failed": {},
    "silent": "",
    "took_ms": 1.5,
}
Said = Callable[[m.Message], Sequence[m.Message | list[bytes]]]


class Collector:
    """Answers each message with what `says` returns; `heard` is what came."""

    def __init__(self) -> None:
        self.says: Said = greet
        self.heard: list[m.Message] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self.endpoint = Endpoint("127.0.0.1", self._socket.bind_to_random_port("tcp://127.0.0.1"))
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            if self._socket.poll(20):
                connection, frame = self._socket.recv_multipart()
                message = wire.decode(frame)
                self.heard.append(message)
                for answer in self.says(message):
                    sent = answer if isinstance(answer, list) else [wire.encode(answer)]
                    self._socket.send_multipart([connection, *sent])

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()
        self._context.term()


def greet(message: m.Message) -> list[m.Message | list[bytes]]:
    """Let everybody in, and answer each question."""
    match message:
        case m.Ask(number=number, what="ranks"):
            return [m.Report(number, "", RANKS)]
        case m.Ask(number=number):
            return [m.Report(number, "", {})]
        case m.Change(number=number):
            return [m.Report(number, "", CHANGED)]
        case _:
            return []


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


@pytest.fixture
def dial(collector: Collector) -> Iterator[Callable[..., Operator]]:
    """Connects to the collector."""
    opened: list[Operator] = []

    def connect(timeout: float = 5.0) -> Operator:
        address = Address(collector.endpoint, None, "here", "none", insecure=True)
        opened.append(Operator(address, timeout=timeout))
        return opened[-1]

    yield connect
    for operator in opened:
        operator.close()


def test_a_question_gets_its_own_answer(collector: Collector, dial: Any) -> None:
    """Answers to earlier questions, and news, are not taken for it."""
    operator = dial()
    news = m.News("run", 1, 2, 3, True, False)
    collector.says = lambda message: [m.Report(0, "", "old"), news, news, *greet(message)]
    assert operator.ranks("run") == RANKS
    assert collector.heard[-1] == m.Ask(2, "ranks", "run")
    assert [operator.news(0.0) for _ in range(3)] == [news, news, None]


def test_a_report_of_an_error_is_raised(collector: Collector, dial: Any) -> None:
    operator = dial()
    collector.says = lambda message: [m.Report(message.number, "no such run", None)]  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="no such run"):
        operator.ranks()
    with pytest.raises(ConfigError, match="no such run"):
        operator.fetch("run", 1, 0, 10)


def test_a_collector_of_another_life_is_not_asked(collector: Collector) -> None:
    """Whoever took the place of the one that the notice names is told nothing."""
    address = Address(collector.endpoint, None, "here", "none", instance="that life", insecure=True)
    with pytest.raises(CollectorUnavailable, match="has been replaced by another"):
        Operator(address)
    assert [type(message).__name__ for message in collector.heard] == ["Ask"]


def test_without_a_secret_nothing_is_sent_over_tcp(collector: Collector) -> None:
    """To be let in without one has to be asked for on both sides."""
    with pytest.raises(AccessDenied, match="requires no secret"):
        Operator(Address(collector.endpoint, None, "here", "none"))
    with pytest.raises(AccessDenied, match=r"requires no secret, so it is not your collector.*TLOGS_INSECURE=1"):
        Operator(Address(collector.endpoint, SECRET, "here", "argument"), timeout=0.3)
    assert collector.heard == []


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (m.Refused(b"", "access", "wrong"), AccessDenied, "wrong"),
        (m.Refused(b"", "protocol", "garbage"), ProtocolError, "garbage"),
        ([b"\x01r"], ProtocolError, "install the same version"),
        ([b"x"], ProtocolError, "two bytes"),
        ([b"\x02?", b"more"], ProtocolError, "two bytes"),
    ],
)
def test_a_collector_that_says_no_or_nonsense_is_told_apart(
    answer: Any, error: type[Exception], text: str, collector: Collector, dial: Any
) -> None:
    collector.says = lambda _: [answer]
    with pytest.raises(error, match=text):
        dial()


def test_a_collector_that_does_not_answer_is_unavailable(collector: Collector, dial: Any) -> None:
    operator = dial(timeout=0.3)
    collector.says = lambda _: []
    with pytest.raises(CollectorUnavailable, match=r"did not answer within 0\.3 s"):
        operator.ranks()
    with pytest.raises(CollectorUnavailable, match=r"collector at .*"):
        dial(timeout=0.1)


def test_where_nobody_listens_no_collector_is_there(collector: Collector) -> None:
    endpoint = collector.endpoint
    collector.close()
    collector.close = lambda: None  # type: ignore[method-assign]
    with pytest.raises(CollectorUnavailable, match=r"nothing listens there \(from here\); start one with"):
        Operator(Address(endpoint, None, "here", "none", insecure=True), timeout=0.2)


def test_a_collector_that_was_restarted_is_greeted_and_asked_again(collector: Collector, dial: Any) -> None:
    operator = dial()
    has_forgotten = iter([True])
    collector.says = lambda message: [m.Stranger()] if next(has_forgotten, False) else greet(message)
    assert operator.ranks() == RANKS
    kinds = [message.what for message in collector.heard if isinstance(message, m.Ask)]
    assert kinds == ["hello", "ranks", "hello", "ranks"]


def test_a_follower_says_again_whom_it_follows_after_a_restart(collector: Collector, dial: Any) -> None:
    operator = dial()
    news = m.News("run", 1, 2, 3, True, False)
    has_forgotten = iter([True])

    def restarted(message: m.Message) -> Sequence[m.Message | list[bytes]]:
        if next(has_forgotten, False):
            return [m.Stranger()]
        return [news] if isinstance(message, m.Follow) else greet(message)

    operator.follow("run")
    while not isinstance(collector.heard[-1], m.Follow):
        assert operator.news(0.01) is None
    collector.says = restarted
    operator.keep_alive()
    assert operator.news(5.0) == news
    assert collector.heard[-1] == m.Follow("run")


def test_changes_carry_their_author_and_wait_as_long_as_they_say(collector: Collector, dial: Any) -> None:
    operator = dial()
    lease = Lease(0, {"c10d": 10}, author="ann")
    assert operator.change(lease, run="run", timeout=2.0, once="a") == CHANGED
    operator.reset([1, 2], run=None, timeout=3.0)
    assert collector.heard[1:] == [
        m.Change(2, "run", 2.0, lease=lease.as_map(), once="a"),
        m.Change(3, None, 3.0, ends=[1, 2], author=author()),
    ]


def test_bytes_and_indexes_are_fetched(collector: Collector, dial: Any) -> None:
    operator = dial()
    frames, end = [(Header(b"s" * 16), Position(1, 0))], Position(1, 99)

    def pages(message: m.Message) -> list[m.Message | list[bytes]]:
        assert isinstance(message, m.Fetch)
        return [m.Page(message.number, b"bytes" if message.what == "bytes" else pack_index(frames, end))]

    collector.says = pages
    assert operator.fetch("run", 1, 0, 10) == b"bytes"
    assert operator.index("run", Position(1, 5), 7) == (frames, end)
    assert collector.heard[-1] == m.Fetch(3, "run", "index", 1, 5, 7)
    collector.says = lambda message: [m.Page(message.number, b"")]  # type: ignore[union-attr]
    with pytest.raises(ProtocolError, match="a page came where a report was expected"):
        operator.ranks()


@pytest.mark.parametrize("answer", ["ranks", {"run": "run", "rows": []}, {**RANKS, "rows": [{"rank": 0}]}])
def test_an_answer_of_another_version_ends_in_a_sentence(collector: Collector, dial: Any, answer: Any) -> None:
    operator = dial()
    collector.says = lambda message: [m.Report(message.number, "", answer)]  # type: ignore[union-attr]
    with pytest.raises(ProtocolError, match=r"expected a (Rank|Peer).*install the same version of tlogs"):
        operator.ranks()
