"""Where a run is looked for: the directory here first, then the collectors that this user can reach."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tlogs.access.discovery import Address
from tlogs.cli.place import Place
from tlogs.reading.archive import RunArchive
from tlogs.reading.source import RemoteSource, after
from tlogs_shared.errors import CollectorUnavailable, ConfigError
from tlogs_shared.host import boot_id
from tlogs_shared.protocol.messages import News
from tlogs_shared.protocol.notice import FILE_NAME, Notice
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.position import Position

NewRun = Callable[..., Any]
ENDPOINT = "tcp://127.0.0.1:5655"


class Operator:
    """A connection to a collector that has what lies in `directory`."""

    directory: Path | None = None
    runs: list[dict[str, Any]] = []  # noqa: RUF012 - set by a test, put back by monkeypatch
    said: list[News] = []  # noqa: RUF012

    def __init__(self, address: Address) -> None:
        if not self.runs:
            raise CollectorUnavailable(f"no collector at {address.endpoint}")
        self.followed: list[str | None] = []

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def ask(self, what: str) -> list[dict[str, Any]]:
        assert what == "runs"
        return self.runs

    def follow(self, run: str | None) -> None:
        self.followed.append(run)

    def poke(self) -> None:
        pass

    def news(self, timeout: float) -> News | None:
        return self.said.pop(0) if self.said else None

    def fetch(self, run: str, segment: int, offset: int, size: int) -> bytes:
        assert self.directory is not None
        return next((self.directory / run).glob("segment-*")).read_bytes()[offset : offset + size]

    def index(self, run: str, position: Position) -> tuple[list[tuple[Header, Position]], Position]:
        assert self.directory is not None
        with RunArchive(self.directory / run) as archive:
            found = list(archive.frames(position))
        return found, after(*found[-1]) if found else position


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tlogs.access.connection.Operator", Operator)
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


def row(name: str, *, live: bool = True, created_ns: int = 1) -> dict[str, Any]:
    return {"name": name, "live": live, "created_ns": created_ns}


def announce(directory: Path, state: Path, *, here: bool = True) -> None:
    """A collector says that it works on *directory*."""
    notice = Notice(ENDPOINT, None, os.getpid(), "n1", boot_id() if here else "another", str(directory), "0")
    (directory / FILE_NAME).write_text(notice.to_json())
    live = state / "tlogs" / "live"
    live.mkdir(parents=True)
    (live / "one.json").symlink_to(directory / FILE_NAME)


def place(environ: dict[str, str], *, directory: Path | None = None, collector: str | None = None) -> Place:
    return Place(directory, collector, None, environ)


def test_the_directory_that_is_named_is_the_only_one(new_run: NewRun, environ: dict[str, str]) -> None:
    runs = new_run("a").path.parent
    assert place(environ, directory=runs).find(None).name == "a"
    assert place({**environ, "TLOGS_DIR": str(runs)}).find("latest").name == "a"
    with pytest.raises(ConfigError, match="no run 'b'"):
        place(environ, directory=runs).find("b")


def test_a_live_run_of_a_collector_elsewhere_comes_before_old_runs_here(
    new_run: NewRun, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run("old").path.parent.rename(tmp_path / "tlogs-runs")
    assert place(environ).find(None).name == "old"
    under_way = new_run("new")
    announce(under_way.path.parent, tmp_path / "state")
    monkeypatch.setattr(Operator, "runs", [row("new")])
    with under_way.live():
        assert place(environ).find(None).name == "new"
        assert place(environ).find("old").name == "old"
    assert place(environ).find(None).name == "old"
    assert place(environ).find("new").name == "new"


def test_a_run_that_nobody_has_is_answered_with_where_it_was_looked_for(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"no runs in tlogs-runs, and no collector: .*--dir says where runs are"):
        place(environ).find("nope")


def test_a_collector_on_another_machine_is_read_over_the_connection(
    new_run: NewRun, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run("far")
    run.batch(run.stream(0), (1, "a"))
    monkeypatch.setattr(Operator, "directory", run.path.parent)
    monkeypatch.setattr(Operator, "runs", [row("far", created_ns=5), row("over", live=False, created_ns=9)])
    for name in (None, "latest", "far", "fa"):
        found = place(environ, collector=ENDPOINT).find(name)
        assert isinstance(found, RemoteSource)
        assert found.name == "far"
        assert len(list(found.frames())) == 2
    with pytest.raises(ConfigError, match=f"no run 'nope' at {ENDPOINT}: there are far, over"):
        place(environ, collector=ENDPOINT).find("nope")


def test_what_is_still_to_come_is_asked_of_the_collector_that_writes_the_run(
    new_run: NewRun, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run("a")
    announce(run.path.parent, tmp_path / "state")
    said = News("a", 1, 1, 1, True, False)
    monkeypatch.setattr(Operator, "said", [said])
    with run.live():
        monkeypatch.setattr(Operator, "runs", [row("another")])
        with place(environ, directory=run.path.parent) as here:
            watch, hold_s = here.watch(here.find(None))
            assert hold_s == 0.5, "a daemon that does not know the run is not asked"
        monkeypatch.setattr(Operator, "runs", [row("a")])
        with place(environ, directory=run.path.parent) as here:
            watch, hold_s = here.watch(here.find(None))
            assert (watch(0.0), hold_s) == (said, 2.0)


def test_every_run_of_a_collector_can_be_opened_when_it_begins(
    new_run: NewRun, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run("a")
    announce(run.path.parent, tmp_path / "state")
    monkeypatch.setattr(Operator, "runs", [row("a")])
    with place(environ) as here:
        _, open_run = here.every_run()
        assert isinstance(open_run("a"), RunArchive)
    with pytest.raises(CollectorUnavailable, match="no collector"):
        place({"XDG_STATE_HOME": str(tmp_path / "none")}).every_run()
