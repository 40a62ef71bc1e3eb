"""tlogs: read and steer the logs of multi-rank PyTorch jobs.

In a worker::

    import tlogs
    tlogs.init()

From outside::

    with tlogs.connect() as job:
        job.set_logs(c10d=logging.DEBUG)

What `__all__` lists is public, and nothing else: a name that is renamed or removed keeps working, with a
DeprecationWarning, for two minor releases.

The packages, in reading order. The worker: `worker` (init to shutdown), which writes what is logged into its `outbox`.
Levels: `levels` (names, grammar and meaning; pure) and `loggers` (put onto `logging`, with and without torch). The
operator: `operator` over `access`. Reading: `reading`. The command: `cli`.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tlogs.loggers.torch_api import getArtifactLogger, register_artifact, register_log, set_logs
    from tlogs.operator.broadcast import broadcast
    from tlogs.operator.job import Job, Result, connect
    from tlogs.reading.record import Record
    from tlogs.reading.runs import RunSummary
    from tlogs.reading.stored import read, runs
    from tlogs.worker.session import Session, flush, init, shutdown
    from tlogs_shared.errors import (
        AccessDenied,
        CollectorUnavailable,
        ConfigError,
        DirectiveError,
        MessageError,
        ProtocolError,
        RequestRefused,
        StoreError,
        TlogsError,
    )
    from tlogs_shared.rankset import RankSet
    from tlogs_shared.version import __version__

__all__ = [
    "AccessDenied",
    "CollectorUnavailable",
    "ConfigError",
    "DirectiveError",
    "Job",
    "MessageError",
    "ProtocolError",
    "RankSet",
    "Record",
    "RequestRefused",
    "Result",
    "RunSummary",
    "Session",
    "StoreError",
    "TlogsError",
    "__version__",
    "broadcast",
    "connect",
    "flush",
    "getArtifactLogger",
    "init",
    "read",
    "register_artifact",
    "register_log",
    "runs",
    "set_logs",
    "shutdown",
]

_HOMES: Final = {
    "tlogs.operator.broadcast": ("broadcast",),
    "tlogs.operator.job": ("Job", "Result", "connect"),
    "tlogs.loggers.torch_api": ("getArtifactLogger", "register_artifact", "register_log", "set_logs"),
    "tlogs.reading.runs": ("RunSummary",),
    "tlogs.reading.stored": ("read", "runs"),
    "tlogs.worker.session": ("Session", "flush", "init", "shutdown"),
    "tlogs_shared.rankset": ("RankSet",),
    "tlogs.reading.record": ("Record",),
    "tlogs_shared.version": ("__version__",),
}

_RENAMED: Final[dict[str, str]] = {}
"""Former public names, each with the one that takes its place; CHANGELOG.md tells for how long they stay."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `init` loads no reader, a reader no sockets."""
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"tlogs.{name} is deprecated: use tlogs.{new}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module("tlogs"), new)
    for home, names in _HOMES.items():
        if name in names:
            found = getattr(importlib.import_module(home), name)
            break
    else:
        errors = importlib.import_module("tlogs_shared.errors")
        if name not in errors.__all__:
            raise AttributeError(f"module 'tlogs' has no attribute {name!r}")
        found = getattr(errors, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
