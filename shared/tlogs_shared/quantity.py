"""Durations and sizes as people write them: `250ms 5s 10m 2h 7d 1h30m`, `64MiB 20GB 512`.

Every duration and every size in an option or a variable is read here. The units are those of SI and IEC 80000-13,
in any case: `k`, `M`, `G`, `T` (with or without `B`) are powers of 1000; `Ki`, `Mi`, `Gi`, `Ti` are powers of 1024; a
plain number is bytes. A duration always has a unit.
"""

from __future__ import annotations

import re
from typing import Final

from tlogs_shared.errors import ConfigError

__all__ = ["format_duration", "parse_duration", "parse_size"]

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,20})?)(ms|s|m|h|d)", re.ASCII)
_LONG_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_FACTORS: Final = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,20})?)\s*([kmgt]?i?)b?", re.IGNORECASE | re.ASCII)


def parse_duration(text: str, *, source: str = "duration") -> float:
    """A duration in seconds; it may have several parts.

    Raises:
        ConfigError: *text* is not a duration; the message begins with *source*, where it was found.

    >>> parse_duration("250ms"), parse_duration("1h30m")
    (0.25, 5400.0)
    """
    parts = _DURATION.findall(text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise ConfigError(f"{source} {text!r}: expected a duration such as 250ms, 5s, 10m, 2h or 7d")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """A duration in its two largest units, as a person reads it at a glance.

    >>> format_duration(0.25), format_duration(5.04), format_duration(75), format_duration(90061)
    ('250ms', '5.0s', '1m15s', '1d1h')
    """
    if round(seconds, 3) < 1:
        return f"{seconds * 1000:.0f}ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    largest = next(index for index, (_, size) in enumerate(_LONG_UNITS) if whole >= size)
    (unit, size), (smaller_unit, smaller_size) = _LONG_UNITS[largest : largest + 2]
    count, rest = divmod(whole, size)
    smaller = rest // smaller_size
    return f"{count}{unit}" + (f"{smaller}{smaller_unit}" if smaller else "")


def parse_size(text: str, *, source: str = "size") -> int:
    """A size in bytes.

    Raises:
        ConfigError: *text* is not a size; the message begins with *source*, where it was found.

    >>> parse_size("64MiB"), parse_size("20GB"), parse_size("512")
    (67108864, 20000000000, 512)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() not in _FACTORS:
        raise ConfigError(f"{source} {text!r}: expected a size such as 64MiB or 20GB")
    factor = _FACTORS[match[2].lower()]
    return int(match[1]) * factor if match[1].isdigit() else int(float(match[1]) * factor)
