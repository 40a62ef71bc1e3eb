"""Where a run's frames come from: its directory, or the collector that has it.

Both give the same bytes. A directory is read through `tlogs.reading.archive.RunArchive`, which is a `Source` as it
stands.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

from tlogs_shared.errors import CollectorUnavailable, MessageError
from tlogs_shared.protocol.messages import News
from tlogs_shared.storage.batch import HEADER_BYTES, Header
from tlogs_shared.storage.position import START, Position

__all__ = ["Informant", "RemoteSource", "Source", "Watch", "after", "polled", "told"]


class Source(Protocol):
    """A run that can be read, and read on while it grows."""

    @property
    def name(self) -> str:
        """The run's name."""

    def frames(self, position: Position = START, /) -> Iterable[tuple[Header, Position]]:
        """The frames from *position* on, each with its own position; payloads are not read."""

    def payload(self, header: Header, position: Position, /) -> bytes:
        """The payload of the frame at *position*.

        Raises:
            MessageError: it is damaged.
            StoreError: it is no longer there.
        """

    def is_live(self) -> bool:
        """Whether more may come."""


Watch = Callable[[float], "News | None"]
"""`watch(timeout)`: waits that many seconds at most for news; None where there are none."""


def after(header: Header, position: Position) -> Position:
    """Where the frame at *position* ends."""
    return Position(position.segment, position.offset + HEADER_BYTES + header.size)


def polled(source: Source, period_s: float = 0.1, sleep: Callable[[float], None] = time.sleep) -> Watch:
    """A watch over a directory whose collector cannot be asked: it looks again every *period_s*."""

    def watch(timeout: float) -> News | None:
        sleep(min(timeout, period_s))
        return News(source.name, 0, 0, 0, source.is_live(), closing=False)

    return watch


class Informant(Protocol):
    """What is needed of a connection to a collector: `tlogs.access.connection.Operator` has it."""

    def follow(self, run: str | None) -> None:
        """Be told of new records."""

    def news(self, timeout: float) -> News | None:
        """What is new, None where *timeout* seconds passed without news."""

    def poke(self) -> None:
        """Make a collector that was restarted know us again.

        Raises:
            CollectorUnavailable: it is not there.
        """

    def fetch(self, run: str, segment: int, offset: int, size: int) -> bytes:
        """Bytes of a segment."""

    def index(self, run: str, position: Position) -> tuple[Sequence[tuple[Header, Position]], Position]:
        """Headers of frames, and where to go on."""


_POKE_S: Final = 2.0
_GONE_S: Final = 10.0
"""A collector that was killed may be started again; whoever follows a run waits so long for that."""


def told(informant: Informant, run: str, clock: Callable[[], float] = time.monotonic) -> Watch:
    """A watch that a collector's news feed; `*` are all its runs. It ends when the collector is away for 10 s."""
    informant.follow(run)
    poked = heard = clock()

    def watch(timeout: float) -> News | None:
        nonlocal poked, heard
        try:
            news = informant.news(min(timeout, _POKE_S))
            if news is None and clock() - poked > _POKE_S:
                poked = clock()
                informant.poke()
                heard = poked
        except CollectorUnavailable:
            news = None
        if news is not None:
            heard = clock()
        elif clock() - heard > _GONE_S:
            return News(run, 0, 0, 0, live=False, closing=True)
        return news

    return watch


_PAGE_BYTES: Final = 512 * 1024
_PAGES_KEPT: Final = 16
"""Batches of many ranks that speak at one time lie near each other, not one behind the other."""


class RemoteSource:
    """A run that a collector has, read over a connection to it."""

    def __init__(self, informant: Informant, name: str) -> None:
        self.name = name
        self.informant = informant
        self._pages: OrderedDict[Position, bytes] = OrderedDict()

    def is_live(self) -> bool:
        """True: the collector itself says when it ends."""
        return True

    def frames(self, position: Position = START, /) -> Iterator[tuple[Header, Position]]:
        """The frames from *position* on."""
        while True:
            found, onward = self.informant.index(self.name, position)
            yield from found
            if not found and onward <= position:
                return
            position = onward

    def payload(self, header: Header, position: Position, /) -> bytes:
        """The payload of the frame at *position*, from a page that was fetched already where there is one.

        Raises:
            MessageError: the collector has no such bytes.
        """
        start = Position(position.segment, position.offset + HEADER_BYTES)
        for page, data in self._pages.items():
            skip = start.offset - page.offset
            if page.segment == start.segment and skip >= 0 and skip + header.size <= len(data):
                self._pages.move_to_end(page)
                return data[skip : skip + header.size]
        data = b""
        while len(data) < header.size:
            at = start.offset + len(data)
            more = self.informant.fetch(self.name, start.segment, at, max(header.size - len(data), _PAGE_BYTES))
            if not more:
                raise MessageError(f"the collector has no more of segment {start.segment} from {at} on")
            data += more
        self._pages[start] = data
        if len(self._pages) > _PAGES_KEPT:
            self._pages.popitem(last=False)
        return data[: header.size]
