"""Where a run is looked for, the directory here first, then the collectors; and which run is meant."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tlogs.access.discovery import Address
from tlogs.reading.collector_run import CollectorRun
from tlogs.reading.library import Libraries, LocalLibrary, directory_of_runs
from tlogs.reading.local_run import LocalRun
from tlogs.reading.run import Run
from tlogs_shared.end import FINISHED, End
from tlogs_shared.errors import CollectorUnavailable, ConfigError
from tlogs_shared.host import boot_id
from tlogs_shared.protocol.messages import News
from tlogs_shared.protocol.notice import FILE_NAME, Notice
from tlogs_shared.protocol.rows import RunRow
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.position import Position
from tlogs_shared.storage.segment import frame_end

NewRun = Callable[..., Any]
ENDPOINT = "tcp://127.0.0.1:5655"


class Operator:
    """A connection to a collector that has what lies in `directory`."""

    directory: Path | None = None
    rows: list[RunRow] = []  # noqa: RUF012 - set by a test, put back by monkeypatch
    said: list[News] = []  # noqa: RUF012

    def __init__(self, address: Address) -> None:
        if not self.rows:
            raise CollectorUnavailable(f"no collector at {address.endpoint}")
        self.followed: list[str | None] = []

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def runs(self) -> list[RunRow]:
        return self.rows

    def follow(self, run: str | None) -> None:
        self.followed.append(run)

    def keep_alive(self) -> None:
        pass

    def news(self, timeout: float) -> News | None:
        return self.said.pop(0) if self.said else None

    def fetch(self, run: str, segment: int, offset: int, size: int) -> bytes:
        assert self.directory is not None
        return next((self.directory / run).glob("segment-*")).read_bytes()[offset : offset + size]

    def index(self, run: str, position: Position) -> tuple[list[tuple[Header, Position]], Position]:
        assert self.directory is not None
        with LocalRun(self.directory / run) as archive:
            found = list(archive.frames(position))
        return found, frame_end(*found[-1]) if found else position


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tlogs.access.connection.Operator", Operator)
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


def row(name: str, *, live: bool = True, created_ns: int = 1) -> RunRow:
    return RunRow(name=name, created_ns=created_ns, live=live, over=not live, ranks=0, records=0, dropped=0, lost=0)


def announce(directory: Path, state: Path, *, here: bool = True) -> None:
    """A collector says that it works on *directory*."""
    notice = Notice(ENDPOINT, None, os.getpid(), "n1", boot_id() if here else "another", str(directory), "0")
    (directory / FILE_NAME).write_text(notice.to_json())
    live = state / "tlogs" / "live"
    live.mkdir(parents=True)
    (live / "one.json").symlink_to(directory / FILE_NAME)


def libraries(environ: dict[str, str], *, directory: Path | None = None, collector: str | None = None) -> Libraries:
    return Libraries(directory, collector, None, environ)


def find(environ: dict[str, str], run: str | None, **options: Any) -> Run:
    """The run that is meant, with its library left out."""
    return libraries(environ, **options).find(run)[1]


def test_the_directory_that_is_named_is_the_only_one(new_run: NewRun, environ: dict[str, str]) -> None:
    runs = new_run("a").path.parent
    assert find(environ, None, directory=runs).name == "a"
    assert find({**environ, "TLOGS_DIR": str(runs)}, "latest").name == "a"
    with pytest.raises(ConfigError, match="no run 'b'"):
        find(environ, "b", directory=runs)


def test_a_live_run_of_a_collector_elsewhere_comes_before_old_runs_here(
    new_run: NewRun, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run("old").path.parent.rename(tmp_path / "tlogs-runs")
    assert find(environ, None).name == "old"
    under_way = new_run("new")
    announce(under_way.path.parent, tmp_path / "state")
    monkeypatch.setattr(Operator, "rows", [row("new")])
    with under_way.live():
        assert find(environ, None).name == "new"
        assert find(environ, "old").name == "old"
    assert find(environ, None).name == "old"
    assert find(environ, "new").name == "new"


def test_a_run_that_the_only_collector_does_not_have_is_answered_with_those_it_has(
    new_run: NewRun, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = new_run("a").path.parent
    announce(runs, tmp_path / "state")
    monkeypatch.setattr(Operator, "rows", [row("a")])
    with pytest.raises(ConfigError, match=f"no run 'b' in {runs}; there is: a"):
        find(environ, "b")


def test_a_list_of_runs_is_of_the_directory_or_else_of_the_collector(
    new_run: NewRun, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(directory: Path | None = None, collector: str | None = None) -> list[str]:
        with Libraries(directory, collector, None, environ) as libraries:
            return [run.name for run in libraries.meant().runs()]

    elsewhere = new_run("elsewhere")
    assert names() == []
    announce(elsewhere.path.parent, tmp_path / "state")
    monkeypatch.setattr(Operator, "rows", [row("far")])
    assert names() == ["elsewhere"]
    assert names(directory=tmp_path / "nothing") == []
    assert names(collector="tcp://n9:1") == ["far"]
    (tmp_path / "tlogs-runs" / "here").mkdir(parents=True)
    (tmp_path / "tlogs-runs" / "here" / "run.json").write_text('{"name": "here", "created_ns": 1}')
    assert names() == ["here"]


def test_a_run_that_nobody_has_is_answered_with_where_it_was_looked_for(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"no runs in tlogs-runs, and no collector: .*--dir says where runs are"):
        find(environ, "nope")


def test_a_collector_on_another_machine_is_read_over_the_connection(
    new_run: NewRun, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run("far")
    run.batch(run.stream(0), (1, "a"))
    monkeypatch.setattr(Operator, "directory", run.path.parent)
    monkeypatch.setattr(Operator, "rows", [row("far", created_ns=5), row("over", live=False, created_ns=9)])
    for name in (None, "latest", "far", "fa"):
        found = find(environ, name, collector=ENDPOINT)
        assert isinstance(found, CollectorRun)
        assert found.name == "far"
        assert len(list(found.frames())) == 2
    with pytest.raises(ConfigError, match=f"no run 'nope' at {ENDPOINT}; there are: far, over"):
        find(environ, "nope", collector=ENDPOINT)


def test_what_is_still_to_come_is_asked_of_the_collector_that_writes_the_run(
    new_run: NewRun, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run("a")
    announce(run.path.parent, tmp_path / "state")
    said = News("a", 1, 1, 1, True, False)
    monkeypatch.setattr(Operator, "said", [said])
    with run.live():
        monkeypatch.setattr(Operator, "rows", [row("another")])
        with libraries(environ, directory=run.path.parent) as here:
            library, found = here.find(None)
            assert library.subscribe(found).hold_s == 0.5, "a daemon that does not know the run is not asked"
        monkeypatch.setattr(Operator, "rows", [row("a")])
        with libraries(environ, directory=run.path.parent) as here:
            library, found = here.find(None)
            subscription = library.subscribe(found)
            assert (subscription.wait(0.0), subscription.hold_s) == (said, 2.0)


def test_every_run_of_a_collector_can_be_opened_when_it_begins(
    new_run: NewRun, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run("a")
    announce(run.path.parent, tmp_path / "state")
    monkeypatch.setattr(Operator, "rows", [row("a")])
    with libraries(environ) as here:
        library = here.of_collector()
        assert library.subscribe(None).hold_s == 2.0
        assert isinstance(library.open("a"), LocalRun)
    with pytest.raises(CollectorUnavailable, match="no collector"):
        libraries({"XDG_STATE_HOME": str(tmp_path / "none")}).of_collector()


# Which run of a directory is meant.


@pytest.fixture
def three(new_run: NewRun) -> Path:
    for number, name in enumerate(["20260101-a", "20260102-b", "20260103-c"]):
        new_run(name, created_ns=number + 1)
    path: Path = new_run("elsewhere", created_ns=0).path
    return path.parent


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("latest", "20260103-c"),
        ("latest~0", "20260103-c"),
        ("latest~1", "20260102-b"),
        ("latest~3", "elsewhere"),
        ("20260101-a", "20260101-a"),
        ("else", "elsewhere"),
        ("20260102", "20260102-b"),
    ],
)
def test_a_run_is_meant_by_its_name_its_beginning_or_its_place(three: Path, text: str, name: str) -> None:
    assert LocalLibrary(three).open(text).name == name


def test_a_run_is_meant_by_its_path(three: Path) -> None:
    assert LocalLibrary(Path("/nowhere")).open(f"{three}/elsewhere").name == "elsewhere"


@pytest.mark.parametrize("text", ["2026", "nope", "latest~4", "", "/nowhere/at/all", "./"])
def test_what_means_no_run_or_several_is_answered_with_what_there_is(
    three: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(three)
    with pytest.raises(ConfigError, match=r"20260103-c|expected the directory of a run") as caught:
        LocalLibrary(three).open(text)
    assert "\n" not in str(caught.value)


def test_where_there_are_no_runs_the_answer_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no runs in {tmp_path}/none.*--dir"):
        LocalLibrary(tmp_path / "none").open("latest")


def test_a_live_run_is_the_latest_even_if_it_began_earlier(new_run: NewRun) -> None:
    old, new = new_run("old", created_ns=1), new_run("new", created_ns=2)
    with old.live():
        assert LocalLibrary(new.path.parent).open("latest").name == "old"
        assert [run.name for run in LocalLibrary(new.path.parent).runs()] == ["old", "new"]
    assert LocalLibrary(new.path.parent).open("latest").name == "new"


def test_runs_are_looked_for_where_the_environment_says() -> None:
    assert directory_of_runs({"TLOGS_DIR": "/data/runs"}) == Path("/data/runs")
    assert directory_of_runs({}) == Path("tlogs-runs")


def test_a_reader_may_wait_for_the_next_run(
    new_run: NewRun, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is over is not meant, though its daemon still has it open; one that was short is."""
    monkeypatch.setattr(Operator, "rows", [row("old")])
    old = new_run("old")
    old.batch(old.stream(0, end=End(FINISHED)), (1, "a"))
    announce(old.path.parent, tmp_path / "state")
    paused: list[tuple[str, str | None]] = []

    def pause(where: str, last: Run | None) -> None:
        paused.append((where, None if last is None else last.name))
        if len(paused) == 2:
            new_run("next")

    with old.live(), libraries(environ) as here:
        assert here.find_next(pause)[1].name == "next"
        assert paused == [(f"in {old.path.parent}", "old")] * 2
        old.stream(0)
        assert here.find_next(pause)[1].name == "old", "it goes on"
    with libraries(environ, directory=old.path.parent) as here, pytest.raises(InterruptedError):
        here.find_next(_interrupt)


def _interrupt(where: str, last: Run | None) -> None:
    raise InterruptedError


def test_the_next_run_may_begin_with_a_collector_elsewhere(
    new_run: NewRun, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with libraries(environ) as here, pytest.raises(ConfigError, match="no collector"):
        here.find_next(_interrupt)
    run = new_run("far")
    run.stream(0)
    monkeypatch.setattr(Operator, "rows", [row("far")])
    monkeypatch.setattr(Operator, "directory", run.path.parent)
    with libraries(environ, collector=ENDPOINT) as here:
        assert here.find_next(_interrupt)[1].name == "far"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("r", "2 runs at tcp://.* begin with 'r': run2, run1"),
        ("latest~2", "no run latest~2 at tcp://.*; there are: run2, run1"),
    ],
)
def test_the_same_rules_hold_for_a_collectors_runs(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr(Operator, "rows", [row("run1", live=False), row("run2")])
    assert find(environ, "latest~1", collector=ENDPOINT).name == "run1"
    with pytest.raises(ConfigError, match=said):
        find(environ, text, collector=ENDPOINT)
