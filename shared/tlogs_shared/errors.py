"""Every exception that tlogs raises on purpose.

::

    TlogsError
    ├── DirectiveError(ValueError)              a TORCH_LOGS text or set_logs() call; ValueError, as torch raises
    ├── ConfigError(ValueError)                 configuration; the text names the variable or option and its value
    │   └── RequestRefused                      the collector refused: no live rank in scope, an unknown run or name
    ├── CollectorUnavailable(ConnectionError)   nobody answers there
    │   └── AccessDenied                        somebody answers; the secret is wrong or missing
    ├── ProtocolError                           a peer broke the protocol: drop that peer, keep serving
    │   └── MessageError                        bytes that are not a message
    └── StoreError(OSError)                     the disk; ``filename`` carries the path

Set-up raises these; a logging call never raises any of them.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "CollectorUnavailable",
    "ConfigError",
    "DirectiveError",
    "MessageError",
    "ProtocolError",
    "RequestRefused",
    "StoreError",
    "TlogsError",
]


class TlogsError(Exception):
    """The root: `except tlogs.TlogsError` catches whatever tlogs raises on purpose."""


class DirectiveError(TlogsError, ValueError):
    """A TORCH_LOGS text or a set_logs() call that cannot be understood."""


class ConfigError(TlogsError, ValueError):
    """A variable, option or argument whose value cannot be used."""


class RequestRefused(ConfigError):
    """The collector refused a request and changed nothing: no live rank in scope, an unknown run, an unknown name.

    A ConfigError, because what was asked for cannot be used; of its own, because the same request may succeed later.
    """


class CollectorUnavailable(TlogsError, ConnectionError):
    """No collector was found, or none answers at the endpoint."""


class AccessDenied(CollectorUnavailable):
    """A collector answers, but the secret is wrong or missing."""


class ProtocolError(TlogsError):
    """A peer sent something that is not allowed at this point of the conversation."""


class MessageError(ProtocolError):
    """Bytes that are not a message, record or batch."""


class StoreError(TlogsError, OSError):
    """Reading or writing the store failed; `filename` is the path."""
