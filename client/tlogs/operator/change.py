"""A change of levels: what is asked for, and what became of it.

Apart from the connection that carries it, since a worker that asks for one has no connection to a collector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final

from tlogs.levels.set_logs import in_call_order
from tlogs_shared.errors import DirectiveError
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.rows import ChangeReport
from tlogs_shared.rankset import RankSet

__all__ = ["DEFAULT_TTL_S", "Result", "lease_of", "rank_set"]

DEFAULT_TTL_S: Final = 600.0
"""A lease ends by itself after ten minutes: nobody remembers to turn a level down again."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a change of levels.

    `applied` and `silent` are rank sets, `ignored` and `failed` say why by rank, `until` is when the lease ends (None:
    never). `ended` are the revisions of the leases that a reset ended.
    """

    run: str
    revision: int
    applied: RankSet
    ignored: Mapping[int, str]
    failed: Mapping[int, str]
    silent: RankSet
    until: datetime | None
    took_ms: float
    ended: Sequence[int] = field(default_factory=tuple)

    @property
    def is_complete(self) -> bool:
        """True if every rank in scope has applied it."""
        return not (self.ignored or self.failed or self.silent)

    @classmethod
    def of(cls, data: ChangeReport) -> Result:
        """Read a collector's report."""
        until = data["until_ns"]
        return cls(
            run=data["run"],
            revision=data["revision"],
            applied=rank_set(data["applied"]),
            ignored={int(rank): why for rank, why in data["ignored"].items()},
            failed={int(rank): why for rank, why in data["failed"].items()},
            silent=rank_set(data["silent"]),
            until=None if until is None else datetime.fromtimestamp(until / 1e9, tz=timezone.utc),
            took_ms=data["took_ms"],
            ended=data["ended"],
        )

    def asdict(self) -> dict[str, Any]:
        """The result as `tlogs set-logs --json` prints it."""
        return {
            "run": self.run,
            "revision": self.revision,
            "until": None if self.until is None else self.until.isoformat(),
            "applied": str(self.applied),
            "ignored": {str(rank): why for rank, why in self.ignored.items()},
            "failed": {str(rank): why for rank, why in self.failed.items()},
            "silent": str(self.silent),
            "took_ms": self.took_ms,
        }


def lease_of(
    settings: Mapping[str, int | bool],
    modules: Mapping[str, int | bool] | None,
    *,
    ranks: str | RankSet,
    hosts: str | None,
    ttl: float | None,
    replace: bool,
    force: bool,
    author: str,
) -> Lease:
    """The lease that a call asks for, with its settings in the order in which torch's set_logs() applies them.

    Raises:
        DirectiveError: a setting that is neither a level nor a bool.
        ConfigError: *ranks* is no rank set.
    """
    wanted = {**in_call_order(settings), **(modules or {})}
    for name, value in wanted.items():
        if type(value) is not bool and (type(value) is not int or value < 0):
            raise DirectiveError(f"{name}={value!r}: expected a level such as logging.DEBUG, or True or False")
    if not wanted and not replace:
        raise DirectiveError("nothing to set: expected a setting such as c10d=logging.DEBUG or recompiles=True")
    scope = ranks if isinstance(ranks, RankSet) else RankSet.parse(ranks)
    return Lease(0, wanted, scope, hosts, ttl_s=ttl, author=author, replace=replace, force=force)


def rank_set(text: str) -> RankSet:
    """A rank set as a report has it: empty where nobody is meant."""
    return RankSet.parse(text) if text else RankSet()
