"""Times as text."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from typing import Final

__all__ = ["Stamp", "rfc3339"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Stamp:
    """Seconds since the epoch as text in *form* (as `strftime` takes it), made once for each second."""

    def __init__(self, zone: tzinfo | None, form: str) -> None:
        self._zone = zone
        self._form = form
        self._second: int | None = None
        self._text = ""

    def __call__(self, second: int) -> str:
        if second != self._second:
            moment = (_EPOCH + timedelta(seconds=second)).astimezone(self._zone)
            self._second, self._text = second, moment.strftime(self._form)
        return self._text


def rfc3339(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC, with all nine digits.

    >>> rfc3339(1_700_000_000_123_456_789)
    '2023-11-14T22:13:20.123456789Z'
    """
    seconds, fraction = divmod(ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
