"""Everything that reads what somebody else wrote: how to feed it any bytes, and what it may raise.

A decoder gives a value or one of its documented errors, and what it costs is in proportion to what it was given.
Where a checksum stands in front, it is put right here, so that what lies behind it is reached.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import zstandard

from tlogs.levels import torch_logs as directive
from tlogs.levels.clauses import parse_specs
from tlogs.levels.registry import recorded
from tlogs.outbox import ring
from tlogs.reading import filters
from tlogs_shared import level_names, quantity
from tlogs_shared.end import End
from tlogs_shared.errors import ConfigError, DirectiveError, MessageError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol import messages, wire
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.notice import Notice
from tlogs_shared.protocol.secret import parse_secret
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage import batch, record, segment
from tlogs_shared.storage import index_page as page
from tlogs_shared.storage.batch import HEADER_BYTES, Codec, Header, seal
from tlogs_shared.storage.ledger import Ledger
from tlogs_shared.storage.position import Position

__all__ = ["DECODERS", "Decoder"]

MIB: Final = 1 << 20


@dataclass(frozen=True)
class Decoder:
    """One decoder: `decode` takes any bytes and raises nothing but *errors*; *examples* are honest inputs.

    `max_bytes` is what it may have in use for an input of a few kilobytes.
    """

    decode: Callable[[bytes], object]
    errors: type[Exception]
    examples: Sequence[bytes]
    max_bytes: int = 16 * MIB


STREAM: Final = b"s" * 16
ORIGIN: Final = Origin(host="node1", pid=7, rank=3, world_size=8)
LEASE: Final = Lease(revision=1, settings={"c10d": 10, "guards": True}, ranks=RankSet.parse("0-7,16"), ttl_s=60.0)
RECORDS: Final = [
    record.pack(record.Fields(1, 20, "a", "x %d", [number], None, "a.py", 1, "f", "MainThread", {"fields": {"k": 1}}))
    for number in range(3)
]
RAW: Final = b"".join(RECORDS)
BATCH: Final = seal(Header(stream=STREAM, count=3, level=20), RAW)
STREAM_FRAME: Final = segment.pack_stream(STREAM, StreamInfo(ORIGIN, head=3, dropped={10: 2}), 0)
SEGMENT: Final = segment.SegmentHeader("run", 1).pack() + b"".join(
    header.pack() + payload for header, payload in (STREAM_FRAME, BATCH)
)
NOTICE: Final = Notice("tcp://127.0.0.1:5655", "5" * 64, 7, "node1", "b", "/tmp", "1", runs=["run"])
MESSAGES: Final[list[messages.Message]] = [
    messages.Hello(STREAM, ORIGIN, 3, 0, False),
    messages.Heartbeat(1, None, None, [messages.Pulse(STREAM, 3, 1, 0, {10: 2}, messages.Vital("running", 3, 0.0))]),
    messages.Applied([messages.AppliedRow([STREAM], 1, {1: ("applied", "")}, b"report")]),
    messages.Bye(STREAM, 3, {10: 2}, End("killed", signal="SIGKILL")),
    messages.Batch(*BATCH),
]


def _text(data: bytes) -> str:
    """Any text, also one that is not for printing."""
    return data.decode("utf-8", "surrogateescape")


def _plain(data: bytes) -> Any:
    """Any value that msgpack has."""
    try:
        return msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass", max_ext_len=0)
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError):
        raise MessageError("no msgpack") from None


def _packed(value: Any) -> bytes:
    return bytes(msgpack.packb(value))


def _header(data: bytes) -> Header:
    body = data[: HEADER_BYTES - 4].ljust(HEADER_BYTES - 4, b"\0")
    return Header.unpack(body + zlib.crc32(body).to_bytes(4, "little"))


def _records(data: bytes) -> object:
    header, payload = seal(Header(stream=STREAM, count=data[0] if data else 0), data[1:])
    return batch.records(header, payload)


def _compressed_records(data: bytes) -> object:
    header = Header(stream=STREAM, codec=Codec.ZSTD, count=3, size=len(data), raw_size=len(RAW))
    return batch.records(header, data)


def _outbox_records(data: bytes) -> object:
    return list(ring.scan(memoryview(data), 0))


def _segment(data: bytes) -> object:
    scan = segment.Scan(lambda size, offset: data[offset : offset + size], len(data), verify=True, skip=True)
    return list(scan)


def _page(data: bytes) -> object:
    """The checksums of its headers are put right."""
    size = 12 + HEADER_BYTES
    rows = [data[at : at + size] for at in range(12, len(data), size)]
    fixed = [row[:-4] + zlib.crc32(row[12:-4]).to_bytes(4, "little") if len(row) == size else row for row in rows]
    return page.unpack_index(data[:12] + b"".join(fixed))


def _torch_logs(data: bytes) -> object:
    text = _text(data)
    directive.parse(text)
    return directive.from_text(text, recorded(), lambda name: len(name) < 20, lambda name: False)


def _ledger(data: bytes) -> object:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise MessageError("no JSON") from None
    return Ledger.from_map(values)


DECODERS: Final[dict[str, Decoder]] = {
    "wire": Decoder(wire.decode, MessageError, [wire.encode(message) for message in MESSAGES]),
    "header": Decoder(_header, MessageError, [BATCH[0].pack(), STREAM_FRAME[0].pack()]),
    "records": Decoder(_records, MessageError, [b"\3" + RAW]),
    "compressed records": Decoder(_compressed_records, MessageError, [zstandard.compress(RAW)]),
    "record": Decoder(record.unpack, MessageError, RECORDS),
    "outbox header": Decoder(
        lambda data: ring.OutboxHeader.unpack(data.ljust(ring.HEADER_BYTES, b"\0")),
        MessageError,
        [ring.OutboxHeader(STREAM, 1 << 20, 1 << 16, 3, ORIGIN.as_map(), {10: 2}).pack()[:1024]],
    ),
    "outbox records": Decoder(_outbox_records, MessageError, [RAW]),
    "segment header": Decoder(segment.SegmentHeader.unpack, MessageError, [SEGMENT[:256]]),
    "segment": Decoder(_segment, MessageError, [SEGMENT]),
    "stream frame": Decoder(
        lambda data: segment.unpack_stream(*seal(Header(stream=STREAM), data)), MessageError, [STREAM_FRAME[1]]
    ),
    "origin": Decoder(lambda data: Origin.from_map(_plain(data)), MessageError, [_packed(ORIGIN.as_map())]),
    "stream info": Decoder(
        lambda data: StreamInfo.from_map(_plain(data)), MessageError, [_packed(StreamInfo(ORIGIN).as_map())]
    ),
    # A set of ranks may name a million.
    "lease": Decoder(
        lambda data: Lease.from_map(_plain(data)), MessageError, [_packed(LEASE.as_map())], max_bytes=192 * MIB
    ),
    "ledger": Decoder(_ledger, MessageError, [json.dumps(Ledger().drop(1, {10: 3}).as_map()).encode()]),
    "page": Decoder(_page, MessageError, [page.pack_index([(BATCH[0], Position(1, 256))], Position(2, 0)), b"\0" * 12]),
    "notice": Decoder(
        lambda data: Notice.from_json(_text(data), "collector.json"), ConfigError, [NOTICE.to_json().encode()]
    ),
    "TORCH_LOGS": Decoder(_torch_logs, DirectiveError, [b"+dynamo,-aot,guards", b"help", b"all, my.module"]),
    "specs": Decoder(
        lambda data: parse_specs([_text(data)], recorded()), DirectiveError, [b"c10d=DEBUG,guards=on", b"my.module=15"]
    ),
    "rank set": Decoder(
        lambda data: RankSet.parse(_text(data)), ConfigError, [b"0-7,16", b"0-63/8", b"^5", b"all"], max_bytes=192 * MIB
    ),
    "position": Decoder(lambda data: Position.parse(_text(data)), MessageError, [str(Position(3, 256)).encode()]),
    "endpoint": Decoder(lambda data: Endpoint.parse(_text(data)), ConfigError, [b"tcp://[::1]:5655", b"node1:1"]),
    "duration": Decoder(lambda data: quantity.parse_duration(_text(data)), ConfigError, [b"250ms", b"2h"]),
    "size": Decoder(lambda data: quantity.parse_size(_text(data)), ConfigError, [b"20GB", b"64M"]),
    "secret": Decoder(lambda data: parse_secret(_text(data), "secret"), ConfigError, [b"5" * 64]),
    "level": Decoder(lambda data: level_names.parse_level(_text(data)), ConfigError, [b"WARNING", b"15"]),
    "pattern": Decoder(lambda data: filters.parse_pattern(_text(data)), ConfigError, [b"loss [0-9]+"]),
    "moment": Decoder(
        lambda data: filters.parse_moment(_text(data), 10**18, 10**18), ConfigError, [b"12:30:00", b"5m", b"2026-01-02"]
    ),
}
