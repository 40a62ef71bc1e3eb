"""`collector.json`: where a collector can be reached, as it says itself. Pure: text in, text out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tlogs_shared.errors import ConfigError
from tlogs_shared.protocol.endpoint import Endpoint

__all__ = ["FILE_NAME", "Notice"]

FILE_NAME: Final = "collector.json"


@dataclass(frozen=True, slots=True)
class Notice:
    """What a collector writes into its directory, readable by its user only.

    `endpoint` is for other hosts and users who have `secret`; `socket` is the path of the unix socket by which
    processes of this user on its host (`boot_id`) reach it without one. `instance` names this life of the collector.
    """

    endpoint: str
    secret: str | None
    pid: int
    host: str
    boot_id: str
    directory: str
    version: str
    socket: str = ""
    instance: str = ""
    runs: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> Notice:
        """Read the file's text; *source* is its path.

        Raises:
            ConfigError: it is not what a collector writes.
        """
        try:
            values: Any = json.loads(text)
            notice = cls(
                endpoint=str(Endpoint.parse(str(values["endpoint"]), source=source)),
                secret=None if values["secret"] is None else str(values["secret"]),
                pid=int(values["pid"]),
                host=str(values["host"]),
                boot_id=str(values.get("boot_id", "")),
                directory=str(values["directory"]),
                version=str(values.get("version", "")),
                socket=str(values.get("socket", "")),
                instance=str(values.get("instance", "")),
                runs=[str(run) for run in values.get("runs", ())],
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{source}: expected the file that a collector writes, found {text[:40]!r}") from None
        return notice
