"""The streams of a run in one order: corrected time, then rank (none first), then number in the stream.

Theory of operation
-------------------
Within a stream time never goes back, so its frames, in the order of their numbers, are sorted already: a *lane*. What
a lane has not yet decoded cannot be older than its *bound*, which the next frame's header or the last decoded record
gives. All records below the lowest bound are in their final order once they are sorted, and can go out.

So the merge opens the lane with the lowest bound, decodes a piece of a batch, and goes on until as many records have
come in as were waiting; then it sorts once and lets go what lies below the lowest bound. Sorting runs that are sorted
already is what `list.sort` is best at: it costs a fraction of a heap operation for each record.

Memory: the headers of the chosen frames; one unpacked batch for each stream that speaks at the time that is being
merged; some 32 thousand decoded records.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from heapq import heapify, heappop, heapreplace
from operator import itemgetter
from typing import Final, Generic, TypeVar

from tlogs_shared.batch import Header, Kind, check_payload, pieces
from tlogs_shared.entry import Entry, Speaker
from tlogs_shared.errors import MessageError, StoreError
from tlogs_shared.filters import Filter, StreamFilter
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.record import Fields

__all__ = ["Merge"]

P = TypeVar("P")

_DECODED: Final = 32 * 1024
"""Records decoded ahead, all lanes together: enough that a sort is worth its call, some 30 MB."""

_SMALLEST_PIECE: Final = 64

_time = itemgetter(0)


class Merge(Generic[P]):
    """Frames of many streams in, entries in order out.

    *load* gets the payload of a frame that `add` was given. `damaged` counts records in batches that could not be
    read; `newest` is the newest corrected time in the chosen frames.
    """

    def __init__(
        self, load: Callable[[Header, P], bytes | memoryview], choice: Filter | None = None, run: str = ""
    ) -> None:
        self._load = load
        self._filter = choice if choice is not None else Filter()
        self._run = run
        self._lanes: dict[bytes, _Lane[P]] = {}
        self._ready: list[Entry] = []
        self.damaged = 0
        self.newest = 0

    def label(self, streams: Mapping[bytes, StreamInfo]) -> None:
        """Take over what is known of the streams now. What was decoded before keeps its label."""
        chosen = self._filter.streams(streams)
        for stream, info in streams.items():
            lane = self._lanes.get(stream)
            if lane is None:
                lane = self._lanes[stream] = _Lane(Speaker(stream, info, self._run))
            elif lane.speaker.info != info:
                lane.relabel(Speaker(stream, info, self._run))
            lane.choice = chosen.get(stream)

    def add(self, header: Header, position: P) -> None:
        """Note a frame.

        Frames of one stream come in the order of their numbers; what has a number that came before is dropped.
        """
        if header.kind is not Kind.BATCH:
            return
        lane = self._lanes.get(header.stream)
        if lane is None:
            # A damaged store can have lost the frame that describes the stream. Its records are shown all the same.
            self.label({header.stream: StreamInfo(Origin(host=f"stream-{header.stream.hex()[:8]}", pid=0))})
            lane = self._lanes[header.stream]
        if lane.add(header, position):
            self.newest = max(self.newest, lane.corrected(header.last_ts))

    @property
    def missing(self) -> dict[Speaker, list[tuple[int, int]]]:
        """The numbers, as `(first, end)`, that the frames of a chosen stream pass over."""
        return {lane.speaker: lane.holes for lane in self._lanes.values() if lane.holes and lane.choice is not None}

    def take(self, horizon: int | None = None) -> Iterator[list[Entry]]:
        """Entries in order, in lists: all that there are, or those up to the corrected time *horizon*."""
        lanes = list(self._lanes.values())
        heap = [(lane.bound, number) for number, lane in enumerate(lanes) if lane.busy]
        heapify(heap)
        piece = max(_SMALLEST_PIECE, _DECODED // max(len(heap), 1))
        ready = self._ready
        stop = float("inf") if horizon is None else horizon + 1
        while True:
            goal = max(_DECODED // 4, len(ready))
            while heap and goal > 0 and heap[0][0] < stop:
                lane = lanes[heap[0][1]]
                goal -= self._decode(lane, piece)
                if lane.busy:
                    heapreplace(heap, (lane.bound, heap[0][1]))
                else:
                    heappop(heap)
            ready.sort()
            limit = min(stop, heap[0][0]) if heap else stop
            cut = bisect_left(ready, limit, key=_time)
            if cut:
                out = ready[:cut]
                del ready[:cut]
                yield out
            if not heap or heap[0][0] >= stop:
                return

    def last(self, count: int, horizon: int | None = None) -> list[Entry]:
        """The last *count* entries up to the corrected time *horizon*, found from the end; earlier ones are gone."""
        found, self._ready = self._ready, []
        lanes = [lane for lane in self._lanes.values() if lane.busy]
        frames = [
            (lane.corrected(frame[0].last_ts), number, frame)
            for number, lane in enumerate(lanes)
            for frame in lane.frames
        ]
        frames.sort(key=_time)
        for lane in lanes:
            lane.frames.clear()
        beyond: list[Entry] = []
        while frames:
            newest, number, frame = frames.pop()
            enough = len(found) >= count and (count <= 0 or found[-count][0] > newest)
            if enough and (horizon is None or newest <= horizon):
                break
            lane = lanes[number]
            lane.frames.append(frame)
            while lane.busy:
                self._decode(lane, _DECODED)
            found += self._ready
            self._ready.clear()
            found.sort()
            if horizon is not None:
                cut = bisect_left(found, horizon + 1, key=_time)
                beyond += found[cut:]
                del found[cut:]
            del found[: max(len(found) - count, 0)]
        self._ready = beyond
        return found

    def _decode(self, lane: _Lane[P], piece: int) -> int:
        """Decode the next piece of a lane into `_ready`; the number of records that were read."""
        try:
            return lane.decode(self._load, piece, self._ready)
        except (MessageError, StoreError):
            self.damaged += lane.give_up()
            return 0


class _Lane(Generic[P]):
    """One stream: the frames that were chosen, in order, and how far the first of them is decoded."""

    def __init__(self, speaker: Speaker) -> None:
        self.choice: StreamFilter | None = None
        self.frames: deque[tuple[Header, P, int]] = deque()
        self.holes: list[tuple[int, int]] = []
        self._next = 0
        self._pieces: Iterator[list[Fields]] | None = None
        self._header: Header | None = None
        self._first = self._number = 0
        self._newest = 0
        self.relabel(speaker)

    def relabel(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self._rescued = replace(speaker, recovered=True)
        self._offset = speaker.info.offset_ns or 0

    def add(self, header: Header, position: P) -> bool:
        """Note a frame; whether it was chosen."""
        if header.end <= self._next:
            return False
        if header.first > self._next:
            self.holes.append((self._next, header.first))
        first = max(header.first, self._next)
        self._next = header.end
        if self.choice is None or not self.choice.header(header):
            return False
        self.frames.append((header, position, first))
        return True

    @property
    def busy(self) -> bool:
        """Whether something is left to decode."""
        return self._pieces is not None or bool(self.frames)

    @property
    def bound(self) -> int:
        """No record that is left to decode has an older corrected time. Only while busy."""
        return self._newest if self._pieces is not None else self.corrected(self.frames[0][0].first_ts)

    def corrected(self, ts: int) -> int:
        return ts + self._offset

    def decode(self, load: Callable[[Header, P], bytes | memoryview], piece: int, into: list[Entry]) -> int:
        """Put the next piece into *into*; the number of records that were read.

        Raises:
            MessageError: the batch is damaged.
            StoreError: it cannot be read.
        """
        assert self.choice is not None, "frames are kept only of streams that were chosen"
        if self._pieces is None:
            header, position, self._first = self.frames.popleft()
            self._header, self._number = header, header.first
            self._newest = self.corrected(header.first_ts)
            payload = load(header, position)
            check_payload(header, payload)
            self._pieces = pieces(header, payload, piece)
        found = next(self._pieces, None)
        if found is None:
            self._pieces = None
            return 0
        number, self._number = self._number, self._number + len(found)
        self._newest = self.corrected(found[-1].ts)
        speaker = self._rescued if self._header is not None and self._header.recovered else self.speaker
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
        """Leave what is left of the batch; the number of its records."""
        self._pieces = None
        return self._header.end - self._number if self._header is not None else 0
