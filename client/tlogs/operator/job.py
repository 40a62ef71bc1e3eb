"""The operator's API: `tlogs.connect()` and what it returns."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypedDict, cast

from tlogs.access.connection import ANSWER_S, Operator, author
from tlogs.access.discovery import find_address, find_live
from tlogs.operator.change import DEFAULT_TTL_S, Result, lease_of, rank_set
from tlogs.reading.cursor import Cursor, filter_for
from tlogs.reading.filters import FilterOptions
from tlogs.reading.follow import follow as follow_runs
from tlogs.reading.library import CollectorLibrary, Library, LocalLibrary
from tlogs.reading.ranks import RankRow, live_rows
from tlogs.reading.record import Record, record_of
from tlogs_shared.errors import MessageError, TlogsError
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.rows import LeaseRow, RankLevels, RanksReport
from tlogs_shared.protocol.wire import unpack_plain
from tlogs_shared.rankset import RankSet

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from 3.11 on

__all__ = ["DEFAULT_TTL_S", "Job", "Result", "connect"]


class JobLevels(TypedDict):
    """The leases in force in a run, and the levels of each rank, by its number as text."""

    run: str
    leases: list[LeaseRow]
    ranks: dict[str, RankLevels]


def _report(packed: bytes) -> RankLevels:
    """A rank's report of its levels; empty where it has not come yet, or cannot be read."""
    try:
        return cast(RankLevels, unpack_plain(packed)) if packed else {}
    except MessageError:
        return {}


class Job:
    """A connection to the collector of a job; a context manager."""

    def __init__(self, operator: Operator, run: str | None) -> None:
        self._operator = operator
        self._run = run

    def __repr__(self) -> str:
        return f"<tlogs.Job at {self._operator.address.endpoint}, run {self._run or 'the newest'}>"

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._operator.close()

    def set_logs(
        self,
        *,
        ranks: str | RankSet = "all",
        hosts: str | None = None,
        ttl: float | None = DEFAULT_TTL_S,
        replace: bool = False,
        force: bool = False,
        timeout: float = ANSWER_S,
        modules: Mapping[str, int | bool] | None = None,
        **settings: int | bool,
    ) -> Result:
        """Change levels on the running job and wait for the answers.

        Names are torch's (``c10d=logging.DEBUG, recompiles=True``); an overlay, so only what is named changes, and
        False turns an artifact off. With *replace* it is torch's `set_logs`: what is not named returns to its default.
        It ends after *ttl* seconds (None: never). *timeout* bounds the wait for answers, in seconds.

        Raises:
            DirectiveError: a setting that is neither a level nor a bool.
            ConfigError: *ranks* is not a rank set.
            RequestRefused: nothing was changed: no live rank in scope, or no rank knows the name.
            CollectorUnavailable: the collector does not answer.
        """
        lease = lease_of(
            settings, modules, ranks=ranks, hosts=hosts, ttl=ttl, replace=replace, force=force, author=author()
        )
        return self.lay(lease, timeout=timeout)

    def lay(self, lease: Lease, *, timeout: float = ANSWER_S) -> Result:
        """Lay a lease and wait for the answers; raises as `set_logs`."""
        return Result.of(self._operator.change(lease, run=self._run, timeout=timeout))

    def reset(self, *revisions: int, timeout: float = ANSWER_S) -> Result:
        """End these leases, or all of them; with none in force, `ended` of the result is empty.

        Raises:
            RequestRefused: none of these leases is in force.
            CollectorUnavailable: the collector does not answer.
        """
        return Result.of(self._operator.reset(revisions, run=self._run, timeout=timeout))

    def levels(self) -> JobLevels:
        """Leases in force and each rank's levels, as `tlogs levels --json` prints them."""
        found = self._operator.levels(self._run)
        # The same report from many ranks came once.
        groups = [(rank_set(ranks), _report(packed)) for ranks, packed in found["groups"]]
        ranks = {rank: report for group, report in groups for rank in group}
        return {
            "run": found["run"],
            "leases": found["leases"],
            "ranks": {str(rank): ranks[rank] for rank in sorted(ranks)},
        }

    def ranks(self, *, every_attempt: bool = False) -> list[RankRow]:
        """A row for each rank's newest attempt, or for every one, as `tlogs ranks --json` prints it."""
        return self.said(self.census(every_attempt=every_attempt))

    def census(self, *, every_attempt: bool = False) -> RanksReport:
        """What the collector knows of the ranks, and what it has refused."""
        return self._operator.ranks(self._run, every_attempt=every_attempt)

    def said(self, found: RanksReport) -> list[RankRow]:
        """The rows of a census, with what each rank said last: that is read from the store."""
        name, directory = found["run"], self._operator.address.directory
        if name is None:
            return []
        library: Library = LocalLibrary(directory) if directory is not None else self._library()
        try:
            run = library.open(name)
        except (TlogsError, OSError):
            run = None  # removed, or not readable from here
        return live_rows(found["rows"], run)

    def _library(self) -> CollectorLibrary:
        return CollectorLibrary(self._operator, self._operator.address.endpoint)

    def tail(
        self, *, follow: bool = True, count: int = 10, timeout: float | None = None, **filters: Unpack[FilterOptions]
    ) -> Iterator[Record]:
        """The last *count* records, then what comes while the run is live, for at most *timeout* seconds.

        *filters* are those of `tlogs.read`. A collector that goes away is waited for, as it may be restarted; after
        10 s without it this ends.

        Raises:
            ConfigError: no such run, or a filter whose value cannot be used.
            CollectorUnavailable: the collector does not answer.
        """
        library = self._library()
        run = library.open(self._run or "latest")
        if follow:
            shown = follow_runs(library, run, filters, count, timeout=math.inf if timeout is None else timeout)
            return (record_of(entry) for entries, _ in shown for entry in entries)
        cursor = Cursor(run, filter_for(run, filters))
        return (record_of(entry) for entry in cursor.last(count))


def connect(
    collector: str | None = None,
    *,
    run: str | None = None,
    timeout: float = ANSWER_S,
    secret: str | None = None,
    secret_file: str | None = None,
) -> Job:
    """Connect to a collector: *collector*, else TLOGS_COLLECTOR, else the only live one of this user here.

    Raises:
        CollectorUnavailable: none was found, several were, or it does not answer within *timeout* seconds.
        AccessDenied: its secret is another one.
        ConfigError: *collector* is no endpoint, directory or `collector.json`.
    """
    environ = os.environ
    address = find_address(collector, environ, secret_file=secret_file, secret=secret) or find_live(
        environ, secret_file=secret_file, secret=secret
    )
    return Job(Operator(address, timeout=timeout), run)
