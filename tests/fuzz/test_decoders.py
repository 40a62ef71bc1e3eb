"""Any bytes give a value or the documented error, whatever reads them, and memory stays bounded."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import DECODERS, Decoder

NAMES = sorted(DECODERS)


@st.composite
def spoilt(draw: st.DrawFn, decoder: Decoder) -> bytes:
    """An honest input, or any, with some of it changed, taken out, doubled, or another put in."""
    data = bytearray(draw(st.sampled_from(decoder.examples) | st.binary(max_size=300)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "insert", "double", "number"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 20))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=20))
            case "double":
                data[at:at] = data[at : at + 40] * draw(st.integers(1, 20))
            case "number":
                data[at:at] = draw(st.sampled_from([b"\xff" * 8, b"\xdd\x7f\xff\xff\xff", b"9" * 5000, b"[" * 3000]))
            case _:
                pass
    return bytes(data)


@pytest.mark.parametrize("name", NAMES)
def test_an_honest_input_is_read(name: str) -> None:
    for data in DECODERS[name].examples:
        if data != b"help":  # help is given as an error
            DECODERS[name].decode(data)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of patterns that a later Python may read differently
@pytest.mark.parametrize("name", NAMES)
@given(st.data())
@settings(max_examples=80)
def test_any_input_is_read_or_refused(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    try:
        decoder.decode(data.draw(spoilt(decoder)))
    except decoder.errors:
        pass


NESTED = b"\xdd\x00\x00\x0f\xff" * 800
"""Arrays that each promise four thousand more, within each other."""


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", [NESTED, b"\x03" + NESTED, b"[" * 4000, b"0-999999," * 400, b"9" * 5000, b"\0" * 4096])
def test_what_it_costs_is_bounded(name: str, data: bytes) -> None:
    decoder = DECODERS[name]
    tracemalloc.start()
    try:
        decoder.decode(data)
    except decoder.errors:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < decoder.max_bytes
