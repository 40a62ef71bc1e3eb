"""tlogs: read and steer the logs of multi-rank PyTorch jobs.

In a worker::

    import tlogs
    tlogs.init()

From outside::

    with tlogs.connect() as job:
        job.set_logs(c10d=logging.DEBUG)

The modules, in reading order. The worker: `session` (init to shutdown) with `config`, `identity` and `discovery`;
`intake` and `crash` (records and last words); `outbox` with `outbox_file`, `extents`, `drops` and `excerpt`; `link`
(every decision) with `tenure`, and `forwarder` (the one thread with the socket) with `transport`, made together by
`channel`. Levels: `apply` and `layer` over a `base`, which is `alone` or `torch_bridge`; `mirror` is torch's own
functions. The operator: `operator`, `job`, `broadcast`. Reading: `archive`, `source`, `reader`. What dead processes
left: `salvage`, `relic`, `recovery`. The command: `cli`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tlogs.loggers.torch_api import getArtifactLogger, register_artifact, register_log, set_logs
    from tlogs.operator.broadcast import broadcast
    from tlogs.operator.job import Job, Result, connect
    from tlogs.reading.reader import read, runs
    from tlogs.worker.session import Session, flush, init, shutdown
    from tlogs_shared.errors import (
        AccessDenied,
        CollectorUnavailable,
        ConfigError,
        DirectiveError,
        MessageError,
        ProtocolError,
        StoreError,
        TlogsError,
    )
    from tlogs_shared.storage.record import Record

__all__ = [
    "AccessDenied",
    "CollectorUnavailable",
    "ConfigError",
    "DirectiveError",
    "Job",
    "MessageError",
    "ProtocolError",
    "Record",
    "Result",
    "Session",
    "StoreError",
    "TlogsError",
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
    "tlogs.reading.reader": ("read", "runs"),
    "tlogs.worker.session": ("Session", "flush", "init", "shutdown"),
    "tlogs_shared.storage.record": ("Record",),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a worker that calls `init` loads none of the reader, a reader none of the sockets."""
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
