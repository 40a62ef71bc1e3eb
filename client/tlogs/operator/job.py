"""The operator's API: `tlogs.connect()` and what it returns."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tlogs.access.connection import ANSWER_S, Operator, author
from tlogs.access.discovery import find_address, find_live
from tlogs.operator.change import DEFAULT_TTL_S, Result, lease_of, rank_set
from tlogs.reading.reader import Following, Reading, end_of, make_filter
from tlogs.reading.record import Record, record_of
from tlogs.reading.source import RemoteSource, told
from tlogs_shared.errors import ConfigError, MessageError
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.wire import unpack_plain
from tlogs_shared.rankset import RankSet

__all__ = ["DEFAULT_TTL_S", "Job", "Result", "connect"]


def _report(packed: bytes) -> dict[str, Any]:
    """What a rank says of its levels; nothing where it has not said it yet, or says what cannot be read."""
    try:
        return unpack_plain(packed) if packed else {}
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

    def levels(self) -> dict[str, Any]:
        """Leases in force and each rank's levels, as `tlogs levels --json` prints them."""
        found = self._operator.ask("levels", self._run)
        # The same report from many ranks came once.
        groups = [(rank_set(ranks), _report(packed)) for ranks, packed in found["groups"]]
        ranks = {rank: report for group, report in groups for rank in group}
        return {
            "run": found["run"],
            "leases": found["leases"],
            "ranks": {str(rank): ranks[rank] for rank in sorted(ranks)},
        }

    def ranks(self) -> list[dict[str, Any]]:
        """A row a rank, as `tlogs ranks --json` prints it."""
        rows: list[dict[str, Any]] = self._operator.ask("ranks", self._run)["rows"]
        return rows

    def census(self) -> tuple[list[dict[str, Any]], int]:
        """The rows of `ranks`, and how often somebody spoke without the secret or broke the protocol."""
        found = self._operator.ask("ranks", self._run)
        return found["rows"], found["rejected"]

    def tail(
        self, *, follow: bool = True, count: int = 10, timeout: float | None = None, **filters: Any
    ) -> Iterator[Record]:
        """The last *count* records, then what comes while the run is live, for at most *timeout* seconds.

        *filters* are those of `tlogs.read`.

        Raises:
            ConfigError: no such run, or a filter that cannot be used.
            CollectorUnavailable: the collector does not answer.
        """
        source = self._source()
        choice = make_filter(end_ns=lambda: end_of(source), **filters)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        return self._tail(source, Following(Reading(source, choice)), count, deadline if follow else 0.0)

    def _source(self) -> RemoteSource:
        rows = [row for row in self._operator.ask("runs") if self._run is None or row["name"].startswith(self._run)]
        if not rows:
            raise ConfigError("no run has begun yet" if self._run is None else f"no run {self._run!r} there")
        newest = max(rows, key=lambda row: (row["live"], row["created_ns"]))
        return RemoteSource(self._operator, newest["name"])

    @staticmethod
    def _tail(source: RemoteSource, following: Following, count: int, deadline: float) -> Iterator[Record]:
        watch = told(source.informant, source.name, lambda: True)
        news = watch(1.0)
        yield from map(record_of, following.begin(count, news))
        while not following.ended and (left := deadline - time.monotonic()) > 0:
            news = watch(min(following.wait_s, left))
            for entries, _ in following.step(news):
                yield from map(record_of, entries)


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


def level_name(value: int | bool) -> str:
    """A setting's value as an operator would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(logging.getLevelName(value))
