"""What is in the store, compared with what the workers' ledgers say must be in it.

Theory of operation
-------------------
The segments are read here byte for byte, with nothing of tlogs' own: what is wrong in its reader cannot hide what is
wrong in its writer. A call that has returned is stored once, or among the counted drops of its stream, by its level. A
call that was under way when its worker was killed may be stored or not, and nothing else is there.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack
import zstandard

from calls import LOGGER, level_of, message_of, parse

__all__ = ["Finding", "Logged", "Stream", "examine", "read_outbox"]

_FRAME: Final = struct.Struct("<4sBBH16sQIIIQQQI")
_CRC: Final = struct.Struct("<I")
_FRAME_BYTES: Final = _FRAME.size + _CRC.size
_FILE_HEADER_BYTES: Final = 256
_BATCH, _STREAM = 1, 2
_COMPRESSED, _RECOVERED = 0x01, 0x80

_OUTBOX: Final = struct.Struct("=8sQ16sQQQQ")
_DROPS_OFFSET: Final = 128
_DROPS_BYTES: Final = 256

MAX_PROBLEMS: Final = 40
"""So many are described; all are counted."""


@dataclass
class Logged:
    """What one worker's ledger says: for each thread the calls that have returned."""

    worker: int
    returned: list[int]
    ended_itself: bool
    """Not killed: no call was under way."""


@dataclass
class Stream:
    """What the segments say of one stream."""

    worker: int | None = None
    next: int = 0
    last_ts: int = 0
    dropped: dict[int, int] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    """Dropped records, by level, that gap records have told of since the last stored call."""
    told_in_all: int = 0


@dataclass
class Finding:
    """What the oracle found. `problems` is empty where everything that should be there is there, once."""

    logged: int = 0
    records: int = 0
    calls: int = 0
    recovered: int = 0
    dropped: int = 0
    lost: int = 0
    duplicated: int = 0
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)
    streams: dict[bytes, Stream] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    """The messages of the calls at ERROR, in the order of the segments."""

    def problem(self, text: str) -> None:
        """Note something that must not be."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)


def read_outbox(data: bytes) -> tuple[bytes, int, dict[int, int]] | None:
    """Stream, watermark and drops by level, from the first page of an outbox; None where it is not one yet."""
    if len(data) < _DROPS_OFFSET + _DROPS_BYTES or not data.startswith(b"TLOUTBX2"):
        return None
    _, _, stream, _, _, acknowledged, _ = _OUTBOX.unpack_from(data)
    drops = struct.iter_unpack("=qQ", data[_DROPS_OFFSET : _DROPS_OFFSET + _DROPS_BYTES])
    return stream, acknowledged, {level: count for level, count in drops if count}


def examine(run: Path, logged: list[Logged], others: Mapping[int, int]) -> Finding:
    """Read every segment of the run and compare.

    A worker's stream also holds records that are no calls: that a lease began or ended, an uncaught exception. They
    may be dropped too; *others* says how many at most there are, by level.
    """
    found = Finding(logged=sum(sum(one.returned) for one in logged))
    count = _Count(found, {one.worker: one for one in logged}, others)
    for path in sorted(run.glob("segment-*.tlf")):
        for header, payload in _frames(path, found):
            count.frame(header, payload)
    count.compare()
    return found


def _frames(path: Path, found: Finding) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    """The frames of a segment, checked and unpacked."""
    data = path.read_bytes()
    offset = _FILE_HEADER_BYTES
    while offset < len(data):
        if len(data) - offset < _FRAME_BYTES:
            found.problem(f"{path.name}: {len(data) - offset} bytes too many at its end")
            return
        header = _FRAME.unpack_from(data, offset)
        (crc,) = _CRC.unpack_from(data, offset + _FRAME.size)
        payload = data[offset + _FRAME_BYTES : offset + _FRAME_BYTES + header[8]]
        if header[0] != b"TLF1" or crc != zlib.crc32(data[offset : offset + _FRAME.size]):
            found.problem(f"{path.name}: no frame at {offset}")
            return
        if len(payload) != header[8] or zlib.crc32(payload) != header[12]:
            found.problem(f"{path.name}: the frame at {offset} is damaged")
            return
        offset += _FRAME_BYTES + len(payload)
        if header[2] & _COMPRESSED:
            payload = zstandard.ZstdDecompressor().decompress(payload, max_output_size=header[7])
        yield header, payload


class _Count:
    """The oracle while it reads: what is stored, call by call."""

    def __init__(self, found: Finding, logged: dict[int, Logged], others: Mapping[int, int]) -> None:
        self._found = found
        self._others = others
        self._logged = logged
        self._next = {(one.worker, thread): 0 for one in logged.values() for thread in range(len(one.returned))}
        self._missing: dict[int, Counter[int]] = {worker: Counter() for worker in logged}

    def frame(self, header: tuple[Any, ...], payload: bytes) -> None:
        """Take the next frame."""
        found = self._found
        _, kind, codec, _, stream_id, first, count, *_ = header
        stream = found.streams.setdefault(stream_id, Stream())
        if kind == _STREAM:
            values = msgpack.unpackb(payload, strict_map_key=False, unicode_errors="surrogatepass")
            stream.dropped = values.get("dropped", {})
            return
        name = stream_id.hex()[:8]
        if first < stream.next:
            found.duplicated += min(stream.next, first + count) - first
            found.problem(f"stream {name}: {first} to {first + count - 1} after {stream.next - 1}: stored twice")
        elif first > stream.next:
            found.problem(f"stream {name}: {stream.next} to {first - 1} are missing")
        stream.next = first + count
        found.records += count
        if codec & _RECOVERED:
            found.recovered += count
        reader = msgpack.Unpacker(
            max_buffer_size=len(payload) + 1, strict_map_key=False, unicode_errors="surrogatepass"
        )
        reader.feed(payload)
        seen = 0
        for record in reader:
            seen += 1
            if record[0] < stream.last_ts:
                found.problem(f"stream {name}: time goes back")
            stream.last_ts = record[0]
            if record[2] == LOGGER:
                self._call(stream, name, record)
            elif record[10] and "dropped" in record[10].get("fields", {}):
                stream.told.update(record[10]["fields"]["dropped"])
                stream.told_in_all += sum(record[10]["fields"]["dropped"].values())
        if seen != count:
            found.problem(f"stream {name}: a batch of {count} holds {seen}")

    def _call(self, stream: Stream, name: str, record: list[Any]) -> None:
        found = self._found
        _, level, _, template, args, message, *_ = record
        if message is None:
            message = template % tuple(args) if args else template
        try:
            worker, thread, number = parse(message)
        except ValueError:
            found.problem(f"stream {name}: nobody logged {message[:60]!r}")
            return
        if stream.worker is None:
            stream.worker = worker
        expected = self._next.get((worker, thread))
        if worker != stream.worker or expected is None:
            found.problem(f"stream {name} of worker {stream.worker}: a call of worker {worker}, thread {thread}")
            return
        if message != message_of(worker, thread, number) or level != level_of(number):
            found.problem(f"worker {worker}: call {thread}/{number} is not what was logged: {message[:60]!r}")
        if number < expected:
            found.duplicated += 1
            found.problem(f"worker {worker}: call {thread}/{number} after {thread}/{expected - 1}")
            return
        skipped = Counter(map(level_of, range(expected, number)))
        self._missing[worker].update(skipped)
        if len(self._logged[worker].returned) == 1:  # other threads' drops are told of at the same place
            for one in skipped.keys() | {logging.DEBUG, logging.WARNING, logging.ERROR} - self._others.keys():
                told = stream.told[logging.getLevelName(one)]
                if not 0 <= told - skipped[one] <= self._others.get(one, 0):
                    text = (
                        f"{skipped[one]} calls of level {one} are missing before {number}, the gap record says {told}"
                    )
                    found.problem(f"worker {worker}: {text}")
        stream.told.clear()
        self._next[worker, thread] = number + 1
        if number < self._logged[worker].returned[thread]:
            found.calls += 1
        elif number > self._logged[worker].returned[thread] or self._logged[worker].ended_itself:
            found.problem(f"worker {worker}: call {thread}/{number} was never made")
        if level >= logging.ERROR:
            found.errors.append(message)

    def compare(self) -> None:
        """Set what is missing against what was counted as dropped."""
        found = self._found
        dropped: dict[int, Counter[int]] = {worker: Counter() for worker in self._logged}
        for stream_id, stream in found.streams.items():
            found.dropped += sum(stream.dropped.values())
            if stream.told_in_all > sum(stream.dropped.values()):
                found.problem(f"stream {stream_id.hex()[:8]}: gap records tell of more than was dropped")
            if stream.worker is not None:
                dropped[stream.worker].update(stream.dropped)
        for worker, one in self._logged.items():
            under_way: Counter[int] = Counter()
            for thread, returned in enumerate(one.returned):
                reached = self._next[worker, thread]
                self._missing[worker].update(map(level_of, range(reached, returned)))
                if reached <= returned and not one.ended_itself:
                    under_way[level_of(returned)] += 1
            for level in sorted({*self._missing[worker], *dropped[worker]}):
                missing, counted = self._missing[worker][level], dropped[worker][level]
                if missing > counted:
                    found.lost += missing - counted
                    found.problem(f"worker {worker}: {missing - counted} calls of level {level} are lost")
                elif counted - missing > under_way[level] + self._others.get(level, 0):
                    found.problem(f"worker {worker}: {counted} dropped of level {level}, but {missing} are missing")
