"""Whose end was for want of memory."""

from __future__ import annotations

import os
from pathlib import Path

from tlogs.agent.oom import OomLedger, find_counter, read_counter


def test_an_increase_is_claimed_once(tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom 1\noom_kill 3\n")
    ledger = OomLedger()
    ledger.follow(counter)
    assert not ledger.claim(counter)
    counter.write_text("oom 2\noom_kill 4\n")
    ledger.follow(counter)  # another process of the same cgroup
    assert ledger.claim(counter)
    assert not ledger.claim(counter)


def test_an_old_increase_is_nobodys(tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 0\n")
    ledger = OomLedger()
    ledger.follow(counter)
    counter.write_text("oom_kill 1\n")
    ledger.refresh()
    assert not ledger.claim(counter)


def test_a_counter_that_goes_claims_nothing(tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 0\n")
    ledger = OomLedger()
    ledger.follow(counter)
    counter.unlink()
    ledger.refresh()
    counter.write_text("oom_kill 9\n")
    assert not ledger.claim(counter)


def test_every_process_here_has_a_counter() -> None:
    assert read_counter(find_counter(os.getpid())) is not None


def test_where_no_cgroup_is_seen_the_machine_counts(tmp_path: Path) -> None:
    assert find_counter(os.getpid(), tmp_path) == Path("/proc/vmstat")
