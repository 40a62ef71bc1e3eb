"""Rows for operators: what is taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from tlogs_shared.errors import MessageError
from tlogs_shared.protocol.rows import PeerRow, RunRow, expect

RUN: RunRow = {
    "name": "r", "created_ns": 1, "live": True, "over": False, "ranks": 1, "records": 2, "dropped": 0, "lost": 0
}  # fmt: skip


def test_a_row_may_have_more_keys_than_are_known_here() -> None:
    newer: Any = {**RUN, "colour": "red"}
    assert expect(RunRow, newer) == newer


@pytest.mark.parametrize("value", [None, [], "x", 3, {}, {"name": "r"}])
def test_what_lacks_a_key_is_not_a_row(value: Any) -> None:
    with pytest.raises(MessageError, match="expected a RunRow, found"):
        expect(RunRow, value)


def test_keys_that_a_row_has_only_sometimes_may_be_missing() -> None:
    assert PeerRow.__required_keys__.isdisjoint({"duplicate", "outbox"})
    assert PeerRow.__required_keys__ >= {"rank", "state", "stored"}
