"""The thread that waits for the disk."""

from __future__ import annotations

import select
from typing import Any

import pytest

from tlogs_collector.syncer import Syncer
from tlogs_shared.errors import StoreError


class Disk:
    """A store of which only the sync is asked for."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def sync(self) -> int:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return int(self.outcome)

    def retain(self) -> bool:
        return False


def synced(outcome: Any) -> Syncer:
    """A syncer that has had something to do, and has something to say of it."""
    store: Any = Disk(outcome)
    syncer = Syncer(store)
    syncer.wake()
    assert select.select([syncer.ready], [], [], 10.0)[0]
    return syncer


def test_what_a_sync_covers_is_told() -> None:
    syncer = synced(7)
    assert syncer.take() == (7, [])
    syncer.stop()


def test_a_disk_that_fails_is_told_and_tried_again() -> None:
    error = StoreError(5, "I/O error", "/x")
    syncer = synced(error)
    assert syncer.take() == (0, [error])
    syncer.stop()


def test_a_fault_of_our_own_ends_the_daemon_and_is_seen() -> None:
    """A thread that died without a word would leave all ranks waiting for acknowledgements for ever."""
    syncer = synced(ZeroDivisionError("x"))
    with pytest.raises(ZeroDivisionError):
        syncer.take()
    syncer.stop()
