"""The leases in force on a process: answers by revision, and a record at each start and end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlogs.loggers.controller import Levels
from tlogs.loggers.leases import Leases, describe
from tlogs.loggers.outcome import Outcome
from tlogs_shared.protocol.lease import Lease

DEBUG = Lease(1, {"c10d": 10}, author="me@host")
GUARDS = Lease(2, {"guards": True})
UNKNOWN = Lease(3, {"nope": 10})


class ScriptedLevels(Levels):
    """Levels that only note what is laid, and do not know `nope`."""

    def __init__(self) -> None:
        super().__init__()
        self.laid: list[list[int]] = []

    def overlay(self, leases: Sequence[Lease]) -> Outcome:
        self.laid.append([lease.revision for lease in leases])
        known = not leases or "nope" not in leases[-1].settings
        return Outcome("applied") if known else Outcome("failed", "unknown name 'nope'")

    def report(self) -> dict[str, Any]:
        return {"laid": self.laid[-1]}


def texts(records: Sequence[tuple[str, Any]]) -> list[str]:
    return [text for text, _ in records]


def test_each_new_lease_is_judged_with_those_below_it() -> None:
    levels = ScriptedLevels()
    laid = Leases(levels).lay([DEBUG, GUARDS], [DEBUG, GUARDS], [])
    assert levels.laid == [[1], [1, 2]]
    assert laid.answers == {1: ("applied", ""), 2: ("applied", "")}
    assert laid.report == {"laid": [1, 2]}
    assert texts(laid.records) == ["lease 1 began: c10d=DEBUG (by me@host)", "lease 2 began: guards=on"]
    assert laid.records[0][1] == {"revision": 1, "settings": {"c10d": 10}, "author": "me@host"}


def test_a_lease_that_ended_has_no_answer_any_more_and_its_end_is_a_record() -> None:
    levels = ScriptedLevels()
    leases = Leases(levels)
    leases.lay([DEBUG], [DEBUG], [])
    laid = leases.lay([], [], [DEBUG])
    assert levels.laid[-1] == []
    assert laid.answers == {}
    assert texts(laid.records) == ["lease 1 ended: c10d=DEBUG (by me@host)"]
    assert texts(leases.lay([], [], [DEBUG]).records) == []


def test_a_lease_that_failed_here_is_answered_and_leaves_no_record() -> None:
    leases = Leases(ScriptedLevels())
    laid = leases.lay([UNKNOWN], [UNKNOWN], [])
    assert laid.answers == {3: ("failed", "unknown name 'nope'")}
    assert [*laid.records, *leases.lay([], [], [UNKNOWN]).records] == []


def test_a_lease_is_described_by_what_it_sets_and_until_when() -> None:
    assert describe(Lease(1, {}, replace=True)) == "defaults"
    assert describe(Lease(1, {"c10d": 10}, ends_ns=1_700_000_000_000_000_000)).startswith("c10d=DEBUG until ")
