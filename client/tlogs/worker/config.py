"""What the environment and init()'s arguments ask for, read in one place."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tlogs.access.discovery import Address, find_address
from tlogs_shared.errors import ConfigError

__all__ = ["KNOWN", "Config", "unknown_names"]

KNOWN: Final = frozenset(
    {
        "TLOGS_CAPTURE_WARNINGS",
        "TLOGS_COLLECTOR",
        "TLOGS_DIR",
        "TLOGS_DISABLE",
        "TLOGS_LEASES",
        "TLOGS_OUTBOX_BYTES",
        "TLOGS_OUTBOX_DIR",
        "TLOGS_PARENT",
        "TLOGS_RUN",
        "TLOGS_SECRET",
        "TLOGS_SECRET_FILE",
        "TLOGS_STDERR",
    }
)


@dataclass(frozen=True, slots=True)
class Config:
    """What this process was asked to do."""

    address: Address | None
    disabled: bool = False
    capture_warnings: bool = False

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], *, collector: str | None = None, secret: str | None = None
    ) -> Config:
        """Read the environment; an argument beats it.

        Raises:
            ConfigError: a value that cannot be used; the text names the variable.
        """
        if is_on("TLOGS_DISABLE", environ):
            return cls(None, disabled=True)
        _one_of("TLOGS_STDERR", environ, ("keep", "quiet"))
        _one_of("TLOGS_LEASES", environ, ("over",))
        return cls(
            address=find_address(collector, environ, secret=secret),
            capture_warnings=is_on("TLOGS_CAPTURE_WARNINGS", environ),
        )


def is_on(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a switch is on: set, and neither empty nor 0."""
    return environ.get(name, "") not in ("", "0")


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that looks like ours and is not."""
    found = []
    for name in sorted(environ):
        if name.startswith("TLOGS_") and name not in KNOWN:
            close = difflib.get_close_matches(name, KNOWN, n=1)
            found.append(f"unknown variable {name}" + (f" (did you mean {close[0]}?)" if close else ""))
    return found


def _one_of(name: str, environ: Mapping[str, str], values: tuple[str, ...]) -> None:
    value = environ.get(name, "")
    if value and value not in values:
        raise ConfigError(f"{name}={value!r}: expected {' or '.join(values)}")
