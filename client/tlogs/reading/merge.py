"""The streams of a run in one order: corrected time, then rank (none first), then number in the stream.

Theory of operation
-------------------
Within a stream time never goes back, so its frames, in the order of their numbers, are sorted already: a *lane*. What
a lane has not yet decoded cannot be older than its *bound*, which the next frame's header or the last decoded record
gives. All records below the lowest bound are in their final order once they are sorted, and can go out.

So the merge opens the lane with the lowest bound, decodes a piece of a batch, and goes on until as many records have
come in as were waiting; then it sorts once and releases those below the lowest bound. Sorting runs that are sorted
already is what `list.sort` is best at: it costs a fraction of a heap operation for each record.

Memory: 104 bytes for each frame; one unpacked batch for each stream with records at the time that is being merged; some
32 thousand decoded records.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from heapq import heapify, heappop, heapreplace
from operator import itemgetter
from typing import Final

from tlogs.reading.entry import Entry, Speaker
from tlogs.reading.filters import Filter, StreamFilter
from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.batch import Codec, Header, Kind, check_payload, pieces
from tlogs_shared.storage.position import Position
from tlogs_shared.storage.record import Fields

__all__ = ["Merge"]

_DECODED: Final = 32 * 1024
"""Records decoded ahead, all lanes together: enough that a sort is worth its call, some 30 MB."""

_SMALLEST_PIECE: Final = 64

Load = Callable[[Header, Position], "bytes | memoryview"]

_time = itemgetter(0)


class Merge:
    """Frames of many streams in, entries in order out.

    *load* gets the payload of a frame that `add` was given. `damaged` counts records in batches that could not be
    read.
    """

    def __init__(self, load: Load, choice: Filter | None = None, run: str = "") -> None:
        self._load = load
        self._filter = choice if choice is not None else Filter()
        self._run = run
        self._lanes: dict[bytes, _Lane] = {}
        self._ready: list[Entry] = []
        self.damaged = 0

    def label(self, streams: Mapping[bytes, StreamInfo]) -> None:
        """Apply what is known of the streams now. What was decoded before keeps its label."""
        chosen = self._filter.streams(streams)
        for stream, info in streams.items():
            lane = self._lanes.get(stream)
            if lane is None:
                lane = self._lanes[stream] = _Lane(Speaker(stream, info, self._run))
            elif lane.speaker.info != info:
                lane.relabel(Speaker(stream, info, self._run))
            lane.choice = chosen.get(stream)

    def add(self, header: Header, position: Position) -> None:
        """Note a frame.

        Frames of one stream come in the order of their numbers; records whose number came before are discarded.
        """
        if header.kind is not Kind.BATCH:
            return
        lane = self._lanes.get(header.stream)
        if lane is None:
            # A damaged store can have lost the frame that describes the stream. Its records are shown all the same.
            self.label({header.stream: StreamInfo(Origin(host=f"stream-{header.stream.hex()[:8]}", pid=0))})
            lane = self._lanes[header.stream]
        lane.add(header, position)

    @property
    def newest(self) -> int:
        """The newest corrected time in the frames of chosen streams, 0 where there are none."""
        return max(
            (lane.corrected(lane.last_ts) for lane in self._lanes.values() if lane.choice is not None), default=0
        )

    @property
    def missing(self) -> dict[Speaker, list[tuple[int, int]]]:
        """The numbers, as `(first, end)`, that no frame of a chosen stream has."""
        return {lane.speaker: lane.holes for lane in self._lanes.values() if lane.holes and lane.choice is not None}

    def take(self, horizon: int | None = None) -> Iterator[list[Entry]]:
        """Entries in order, in lists: all of them, or those up to the corrected time *horizon*."""
        lanes = list(self._lanes.values())
        heap = [(lane.bound, number) for number, lane in enumerate(lanes) if lane.advance()]
        heapify(heap)
        piece = max(_SMALLEST_PIECE, _DECODED // max(len(heap), 1))
        ready = self._ready
        stop = float("inf") if horizon is None else horizon + 1
        while True:
            goal = max(_DECODED // 4, len(ready))
            while heap and goal > 0:
                bound, number = heap[0]
                if bound >= stop:
                    break
                lane = lanes[number]
                goal -= self._decode(lane, piece)
                if lane.advance():
                    heapreplace(heap, (lane.bound, number))
                else:
                    heappop(heap)
            ready.sort()
            lowest: float = heap[0][0] if heap else stop
            cut = bisect_left(ready, min(stop, lowest), key=_time)
            if cut:
                out = ready[:cut]
                del ready[:cut]
                yield out
            if lowest >= stop:
                return

    def last(self, count: int, horizon: int | None = None) -> list[Entry]:
        """The last *count* entries up to the corrected time *horizon*, found from the end; others are discarded."""
        found, self._ready = self._ready, []
        lanes = [lane for lane in self._lanes.values() if lane.advance()]
        frames = [
            (lane.corrected(last_ts), number, index)
            for number, lane in enumerate(lanes)
            for index, last_ts in lane.wanted()
        ]
        frames.sort(key=_time)
        beyond: list[Entry] = []
        while frames:
            newest, number, index = frames.pop()
            enough = len(found) >= count and (count <= 0 or found[-count][0] > newest)
            if enough and (horizon is None or newest <= horizon):
                break
            lane = lanes[number]
            lane.open(index)
            while lane.is_open:
                self._decode(lane, _DECODED)
            found += self._ready
            self._ready.clear()
            found.sort()
            if horizon is not None:
                cut = bisect_left(found, horizon + 1, key=_time)
                beyond += found[cut:]
                del found[cut:]
            del found[: max(len(found) - count, 0)]
        for lane in lanes:
            lane.frames.clear()
        self._ready = beyond
        return found

    def _decode(self, lane: _Lane, piece: int) -> int:
        """Decode the next piece of a lane into `_ready`; return the number of records that were read."""
        try:
            return lane.decode(self._load, piece, self._ready)
        except (MessageError, StoreError):
            self.damaged += lane.give_up()
            return 0


class _Lane:
    """One stream: its frames in order, and how far the first of them is decoded."""

    def __init__(self, speaker: Speaker) -> None:
        self.choice: StreamFilter | None = None
        self.frames = _Frames()
        self.holes: list[tuple[int, int]] = []
        self.last_ts = 0
        self._next = 0
        self._pieces: Iterator[list[Fields]] | None = None
        self._header = Header(speaker.stream)
        self._position: Position | None = None
        self._first = self._number = self._newest = 0
        self.speaker = speaker
        self._rescued = replace(speaker, recovered=True)
        self._offset = speaker.info.offset_ns or 0

    def relabel(self, speaker: Speaker) -> None:
        """Name what is decoded from now on differently."""
        self.speaker = speaker
        self._rescued = replace(speaker, recovered=True)
        self._offset = speaker.info.offset_ns or 0

    def corrected(self, ts: int) -> int:
        """A time of the stream on the collector's clock."""
        return ts + self._offset

    def add(self, header: Header, position: Position) -> None:
        """Note a frame."""
        if header.end <= self._next:
            return
        if header.first > self._next:
            self.holes.append((self._next, header.first))
        self.frames.append(header, position, max(header.first, self._next))
        self._next = header.end
        self.last_ts = header.last_ts

    @property
    def is_open(self) -> bool:
        """Whether a batch is decoded in part."""
        return self._position is not None

    def advance(self) -> bool:
        """Skip the frames at the front that are not wanted; return True where something is left to decode."""
        choice, frames = self.choice, self.frames
        if choice is None:
            frames.clear()
            self._pieces = self._position = None  # and the rest of a batch that was chosen when it was begun
            return False
        if self._position is not None:
            return True
        while frames and not choice.span(*frames.span()):
            frames.skip()
        return bool(frames)

    @property
    def bound(self) -> int:
        """No record that is left to decode has an older corrected time. Only where something is left."""
        return self._newest if self._position is not None else self.corrected(self.frames.span()[1])

    def wanted(self) -> list[tuple[int, int]]:
        """The frames that are wanted: their places, and the time of their last record. Only where something is left."""
        choice = self.choice
        assert choice is not None, "only what was chosen is wanted"
        return [
            (index, last_ts)
            for index, (level, first_ts, last_ts) in self.frames.spans()
            if choice.span(level, first_ts, last_ts)
        ]

    def open(self, index: int | None = None) -> None:
        """Begin with a frame: the one at the place *index*, else the first, which is taken from the frames."""
        self._header, self._position, self._first = self.frames.take(self.speaker.stream, index)
        self._number = self._header.first
        self._newest = self.corrected(self._header.first_ts)

    def decode(self, load: Load, piece: int, into: list[Entry]) -> int:
        """Put the next piece into *into*; return the number of records that were read.

        Raises:
            MessageError: the batch is damaged.
            StoreError: it cannot be read.
        """
        assert self.choice is not None, "only what was chosen is decoded"
        if self._position is None:
            self.open()
        header, position = self._header, self._position
        assert position is not None
        if self._pieces is None:
            payload = load(header, position)
            check_payload(header, payload)
            self._pieces = pieces(header, payload, piece)
        found = next(self._pieces, None)
        if found is None:
            self._pieces = self._position = None
            return 0
        number, self._number = self._number, self._number + len(found)
        self._newest = self.corrected(found[-1].ts)
        speaker = self._rescued if header.recovered else self.speaker
        rank, offset, keep, first = speaker.rank, self._offset, self.choice.record, self._first
        if keep is None and number >= first:
            into += [(record[0] + offset, rank, seq, speaker, record) for seq, record in enumerate(found, number)]
        else:
            into += [
                (record[0] + offset, rank, seq, speaker, record)
                for seq, record in enumerate(found, number)
                if seq >= first and (keep is None or keep(record))
            ]
        return len(found)

    def give_up(self) -> int:
        """Skip the rest of the batch; return the number of its records."""
        self._pieces = self._position = None
        return self._header.end - self._number


class _Frames:
    """Frames of one stream that wait, oldest first, as plain numbers: a run can have millions of small ones."""

    _WIDTH: Final = 13

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._numbers)

    def append(self, header: Header, position: Position, first: int) -> None:
        """Note a frame of which the records from number *first* on are wanted."""
        self._numbers.extend(
            (
                header.level,
                header.first_ts,
                header.last_ts,
                header.first,
                header.count,
                header.raw_size,
                header.size,
                header.codec,
                header.recovered,
                header.payload_crc,
                position.segment,
                position.offset,
                first,
            )
        )

    def span(self) -> tuple[int, int, int]:
        """Highest level, first and last time of the first frame."""
        level, first_ts, last_ts = self._numbers[self._at : self._at + 3]
        return level, first_ts, last_ts

    def spans(self) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """All frames: their places, with the result of `span` for each."""
        numbers = self._numbers
        for at in range(self._at, len(numbers), self._WIDTH):
            yield at, (numbers[at], numbers[at + 1], numbers[at + 2])

    def take(self, stream: bytes, index: int | None) -> tuple[Header, Position, int]:
        """The frame at a place, or the first, which is removed; and the first number that is wanted."""
        at = self._at if index is None else index
        numbers = self._numbers[at : at + self._WIDTH]
        if index is None:
            self.skip()
        level, first_ts, last_ts, first, count, raw_size, size, codec, recovered, crc, segment, offset, wanted = numbers
        header = Header(
            stream=stream,
            codec=Codec(codec),
            recovered=bool(recovered),
            level=level,
            first=first,
            count=count,
            raw_size=raw_size,
            size=size,
            first_ts=first_ts,
            last_ts=last_ts,
            payload_crc=crc,
        )
        return header, Position(segment, offset), wanted

    def skip(self) -> None:
        """Discard the first frame."""
        self._at += self._WIDTH
        if self._at == len(self._numbers):
            self.clear()

    def clear(self) -> None:
        """Discard all frames."""
        self._numbers = array("Q")
        self._at = 0
