"""A frame comes back as it was sealed; a damaged one is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.errors import MessageError
from tlogs_shared.storage.batch import (
    HEADER_BYTES,
    MAX_RAW_BYTES,
    Codec,
    Header,
    Kind,
    check_payload,
    pieces,
    raw_payload,
    records,
    seal,
)
from tlogs_shared.storage.record import Fields, pack

numbers = st.integers(0, 2**63 - 1)
headers = st.builds(
    Header,
    stream=st.binary(min_size=16, max_size=16),
    kind=st.sampled_from(Kind),
    codec=st.sampled_from(Codec),
    recovered=st.booleans(),
    level=st.integers(0, 0xFFFF),
    first=st.integers(0, 2**62),
    count=st.integers(0, 1000),
    raw_size=st.integers(1000, MAX_RAW_BYTES),
    size=st.integers(0, MAX_RAW_BYTES),
    first_ts=numbers,
    last_ts=numbers,
    low_ts=numbers,
    payload_crc=st.integers(0, 2**32 - 1),
)


def made(count: int, *, compressed: bool = True) -> tuple[Header, bytes, list[Fields]]:
    found = [Fields(i, 20, "train", "step %d", [i], None, "a.py", 1, "f", "MainThread", None) for i in range(count)]
    raw = b"".join(map(pack, found))
    compressor = zstandard.ZstdCompressor() if compressed else None
    return (*seal(Header(stream=bytes(16), count=count), raw, compressor), found)


@given(headers, st.binary(max_size=8))
def test_a_header_comes_back_whatever_follows_it(header: Header, rest: bytes) -> None:
    packed = header.pack()
    assert len(packed) == HEADER_BYTES
    assert Header.unpack(packed + rest) == header


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        Header.unpack(data)


@given(headers, st.integers(0, HEADER_BYTES * 8 - 1))
def test_a_flipped_bit_in_a_header_is_noticed(header: Header, bit: int) -> None:
    packed = bytearray(header.pack())
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MessageError):
        Header.unpack(bytes(packed))


@given(st.integers(1, 60), st.booleans(), st.data())
def test_a_flipped_bit_in_a_payload_is_noticed(count: int, compressed: bool, draw: st.DataObject) -> None:
    header, payload, found = made(count, compressed=compressed)
    check_payload(header, payload)
    assert records(header, payload) == found
    damaged = bytearray(payload)
    bit = draw.draw(st.integers(0, len(payload) * 8 - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MessageError, match="checksum"):
        check_payload(header, bytes(damaged))


@pytest.mark.parametrize("change", [-1, 1])
def test_a_payload_of_another_size_is_refused(change: int) -> None:
    header, payload, _ = made(20)
    with pytest.raises(MessageError, match="expected a payload of"):
        check_payload(header, payload[:-1] if change < 0 else payload + b"x")


@given(st.integers(0, 40), st.integers(1, 50))
def test_pieces_joined_are_the_records(count: int, size: int) -> None:
    header, payload, found = made(count)
    cut = list(pieces(header, payload, size))
    assert [record for piece in cut for record in piece] == found
    assert all(len(piece) == size for piece in cut[:-1])


@pytest.mark.parametrize("count", [0, 1, 9, 11, 500])
def test_a_batch_with_more_or_fewer_records_than_it_says_is_refused(count: int) -> None:
    header, payload, _ = made(10)
    for size in (3, 10, 100):
        with pytest.raises(MessageError, match="expected"):
            list(pieces(replace(header, count=count), payload, size))


def test_a_payload_that_is_no_zstd_is_refused() -> None:
    with pytest.raises(MessageError, match="unpack"):
        raw_payload(Header(stream=bytes(16), codec=Codec.ZSTD, raw_size=10, size=4), b"abcd")


def test_a_payload_that_grows_beyond_what_it_says_is_refused() -> None:
    """A few hostile bytes cannot ask for gigabytes."""
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    with pytest.raises(MessageError):
        raw_payload(Header(stream=bytes(16), codec=Codec.ZSTD, raw_size=1000, size=len(bomb)), bomb)


@pytest.mark.parametrize("raw", [b"\xc1", b"\x93\x01\x02", b"\x9b\x01"])
def test_a_payload_that_holds_no_records_is_refused(raw: bytes) -> None:
    header, payload = seal(Header(stream=bytes(16), count=1), raw)
    with pytest.raises(MessageError):
        records(header, payload)


def test_sizes_beyond_the_limits_are_refused_before_anything_is_read() -> None:
    with pytest.raises(MessageError, match="limits"):
        Header.unpack(Header(stream=bytes(16), raw_size=MAX_RAW_BYTES + 1, count=1).pack())
    with pytest.raises(MessageError, match="limits"):
        Header.unpack(Header(stream=bytes(16), raw_size=10, count=11).pack())


def test_small_payloads_are_not_compressed() -> None:
    header, _ = seal(Header(stream=bytes(16)), b"x" * 10, zstandard.ZstdCompressor())
    assert header.codec is Codec.PLAIN


def test_a_frame_that_claims_gigabytes_is_refused_before_room_is_made_for_them() -> None:
    """zstd's own header says how large the content is; nothing else bounds what a decompressor allocates for it."""
    frame = bytearray(zstandard.ZstdCompressor().compress(b"x" * 70_000))
    assert frame[4] >> 6 == 2, "a content size of four bytes"
    at = 5 if frame[4] & 0x20 else 6
    frame[at : at + 4] = (0xFFFF_FFFF).to_bytes(4, "little")
    header = Header(b"s" * 16, codec=Codec.ZSTD, count=1, raw_size=70_000, size=len(frame))
    with pytest.raises(MessageError, match="found a payload of 4294967295"):
        records(header, bytes(frame))


def test_a_plain_payload_of_another_size_than_its_header_says_is_refused() -> None:
    header, payload, _ = made(3, compressed=False)
    with pytest.raises(MessageError, match=f"expected {header.raw_size + 1} unpacked bytes, found {len(payload)}"):
        raw_payload(replace(header, raw_size=header.raw_size + 1), payload)
