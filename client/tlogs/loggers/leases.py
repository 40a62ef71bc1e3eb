"""The leases in force on this process: applied over its levels, answered, and reported in its own stream."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tlogs.loggers.controller import Levels
from tlogs_shared.level_names import setting_text
from tlogs_shared.protocol.lease import Lease

__all__ = ["Laid", "Leases", "describe"]


@dataclass(frozen=True, slots=True)
class Laid:
    """The result of one change of leases.

    `answers` has the kind and the reason for each lease in force, by revision; `report` is `Levels.report()` after
    the change; `records` are the starts and ends to write into the stream, each a text with its fields.
    """

    answers: Mapping[int, tuple[str, str]]
    report: Mapping[str, Any]
    records: Sequence[tuple[str, Mapping[str, Any]]] = field(default_factory=list)


class Leases:
    """Lays leases over *levels* and keeps the answer to each. Not thread-safe: one thread calls it."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._answers: dict[int, tuple[str, str]] = {}
        self._told: set[int] = set()

    def lay(self, leases: Sequence[Lease], began: Collection[Lease], ended: Collection[Lease]) -> Laid:
        """Make *leases*, oldest first, all that is in force; *began* and *ended* are the ones that changed."""
        # A new lease is judged together with those below it only; several may arrive at once.
        new = {lease.revision for lease in began} - self._answers.keys()
        for end, lease in enumerate(leases, 1):
            if lease.revision in new or end == len(leases):
                outcome = self._levels.overlay(leases[:end])
                self._answers[lease.revision] = (outcome.kind, outcome.reason)
        if not leases:
            self._levels.overlay([])
        in_force = {lease.revision for lease in leases}
        self._answers = {revision: answer for revision, answer in self._answers.items() if revision in in_force}
        return Laid(dict(self._answers), self._levels.report(), [*self._starts(began), *self._ends(ended)])

    def _starts(self, began: Collection[Lease]) -> list[tuple[str, Mapping[str, Any]]]:
        # A lease that failed here, for example for an unknown name, changed nothing: its answer tells, not a record.
        told = [lease for lease in began if self._answers[lease.revision][0] != "failed"]
        self._told.update(lease.revision for lease in told)
        return [(f"lease {lease.revision} began: {describe(lease)}", _fields(lease)) for lease in told]

    def _ends(self, ended: Collection[Lease]) -> list[tuple[str, Mapping[str, Any]]]:
        told = [lease for lease in ended if lease.revision in self._told]
        self._told.difference_update(lease.revision for lease in told)
        return [(f"lease {lease.revision} ended: {describe(lease)}", _fields(lease)) for lease in told]


def describe(lease: Lease) -> str:
    """The settings of *lease*, its end and its author, in words.

    >>> describe(Lease(1, {"guards": True, "c10d": 10}, author="me@host"))
    'c10d=DEBUG, guards=on (by me@host)'
    """
    settings = ", ".join(f"{name}={setting_text(value)}" for name, value in sorted(lease.settings.items()))
    until = ""
    if lease.ends_ns is not None:
        until = f" until {datetime.fromtimestamp(lease.ends_ns / 1e9).astimezone():%H:%M:%S}"
    return f"{settings or 'defaults'}{until}" + (f" (by {lease.author})" if lease.author else "")


def _fields(lease: Lease) -> dict[str, Any]:
    return {"revision": lease.revision, "settings": dict(lease.settings), "author": lease.author}
