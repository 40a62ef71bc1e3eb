"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.errors import ConfigError
from tlogs_shared.quantity import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5.0),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("7d", 604800.0),
        ("1.5h", 5400.0),
        (" 1H30M ", 5400.0),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 s", "5x", "5s!", "1e3s", "nan", "inf", "٣s"])
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--for .*expected a duration such as"):
        parse_duration(text, source="--for")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("64MiB", 64 << 20),
        ("20GB", 20 * 10**9),
        ("1.5k", 1500),
        ("2 Ti", 2 << 40),
        ("10b", 10),
        ("1KB", 1000),
        ("999999999999999", 999_999_999_999_999),
    ],
)
def test_a_size_is_a_number_with_a_decimal_or_binary_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "5x", "1e3", "5i", "1 0"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--max-bytes .*expected a size such as"):
        parse_size(text, source="--max-bytes")


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_a_config_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ConfigError:
            pass


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (0.9994, "999ms"),
        (0.9999, "1.0s"),
        (59.94, "59.9s"),
        (59.96, "1m"),
        (75.0, "1m15s"),
        (3600, "1h"),
        (86400 + 59, "1d"),
        (90061, "1d1h"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
