"""Every message goes over the wire and back; whatever else comes is a MessageError, and costs little."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tlogs_shared.end import KINDS as ENDS
from tlogs_shared.end import End
from tlogs_shared.errors import MessageError
from tlogs_shared.origin import Origin
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol.wire import (
    LARGER_FIELDS,
    MAX_FIELDS,
    VERSION,
    VersionError,
    decode,
    encode,
    pack_plain,
    unpack_plain,
)
from tlogs_shared.storage.batch import Header, Kind, seal

KINDS: list[type[Any]] = list(get_args(m.Message))
FIELD_KINDS = [kind for kind in KINDS if kind is not m.Batch]
STREAM = b"s" * 16

# Any text that a file name can hold: os.fsdecode makes lone surrogates of what is no UTF-8.
TEXTS = st.text(max_size=12) | st.just("not utf-8: \udc80")
INTS = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | INTS | st.floats(allow_nan=False) | TEXTS | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | INTS, inner, max_size=3),
    max_leaves=8,
)
ORIGINS = st.builds(
    Origin,
    host=TEXTS,
    pid=st.integers(0, 2**22),
    rank=st.none() | st.integers(0, 1_000_000),
    world_size=st.none() | st.integers(1, 1_000_000),
    provisional=st.booleans(),
    helper=st.none() | TEXTS,
    torch_logs=st.none() | TEXTS,
)


END = st.builds(
    End,
    how=st.sampled_from(ENDS),
    code=st.none() | st.integers(-255, 255),
    signal=st.none() | st.text(max_size=12),
    oom=st.booleans(),
    exception=st.none() | TEXTS,
    ended_ns=st.integers(0, 2**63 - 1),
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field with this type hint."""
    if hint is Any:
        return PLAIN
    if hint is Origin:
        return ORIGINS
    if hint is End:
        return END
    if hint is str:
        return TEXTS
    if hint is bytes:
        return st.binary(max_size=40)
    if hint is bool:
        return st.booleans()
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        [bounds] = args[1:]
        if args[0] is int:
            return st.integers(bounds.ge, bounds.le if bounds.lt is None else bounds.lt - 1)
        if args[0] is float:
            return st.floats(bounds.ge, bounds.le)
        return st.binary(min_size=bounds.min_length, max_size=bounds.max_length)
    if origin is tuple:
        return st.tuples(*map(values, args))
    if isinstance(hint, type) and issubclass(hint, tuple):
        named = get_type_hints(hint, include_extras=True)
        return st.builds(hint, **{name: values(found) for name, found in named.items()})
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return st.dictionaries(values(args[0]), values(args[1]), max_size=4)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return st.lists(values(args[0]), max_size=4)
    return st.one_of(*(st.none() if arg is type(None) else values(arg) for arg in args))


def messages_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Messages of this kind with any fields that it may have."""
    if kind is m.Batch:
        return st.builds(sealed, st.binary(max_size=300), st.integers(0, 2**40))
    hints = get_type_hints(kind, include_extras=True)
    fields = {name: values(hints[name]) for name in kind.__struct_fields__}
    if kind is m.Hello:
        return st.fixed_dictionaries(fields).map(in_order)
    return st.builds(kind, **fields)


def in_order(fields: dict[str, Any]) -> m.Hello:
    """A hello of a stream that does not begin after its end."""
    first, head = sorted((fields["first"], fields["head"]))
    return m.Hello(**{**fields, "first": first, "head": head})


def sealed(raw: bytes, first: int) -> m.Batch:
    """A batch of one record, or of none."""
    return m.Batch(*seal(Header(STREAM, first=first, count=min(len(raw), 1)), raw))


ANY = st.one_of(*map(messages_of, KINDS))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=20)
def test_every_message_comes_back_as_it_was(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(messages_of(kind))
    assert decode(encode(message)) == message


@given(st.binary(max_size=400))
@settings(max_examples=100)
def test_any_bytes_are_a_message_or_a_message_error(frame: bytes) -> None:
    decode_or_refuse(frame)


@given(st.sampled_from(FIELD_KINDS), st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_as_fields_are_a_message_or_a_message_error(kind: type[Any], packed: bytes) -> None:
    decode_or_refuse(head_of(kind) + packed)


@given(st.sampled_from(FIELD_KINDS), st.data())
@settings(max_examples=200)
def test_fields_of_any_type_are_a_message_or_a_message_error(kind: type[Any], data: st.DataObject) -> None:
    """Sound msgpack of the right length, whose types are not what the message declares."""
    count = len(kind.__struct_fields__)
    found = data.draw(st.lists(PLAIN, min_size=count, max_size=count))
    decode_or_refuse(head_of(kind) + msgpack.packb(found, unicode_errors="surrogatepass"))


@given(ANY, st.data())
@settings(max_examples=200)
def test_a_damaged_message_is_a_message_or_a_message_error(message: Any, data: st.DataObject) -> None:
    """Cut short, with a bit flipped, with bytes too many."""
    frame = bytearray(encode(message))
    match data.draw(st.sampled_from(["cut", "flip", "more"])):
        case "cut":
            damaged = bytes(frame[: data.draw(st.integers(0, len(frame)))])
        case "flip":
            bit = data.draw(st.integers(0, 8 * len(frame) - 1))
            frame[bit // 8] ^= 1 << bit % 8
            damaged = bytes(frame)
        case _:
            damaged = bytes(frame) + data.draw(st.binary(max_size=20))
    found = decode_or_refuse(damaged)
    if isinstance(message, m.Batch) and damaged[:2] == encode(message)[:2]:
        assert found in (None, message), "a batch carries checksums"


def decode_or_refuse(frame: bytes) -> m.Message | None:
    """The message, which can be sent on, or None where there is none."""
    try:
        message = decode(frame)
    except MessageError:
        return None
    assert decode(encode(message)) == message
    return message


def head_of(kind: type[Any]) -> bytes:
    """The first bytes of a message of this kind."""
    return next(bytes([VERSION, letter]) for letter in range(256) if names(letter) == kind.__name__)


def names(letter: int) -> str | None:
    """The kind of message that this letter stands for."""
    try:
        decode(bytes([VERSION, letter, 0x93, 0xC1]))
    except MessageError as error:
        text = str(error)
    return next((kind.__name__ for kind in FIELD_KINDS if f" {kind.__name__} " in text), None)


ORIGIN = Origin(host="n1", pid=7, rank=3)
HELLO = m.Hello(STREAM, ORIGIN, 5, 2)
PULSE = m.Pulse(STREAM, 1, 2, 3, {}, None)
BEAT = m.Heartbeat(4, None, None, [PULSE])


def beat(**changed: Any) -> m.Heartbeat:
    """A heartbeat with something changed in its row."""
    return structs.replace(BEAT, rows=[PULSE._replace(**changed)])


def applied(answers: Any) -> m.Applied:
    """What became of a lease on one stream."""
    return m.Applied([m.AppliedRow([STREAM], 1, answers, b"")])


def hello(**changed: Any) -> bytes:
    """The frame of a hello that could not be made here."""
    fields = {"stream": STREAM, "origin": ORIGIN.as_map(), "head": 5, "first": 2, "recovering": False}
    packed: bytes = msgpack.packb([*{**fields, **changed}.values()])
    return head_of(m.Hello) + packed


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (hello(stream=b"short"), "Hello.stream"),
        (hello(first=6), "a stream that begins at 6, after its end at 5"),
        (hello(head=-1, first=-1), "Hello.head"),
        (hello(head=m.MAX_COUNT), "Hello.head"),
        (hello(origin=replace(ORIGIN, rank=-1).as_map()), "rank -1"),
        (hello(origin=replace(ORIGIN, rank=1_000_001).as_map()), "rank 1000001"),
        (beat(dropped={10: -1}), "Heartbeat.rows"),
        (beat(dropped={10: 2**48}), "Heartbeat.rows"),
        (beat(low_ts=2**63), "Heartbeat.rows"),
        (beat(vital=m.Vital("running", -1, 0.0)), "Heartbeat.rows"),
        (beat(vital=m.Vital("running", 1, float("nan"))), "Heartbeat.rows"),
        (structs.replace(BEAT, offset_ns=True), "Heartbeat.offset_ns"),
        (m.Beat(1, 2, 3, float("nan"), 0.0), "Beat.period_s"),
        (m.Change(1, None, float("inf")), "Change.timeout_s"),
        (applied({1: ("applied", "", "more")}), "Applied.rows"),
        (applied({1: "applied"}), "Applied.rows"),
        (head_of(m.Bye) + msgpack.packb([STREAM, 1, {}, {"how": "gone fishing"}]), "cannot end as"),
        (m.Bye(STREAM, 1, {}, End("killed", code=True)), "Bye.end"),
        (head_of(m.Report) + msgpack.packb([1, "", msgpack.ExtType(4, b"")]), "extension type 4"),
        (m.Fetch(1, "run", "bytes", 0, -1, 5), "Fetch.offset"),
    ],
)
def test_what_no_honest_peer_says_is_refused(message: Any, text: str) -> None:
    """Numbers out of range would later fail where nobody expects it: in a sum, in a report, in the store."""
    with pytest.raises(MessageError, match=text):
        decode(message if isinstance(message, bytes) else encode(message))


def test_a_rank_cannot_write_what_only_the_collector_writes() -> None:
    """A stream frame is stored in the same file as the batches, and describes a stream."""
    header, payload = seal(Header(STREAM, kind=Kind.STREAM), b"")
    with pytest.raises(MessageError, match="only a collector writes"):
        decode(encode(m.Batch(header, payload)))


def test_another_version_is_told_apart_from_garbage() -> None:
    frame = encode(m.Stranger())
    with pytest.raises(VersionError, match=f"version {VERSION + 1} of the protocol, this is version {VERSION}"):
        decode(bytes([VERSION + 1]) + frame[1:])


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b"", "two bytes"),
        (b"\x02", "two bytes"),
        (b"\x02\xff", "unknown message"),
        (b"\x02H", "truncated"),
        (b"\x02B", "header and a payload"),
        (b"\x02?\x92\x01\x01", "Stranger.stream"),
        (b"\x02?\x80", "Expected `array`"),
        (b"\x02?\x91\xc4\x00\x90", "trailing characters"),
        (b"\x02?\x91\xa1x", "Expected `bytes`, got `str` - at `Stranger.stream`"),
    ],
)
def test_what_is_no_message_says_why(frame: bytes, text: str) -> None:
    with pytest.raises(MessageError, match=text):
        decode(frame)


@pytest.mark.parametrize("kind", FIELD_KINDS, ids=lambda kind: kind.__name__)
def test_a_message_beyond_its_size_is_not_unpacked(kind: type[Any]) -> None:
    max_bytes, _ = LARGER_FIELDS.get(kind, MAX_FIELDS)
    with pytest.raises(MessageError, match=f"at most {max_bytes} bytes"):
        decode(head_of(kind) + bytes(max_bytes + 1))


HUGE = b"\xdd\xff\xff\xff\xff"  # an array of 2^32 - 1 elements, of which none follows
MAP = b"\xdf\xff\xff\xff\xff"


@pytest.mark.parametrize(
    "packed",
    [
        HUGE,
        MAP,
        HUGE * 1000,
        b"\xdd\x00\x00\x00\x40" * 3000,  # within the number of elements that may be, as deep as the frame allows
        b"\xdd\x00\x00\x0f\xff" * 3000,
        b"\xc6\xff\xff\xff\xff",  # bytes
        b"\xdb\xff\xff\xff\xff",  # a text
        b"\xc9\xff\xff\xff\xff\x00",  # an extension
        b"\x91" * 16_000,
        b"\x81\xa1x" * 5_000,
    ],
)
@pytest.mark.parametrize("kind", [m.Hello, m.Bye, m.Ask], ids=lambda kind: kind.__name__)
def test_a_newcomer_cannot_make_us_take_memory(kind: type[Any], packed: bytes) -> None:
    """A few kilobytes must not become megabytes."""
    tracemalloc.start()
    try:
        with pytest.raises(MessageError):
            decode(head_of(kind) + packed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def nested(depth: int) -> bytes:
    return b"\x81\xa1x" * depth + b"\xc0"


def test_a_value_too_deep_for_any_python_is_refused() -> None:
    with pytest.raises(MessageError, match="recursion"):
        decode(head_of(m.Report) + b"\x93\x01\xa0" + nested(50_000))
    with pytest.raises(MessageError, match="recursion"):
        unpack_plain(nested(50_000))


@pytest.mark.parametrize("depth", [100, 1_000, 5_000])
def test_a_value_that_could_be_read_can_be_packed_again(depth: int) -> None:
    """A report that came in must be able to go out. How deep it may be differs from Python to Python."""
    try:
        value = unpack_plain(nested(depth))
    except MessageError:
        value = {}
    assert unpack_plain(pack_plain(value)) == value


@given(st.dictionaries(TEXTS, PLAIN, max_size=4))
@settings(max_examples=50)
def test_a_packed_map_comes_back(value: dict[str, Any]) -> None:
    assert unpack_plain(pack_plain(value)) == value


@pytest.mark.parametrize("data", [b"", b"\x93", b"\x90", b"\x01", b"\xc1"])
def test_what_is_no_packed_map_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_plain(data)


def test_any_kind_of_map_can_be_said() -> None:
    """What cannot be changed any more is a map, too."""
    message = m.Bye(STREAM, 3, MappingProxyType({10: 2}))
    assert decode(encode(message)) == m.Bye(STREAM, 3, {10: 2})


def test_only_primitives_can_be_said() -> None:
    with pytest.raises(TypeError, match="cannot carry object"):
        encode(m.Report(1, "", object()))
