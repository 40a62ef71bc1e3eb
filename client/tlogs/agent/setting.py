"""What a worker was given to reach its collector with, and the address that this means now.

The address is found afresh for each connection: a collector that was started again may listen elsewhere, and a secret
may be put right while the job runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlogs.access.discovery import Address, find_address, live_notices
from tlogs_shared.errors import ConfigError

__all__ = ["Setting"]

OWN: Final = ("TLOGS_COLLECTOR", "TLOGS_SECRET", "TLOGS_SECRET_FILE", "TLOGS_INSECURE")
"""What the process was given that happened to start the agent, and no other."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A secret, or where it stands, as one worker was given it; and whether it asked for none."""

    secret: str | None = None
    secret_file: str | None = None
    insecure: bool = False

    def resolve(self, collector: str, environ: Mapping[str, str], known: Path | None) -> Address:
        """Find the address of *collector*, which stored into the directory *known* when it was found before.

        Raises:
            ConfigError: it cannot be found at present, or the secret cannot be used.
        """
        environ = {name: value for name, value in environ.items() if name not in OWN}
        found = self._find(collector, environ)
        if not found.socket and known is not None and not self.insecure:
            for notice in live_notices(environ):
                if Path(notice.directory) == known:
                    return self._find(str(known), environ)
        return found

    def _find(self, collector: str, environ: Mapping[str, str]) -> Address:
        found = find_address(
            collector, environ, secret_file=self.secret_file, secret=self.secret, insecure=self.insecure
        )
        if found is None:
            raise ConfigError("no collector was named")
        return found
