"""Where a collector listens: `tcp://HOST:PORT`, also written `HOST:PORT`.

ZeroMQ's own words: a collector *binds* an endpoint, the others *connect* to it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from tlogs_shared.errors import ConfigError

__all__ = ["DEFAULT_PORT", "Endpoint"]

DEFAULT_PORT: Final = 5655
_PORT: Final = re.compile(r"\d{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port; port 0 stands for any free one, host `*` for all interfaces.

    >>> str(Endpoint.parse("node1:5655")), Endpoint.parse("tcp://127.0.0.1:*", listening=True).port
    ('tcp://node1:5655', 0)
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, source: str = "endpoint", listening: bool = False) -> Endpoint:
        """Read an endpoint; only one to listen on may leave the port open.

        Raises:
            ConfigError: *text* is not an endpoint; *source* names where it was found.
        """
        bare = text.strip().removeprefix("tcp://")
        host, colon, port = bare.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""  # an IPv6 address without brackets: where the port begins is a guess
        number = 0 if port in ("*", "0") else int(port) if _PORT.fullmatch(port) else -1
        if not colon or not host or "/" in host or " " in host or not 0 <= number <= 65535:
            raise ConfigError(f"{source} {text!r}: expected tcp://HOST:PORT, such as tcp://127.0.0.1:{DEFAULT_PORT}")
        if not listening and (number == 0 or host == "*"):
            raise ConfigError(
                f"{source} {text!r}: expected the host and port that the collector printed when it started"
            )
        return cls(host, number)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can be at the other end."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_wildcard(self) -> bool:
        """Whether all interfaces are meant."""
        return self.host in ("*", "0.0.0.0", "::")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port or '*'}"
