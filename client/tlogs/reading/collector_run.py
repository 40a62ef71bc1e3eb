"""A run that a collector has, read over a connection to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from tlogs.reading.verify import Verification
from tlogs_shared.errors import MessageError
from tlogs_shared.protocol.messages import News
from tlogs_shared.protocol.rows import RunRow
from tlogs_shared.storage.batch import HEADER_BYTES, Header, check_payload
from tlogs_shared.storage.position import START, Position

__all__ = ["CollectorRun", "Connection"]


class Connection(Protocol):
    """The part of a connection to a collector that readers need; `tlogs.access.connection.Operator` has it.

    Each raises CollectorUnavailable where the collector does not answer.
    """

    def runs(self) -> list[RunRow]:
        """The runs that the collector stores."""

    def follow(self, run: str | None, /) -> None:
        """Subscribe to the news of a run."""

    def news(self, timeout: float, /) -> News | None:
        """Block until there is news; return None after *timeout* seconds without."""

    def keep_alive(self) -> None:
        """Make a collector that was restarted know this connection again."""

    def fetch(self, run: str, segment: int, offset: int, size: int, /) -> bytes:
        """Bytes of a segment."""

    def index(self, run: str, position: Position, /) -> tuple[Sequence[tuple[Header, Position]], Position]:
        """Headers of frames, and where to go on."""


_PAGE_BYTES: Final = 512 * 1024
_PAGES_KEPT: Final = 16
"""Batches of many ranks that log at the same time are near each other, not adjacent."""


class CollectorRun:
    """A run that a collector has."""

    path = None
    """It cannot be reached from here."""

    def __init__(self, connection: Connection, row: RunRow) -> None:
        """*row* is the collector's row for this run in its list of runs."""
        self.name = str(row["name"])
        self.created_ns = int(row["created_ns"])
        self._live = not row["over"]
        self._connection = connection
        self._pages: OrderedDict[Position, bytes] = OrderedDict()

    def is_called(self, text: str, /) -> bool:
        """Whether *text* is the run's name."""
        return text == self.name

    def is_live(self) -> bool:
        """Whether it was live when the collector was asked; from then on its news tell."""
        return self._live

    def size(self) -> int:
        """The size of the run's frames, in bytes."""
        return sum(HEADER_BYTES + header.size for header, _ in self.frames())

    def removed(self) -> int:
        """Not known here: what was removed counts as lost."""
        return 0

    def verify(self) -> Verification:
        """Fetch every payload, check it, and compare every stream's numbers."""
        found = Verification()
        for header, position in self.frames():
            found.count(header)
            try:
                check_payload(header, self.payload(header, position))
            except MessageError as error:
                found.fault(f"frame at {position}: {error}")
        return found

    def frames(self, position: Position = START, /) -> Iterator[tuple[Header, Position]]:
        """The frames from *position* on."""
        while True:
            found, onward = self._connection.index(self.name, position)
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
            more = self._connection.fetch(self.name, start.segment, at, max(header.size - len(data), _PAGE_BYTES))
            if not more:
                raise MessageError(f"the collector has no more of segment {start.segment} from {at} on")
            data += more
        self._pages[start] = data
        if len(self._pages) > _PAGES_KEPT:
            self._pages.popitem(last=False)
        return data[: header.size]
