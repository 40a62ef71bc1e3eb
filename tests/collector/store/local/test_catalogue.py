"""Which runs a daemon takes for left behind when it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tlogs_collector.store.local.catalogue import left_open
from tlogs_collector.store.local.local_store import LocalStore


def make(store: LocalStore, name: str, **meta: Any) -> None:
    """A run in the directory of *store*, open."""
    store.open_run(name, {"key": f"key of {name}", "created_ns": 7, **meta})


def test_a_run_whose_daemon_died_is_left_open_and_no_other(tmp_path: Path) -> None:
    dead, alive = LocalStore(tmp_path), LocalStore(tmp_path)
    make(dead, "left")
    make(dead, "closed")
    dead.set_meta("closed", {"key": "k", "created_ns": 7, "ended_ns": 8})
    dead.close()
    make(alive, "owned")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "run.json").write_text(json.dumps([1]))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"key": ')
    (tmp_path / "secret").write_text("x")
    try:
        assert [(known.name, known.key, known.created_ns) for known in left_open(tmp_path)] == [
            ("left", "key of left", 7)
        ]
    finally:
        alive.close()


def test_a_run_is_not_left_behind_while_its_daemon_lives(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    make(store, "mine")
    assert left_open(tmp_path) == []
    store.close()
    assert [known.name for known in left_open(tmp_path)] == ["mine"]
