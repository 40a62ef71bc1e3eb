"""Any record comes back as it was packed; any bytes are a record or are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.errors import MessageError
from tlogs_shared.storage import record as module
from tlogs_shared.storage.record import (
    FIRST_BYTES,
    HEAD_BYTES,
    Fields,
    message_of,
    pack,
    record_level,
    unpack,
    unpack_all,
)

texts = st.text(st.characters(), max_size=20)
"""With lone surrogates in it: a file name that is no UTF-8 comes so."""

primitives = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts
records = st.builds(
    Fields,
    ts=st.integers(0, 2**64 - 1),
    levelno=st.integers(-(2**31), 2**31),
    logger=texts,
    template=texts,
    args=st.none() | st.lists(primitives, max_size=4) | st.dictionaries(texts, primitives, max_size=4),
    message=st.none() | texts,
    path=texts,
    line=st.integers(0, 2**32),
    func=texts,
    thread=texts,
    extra=st.none() | st.dictionaries(st.sampled_from(["exc", "fields", "stream"]), primitives, max_size=3),
)


def plain(**changed: Any) -> Fields:
    return Fields(1, 20, "a", "x", None, None, "a.py", 1, "f", "MainThread", None)._replace(**changed)


@given(records)
def test_unpacked_is_what_was_packed(record: Fields) -> None:
    assert unpack(pack(record)) == record


@given(st.lists(records, max_size=4))
def test_records_stand_one_behind_the_other_without_frames(found: list[Fields]) -> None:
    assert list(unpack_all(b"".join(map(pack, found)))) == found


@given(records)
def test_the_time_stamp_stands_in_front_at_a_fixed_place(record: Fields) -> None:
    """The outbox puts it there after the rest was packed."""
    packed = pack(record)
    assert packed.startswith(FIRST_BYTES)
    assert int.from_bytes(packed[len(FIRST_BYTES) : HEAD_BYTES], "big") == record.ts


@given(st.binary() | records.map(pack), st.data())
def test_any_bytes_are_a_record_or_are_refused(data: bytes, draw: st.DataObject) -> None:
    if data:
        at = draw.draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes([draw.draw(st.integers(0, 255))]) + data[at + 1 :]
    try:
        found = unpack(data)
    except MessageError:
        return
    assert isinstance(message_of(found), str)


@given(records, st.integers(1, 60))
def test_a_record_without_its_end_is_refused(record: Fields, missing: int) -> None:
    with pytest.raises(MessageError):
        unpack(pack(record)[:-missing])


@pytest.mark.parametrize(
    "changed",
    [{"ts": -1}, {"levelno": True}, {"logger": None}, {"args": "x"}, {"message": 1}, {"line": "1"}, {"extra": []}],
)
def test_a_field_of_the_wrong_type_is_refused(changed: dict[str, Any]) -> None:
    import msgpack

    with pytest.raises(MessageError):
        unpack(msgpack.packb(list(plain(**changed))))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (plain(template="no arguments: 100 %"), "no arguments: 100 %"),
        (plain(template="%d of %d", args=[1, 2]), "1 of 2"),
        (plain(template="%(a)s", args={"a": 1}), "1"),
        (plain(template="%s", args=["x"], message="settled"), "settled"),
        (plain(template="%d", args=["x"]), "%d ['x'] (the arguments do not fit the template)"),
        (plain(template="%s %s", args=[1]), "%s %s [1] (the arguments do not fit the template)"),
        (plain(template="%(b)s", args={"a": 1}), "%(b)s {'a': 1} (the arguments do not fit the template)"),
        (plain(template="%c", args=[2**40]), f"%c [{2**40}] (the arguments do not fit the template)"),
    ],
)
def test_the_message_is_what_the_program_meant_and_never_an_exception(record: Fields, message: str) -> None:
    assert message_of(record) == message


@given(texts, st.lists(primitives, max_size=3) | st.dictionaries(texts, primitives, max_size=3))
def test_any_template_with_any_arguments_gives_a_message(template: str, args: Any) -> None:
    assert isinstance(message_of(plain(template=template, args=args)), str)


def test_a_width_from_the_wire_cannot_eat_the_readers_memory() -> None:
    assert len(message_of(plain(template="%999999999999d", args=[1]))) < 100
    assert len(message_of(plain(template="%(a(b))-#999999999d", args={"a(b)": 1}))) < 100
    assert len(message_of(plain(template=f"%{'0' * 50}999999999d", args=[1]))) < 150
    assert len(message_of(plain(template="%*d", args=[10**9, 1]))) < 100
    assert message_of(plain(template="seed 123456789 %*s|%5.1f", args=[3, "x", 1.0])) == "seed 123456789   x|  1.0"
    assert message_of(plain(template="seed 123456789 %s", args=[1])) == "seed 123456789 1"


def test_levels_have_the_programs_name_then_pythons() -> None:
    assert [record_level(30, None), record_level(35, None), record_level(35, {"levelname": "NOTICE"})] == [
        "WARNING",
        "Level 35",
        "NOTICE",
    ]


def test_arrays_that_claim_to_be_huge_cost_nothing() -> None:
    """Each of these heads claims a thousand million items; room for them must not be made."""
    with pytest.raises(MessageError):
        list(unpack_all(b"\xdd\x3b\x9a\xca\x00" * 1000))


def test_a_program_that_makes_up_templates_costs_the_reader_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TAME_KEPT", 0)
    kept = len(module._TAME)
    assert message_of(plain(template="made up %s", args=[1])) == "made up 1"
    assert len(module._TAME) == kept
