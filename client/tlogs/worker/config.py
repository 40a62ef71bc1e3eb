"""What the environment and init()'s arguments ask for, read in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tlogs.access.discovery import is_path
from tlogs.outbox.file import outbox_capacity
from tlogs_shared.errors import ConfigError
from tlogs_shared.host import read_secret_file
from tlogs_shared.protocol.endpoint import Endpoint
from tlogs_shared.protocol.secret import parse_secret

__all__ = ["KNOWN", "Config", "Target", "is_on", "unknown_names"]

KNOWN: Final = frozenset(
    {
        "TLOGS_AGENT",
        "TLOGS_CAPTURE_WARNINGS",
        "TLOGS_COLLECTOR",
        "TLOGS_DIR",
        "TLOGS_DISABLE",
        "TLOGS_INSECURE",
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
class Target:
    """The collector as this process was asked to use it; the agent finds it, afresh at each attempt to connect.

    `collector` is an endpoint, or the absolute path of a directory or a `collector.json`; `secret` and `secret_file`
    are what this process was given itself.
    """

    collector: str
    secret: str | None = None
    secret_file: str | None = None
    insecure: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], collector: str | None, secret: str | None) -> Target | None:
        """Read the environment; an argument beats it. None where neither names a collector.

        A path need not lead anywhere yet: the collector may be started later.

        Raises:
            ConfigError: an endpoint or a secret that cannot be used.
        """
        source = "collector" if collector else "TLOGS_COLLECTOR"
        text = collector or environ.get("TLOGS_COLLECTOR")
        if not text:
            return None
        text = os.path.abspath(text) if is_path(text) else str(Endpoint.parse(text, source=source))
        secret_file = None
        if secret is not None:
            parse_secret(secret, "secret")
        elif path := environ.get("TLOGS_SECRET_FILE"):
            read_secret_file(path)
            secret_file = os.path.abspath(path)
        elif found := environ.get("TLOGS_SECRET"):
            parse_secret(found, "TLOGS_SECRET")
            secret = found
        return cls(text, secret, secret_file, is_on("TLOGS_INSECURE", environ))


@dataclass(frozen=True, slots=True)
class Config:
    """What this process was asked to do."""

    target: Target | None
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
        outbox_capacity(environ)
        return cls(
            target=Target.from_environ(environ, collector, secret),
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
            import difflib

            close = difflib.get_close_matches(name, KNOWN, n=1)
            found.append(f"unknown variable {name}" + (f" (did you mean {close[0]}?)" if close else ""))
    return found


def _one_of(name: str, environ: Mapping[str, str], values: tuple[str, ...]) -> None:
    value = environ.get(name, "")
    if value and value not in values:
        raise ConfigError(f"{name}={value!r}: expected {' or '.join(values)}")
