"""The operator's side: a connection to a collector over which questions are asked and levels changed.

One thread at a time uses an `Operator`; each question waits for its answer.
"""

from __future__ import annotations

import getpass
import os
import socket as sockets
import time
from collections.abc import Sequence
from typing import Any, Final

from tlogs.access.discovery import Address
from tlogs.access.transport import Transport, why_unheard
from tlogs_shared.errors import AccessDenied, CollectorUnavailable, MessageError, ProtocolError, RequestRefused
from tlogs_shared.protocol import wire
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.messages import (
    Ask,
    Change,
    Fetch,
    Follow,
    Message,
    News,
    Page,
    Refused,
    Report,
    Stranger,
)
from tlogs_shared.protocol.rows import (
    ChangeReport,
    LeaseRow,
    LevelsReport,
    PeerRow,
    RanksReport,
    Row,
    RunRow,
    expect,
)
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.index_page import unpack_index
from tlogs_shared.storage.position import Position

__all__ = ["Operator", "author"]

CONNECT_S: Final = 2.0
"""Whoever listens has taken a connection long before; a person should not wait for the rest."""

ANSWER_S: Final = 5.0
"""A collector that is there answers a question within this time."""


def author() -> str:
    """Who asks, as it stands beside a lease: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return f"{user}@{sockets.gethostname()}"


class Operator:
    """A connection to a collector; a context manager that closes it."""

    def __init__(self, address: Address, *, timeout: float = ANSWER_S) -> None:
        """Connect.

        Raises:
            CollectorUnavailable: nobody answers there within *timeout* seconds.
            AccessDenied: the secret is wrong or missing.
        """
        self.address = address
        self._timeout = timeout
        self._number = 0
        self._news: list[News] = []
        self._following: str | bool | None = False
        self._transport = Transport(address)
        try:
            self._greet(time.monotonic() + timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Questions.

    def runs(self) -> list[RunRow]:
        """The runs that the collector stores.

        Raises:
            RequestRefused: the collector cannot answer; the text says why.
            ProtocolError: its answer is not what this version of tlogs expects.
            CollectorUnavailable: it does not answer.
        """
        return [self._expect(RunRow, row) for row in self._ask("runs")]

    def ranks(self, run: str | None = None, *, every_attempt: bool = False) -> RanksReport:
        """The ranks of *run* (None: the newest, a live one first), of their newest or of *every attempt*.

        Raises as `runs`.
        """
        found = self._expect(RanksReport, self._ask("attempts" if every_attempt else "ranks", run))
        found["rows"] = [self._expect(PeerRow, row) for row in found["rows"]]
        return found

    def levels(self, run: str | None = None) -> LevelsReport:
        """The leases in force in *run*, and what its ranks report of their levels; raises as `runs`."""
        found = self._expect(LevelsReport, self._ask("levels", run))
        found["leases"] = [self._expect(LeaseRow, row) for row in found["leases"]]
        return found

    def _ask(self, what: str, run: str | None = None) -> Any:
        number = self._next_number()
        return _data(self._request(Ask(number, what, run=run), number, self._timeout))

    def _expect(self, kind: type[Row], value: Any) -> Row:
        try:
            return expect(kind, value)
        except MessageError as error:
            raise ProtocolError(f"{self.address.endpoint}: {error}; install the same version of tlogs") from None

    def change(self, lease: Lease, *, run: str | None, timeout: float, once: str = "") -> ChangeReport:
        """Lay a lease and wait for the answers, for at most *timeout* seconds; the same *once* asks for the same lease.

        Raises:
            RequestRefused: nothing was changed; the text says why.
            CollectorUnavailable: the collector does not answer.
        """
        return self._change(run, timeout, lease=lease.as_map(), once=once)

    def reset(self, revisions: Sequence[int], *, run: str | None, timeout: float) -> ChangeReport:
        """End these leases, or all of them, and wait for the answers; raises as `change`."""
        return self._change(run, timeout, ends=list(revisions), author=author())

    def _change(self, run: str | None, timeout: float, **what: Any) -> ChangeReport:
        number = self._next_number()
        report = self._request(Change(number, run, timeout, **what), number, timeout + self._timeout)
        return self._expect(ChangeReport, _data(report))

    def fetch(self, run: str, segment: int, offset: int, size: int) -> bytes:
        """Bytes of a segment, fewer than *size* where it ends; raises as `runs`."""
        return self._fetch("bytes", run, segment, offset, size)

    def index(self, run: str, position: Position, limit: int = 4096) -> tuple[list[tuple[Header, Position]], Position]:
        """The headers of at most *limit* frames from *position* on, and where to go on; raises as `runs`."""
        return unpack_index(self._fetch("index", run, position.segment, position.offset, limit))

    def _fetch(self, what: str, run: str, segment: int, offset: int, size: int) -> bytes:
        number = self._next_number()
        answer = self._request(Fetch(number, run, what, segment, offset, size), number, self._timeout)
        if isinstance(answer, Report):
            raise RequestRefused(answer.error or "the collector sent no page")
        return answer.data

    # Following.

    def follow(self, run: str | None) -> None:
        """Be told of new records of *run* from now on (None: the newest live run; `*`: every run)."""
        self._following = run
        self._send(Follow(run), time.monotonic() + self._timeout)

    def news(self, timeout: float) -> News | None:
        """What is new, or None when *timeout* seconds have passed without news."""
        deadline = time.monotonic() + timeout
        while not self._news:
            message = self._receive(deadline)
            if message is None:
                return None
            if isinstance(message, News):
                self._news.append(message)
            elif isinstance(message, Stranger):
                self._greet(time.monotonic() + self._timeout)
                if self._following is not False:
                    assert self._following is not True
                    self.follow(self._following)
        return self._news.pop(0)

    def keep_alive(self) -> None:
        """Say hello again if the collector has been restarted meanwhile: it then does not know us."""
        self._send(Ask(self._next_number(), "hello"), time.monotonic())

    # The conversation.

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _greet(self, deadline: float) -> None:
        """Open the conversation, with the collector that is meant and no other."""
        number = self._next_number()
        self._send(Ask(number, "hello"), deadline)
        while (message := self._receive(deadline)) is not None:
            match message:
                case Report(number=answered, data=data) if answered == number:
                    return self._check(data)
                case News():
                    self._news.append(message)
                case _:
                    pass
        raise self._unavailable()

    def _check(self, data: Any) -> None:
        found = data.get("instance") if isinstance(data, dict) else None
        if self.address.instance not in ("", found):
            raise CollectorUnavailable(f"the collector at {self.address.endpoint} has been replaced by another")

    def _request(self, message: Ask | Change | Fetch, number: int, timeout: float) -> Report | Page:
        deadline = time.monotonic() + timeout
        self._send(message, deadline)
        while (answer := self._receive(deadline)) is not None:
            match answer:
                case Report(number=answered) | Page(number=answered) if answered == number:
                    return answer
                case News():
                    self._news.append(answer)
                case Stranger():
                    # It was restarted, and has not looked at what we sent.
                    self._greet(deadline)
                    self._send(message, deadline)
                case _:
                    pass
        raise CollectorUnavailable(f"the collector at {self.address.endpoint} did not answer within {timeout:g} s")

    def _send(self, message: Message, deadline: float) -> None:
        frame = wire.encode(message)
        while not self._transport.send(frame):
            left = min(deadline - time.monotonic(), CONNECT_S)
            if left <= 0 or not self._transport.wait(left, to_send=True):
                raise self._unavailable()

    def _unavailable(self) -> CollectorUnavailable:
        error = why_unheard(self.address)
        if isinstance(error, AccessDenied):
            return error
        return CollectorUnavailable(f"{error} ({self.address.how}); start one with: tlogs-collector")

    def _receive(self, deadline: float) -> Message | None:
        if not self._transport.wait(deadline - time.monotonic()) or (frame := self._transport.receive()) is None:
            return None
        try:
            message = wire.decode(frame)
        except wire.VersionError as error:
            raise ProtocolError(f"{self.address.endpoint}: {error}; install the same version of tlogs") from None
        except MessageError as error:
            raise ProtocolError(f"{self.address.endpoint}: {error}") from None
        if isinstance(message, Refused):
            if message.code == "access":
                raise AccessDenied(f"{self.address.endpoint}: {message.text}")
            raise ProtocolError(f"{self.address.endpoint}: {message.text}")
        return message


def _data(answer: Report | Page) -> Any:
    if isinstance(answer, Page):
        raise ProtocolError("a page came where a report was expected")
    if answer.error:
        raise RequestRefused(answer.error)
    return answer.data
