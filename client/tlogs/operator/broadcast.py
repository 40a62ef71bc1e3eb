"""`tlogs.broadcast()`: a lease for the whole job, asked for by the job itself.

It is no collective: a rank asks the collector and goes on. The same call from many ranks of one attempt is one lease,
because each names the call by what it asks for and by how many times it has asked for that: a call that only rank 0
makes does not shift the others.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Mapping

from tlogs.operator.change import DEFAULT_TTL_S, Result, lease_of
from tlogs.worker.session import current
from tlogs_shared.errors import RequestRefused
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.rankset import RankSet

__all__ = ["broadcast"]

log = logging.getLogger("tlogs")
_lock = threading.Lock()
_calls: Counter[str] = Counter()


def broadcast(
    *,
    ranks: str | RankSet = "all",
    hosts: str | None = None,
    ttl: float | None = DEFAULT_TTL_S,
    replace: bool = False,
    force: bool = False,
    wait: float = 0.0,
    modules: Mapping[str, int | bool] | None = None,
    **settings: int | bool,
) -> Result | None:
    """Change levels on the whole job from inside it; names and values as `Job.set_logs` takes them.

    Returns None at once; with *wait*, collects answers for that many seconds and returns the result. Where no collector
    is named or none answers it logs a warning and returns None: a job must not fail because of its logs.

    Raises:
        DirectiveError: a setting that is neither a level nor a bool.
        ConfigError: *ranks* is not a rank set.
        RequestRefused: with *wait*: nothing was changed; the text says why.
    """
    session = current()
    author = "job" if session is None or session.rank is None else f"rank{session.rank}"
    lease = lease_of(settings, modules, ranks=ranks, hosts=hosts, ttl=ttl, replace=replace, force=force, author=author)
    call = _name_of(lease)
    if session is None or session.stream is None:
        log.warning("tlogs: broadcast without a collector: call tlogs.init() first, with TLOGS_COLLECTOR set")
        return None
    report = session.stream.control.ask(lease, call, wait)
    if wait <= 0:
        return None
    if report is None:
        log.warning("tlogs: broadcast: no answer from %s", session.collector)
        return None
    if report.error:
        raise RequestRefused(report.error)
    return Result.of(report.data)


def _name_of(lease: Lease) -> str:
    """The call's name: different for each call of this process, the same in every rank that makes this one."""
    asked = {name: value for name, value in lease.as_map().items() if name != "author"}
    asked["settings"] = sorted(lease.settings.items())
    digest = hashlib.sha256(repr(sorted(asked.items())).encode()).hexdigest()[:16]
    with _lock:
        _calls[digest] += 1
        return f"{digest}:{_calls[digest]}"
