"""What set-logs, levels, ranks, check and keygen print and answer, with a collector that a test plays."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import click
import pytest

from tlogs.cli import main
from tlogs.operator.job import Job, JobLevels, Result
from tlogs.reading.entry import Speaker
from tlogs.reading.ranks import RankRow
from tlogs.reading.record import Record, record_of
from tlogs_shared.errors import ConfigError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.protocol.lease import Lease
from tlogs_shared.protocol.rows import ChangeReport, RanksReport, Refusals
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.record import Fields

REPORT: Final[ChangeReport] = {
    "run": "r1",
    "revision": 3,
    "until_ns": None,
    "ended": [],
    "applied": "0-3",
    "ignored": {},
    "failed": {},
    "silent": "",
    "took_ms": 11.8,
}


class FakeJob(Job):
    """A job whose collector answers as the test says."""

    def __init__(self, **changed: Any) -> None:
        self.report = cast(ChangeReport, {**REPORT, **changed})
        self.rows: list[Any] = []
        self.found: Any = {"leases": [], "ranks": {}}
        self.laid: list[Lease] = []
        self.refused: Refusals | None = None

    def close(self) -> None:
        """Nothing to close."""

    def lay(self, lease: Lease, *, timeout: float = 5.0) -> Result:
        self.laid.append(lease)
        return Result.of(self.report)

    def reset(self, *revisions: int, timeout: float = 5.0) -> Result:
        return Result.of(self.report)

    def census(self, *, every_attempt: bool = False) -> RanksReport:
        return RanksReport(run="r1", rows=self.rows, refused=self.refused)

    def said(self, found: RanksReport) -> list[RankRow]:
        return self.rows

    def levels(self) -> JobLevels:
        found: JobLevels = self.found
        return found

    def tail(self, **_: Any) -> Iterator[Record]:
        for rank in (1, 2):
            yield record(rank, "torch._dynamo.guards.__recompiles", artifact="recompiles")
        yield record(0, "mine.core.deep")


def record(rank: int, logger: str, **more: Any) -> Record:
    """A record of *logger* on *rank*."""
    who = Speaker(b"s", StreamInfo(Origin(host="n1", pid=7, rank=rank)), "r1")
    fields = Fields(1, 10, logger, "x", None, None, "a.py", 1, "f", "MainThread", None)
    return replace(record_of((1, rank, 0, who, fields)), **more)


@contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, job: FakeJob) -> Iterator[FakeJob]:
    """Commands talk to *job*."""
    for module in ("set_logs", "levels", "ranks"):
        monkeypatch.setattr(f"tlogs.cli.{module}.job_at", lambda *_: job)
    yield job


def test_set_logs_says_what_it_does_and_who_did_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(monkeypatch, FakeJob()) as job:
        assert main(["set-logs", "c10d", "recompiles", "--for", "2m", "--ranks", "0-3"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "c10d       → INFO  (c10d=DEBUG for everything)",
        "recompiles → on",
        "applied  ranks 0-3 in 12 ms, until it is reset (revision 3)",
    ]
    assert job.laid[0].settings == {"c10d": 20, "recompiles": True}
    assert (job.laid[0].ttl_s, str(job.laid[0].ranks)) == (120.0, "0-3")


def test_a_lease_lasts_ten_minutes_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(monkeypatch, FakeJob()) as job:
        main(["set-logs", "+c10d"])
        main(["set-logs", "+c10d", "--forever"])
        assert main(["set-logs", "+c10d", "--forever", "--for", "1m"]) == 2
    assert [lease.ttl_s for lease in job.laid] == [600.0, None]


def test_ranks_that_did_not_apply_it_are_folded_and_give_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = FakeJob(
        applied="0-2",
        ignored={"3": "TORCH_LOGS=+dynamo", "4": "TORCH_LOGS=+dynamo"},
        failed={"5": "unknown name 'x'"},
        silent="6-7",
    )
    with answering(monkeypatch, job):
        assert main(["set-logs", "c10d=DEBUG"]) == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        "ignored  ranks 3-4: TORCH_LOGS=+dynamo",
        "failed   rank 5: unknown name 'x'",
        "silent   ranks 6-7: no answer yet; applied when they reconnect",
        "to override TORCH_LOGS there: tlogs set-logs c10d=DEBUG --ranks 3-4 --force",
    ]


def test_what_the_changed_names_have_said_since_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(monkeypatch, FakeJob()):
        main(["set-logs", "recompiles=on", "mine.core=DEBUG", "c10d=DEBUG", "--watch", "1s"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[4] == "since then: recompiles 2 records (ranks 1-2), mine.core 1 record (rank 0), c10d 0 records"
    assert "TORCH_CPP_LOG_LEVEL" in lines[6]


def test_everything_at_debug_on_many_ranks_needs_a_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(monkeypatch, FakeJob()) as job:
        job.rows = [{"rank": rank, "state": "running"} for rank in range(65)]
        assert main(["set-logs", "+all"]) == 2
        assert main(["set-logs", "+all", "--ranks", "0-63"]) == 0
        assert main(["set-logs", "+all", "--yes"]) == 0
        assert main(["set-logs", "all=INFO"]) == 0
    assert len(job.laid) == 3
    assert "nothing was changed" in capsys.readouterr().err


def test_json_has_the_keys_that_others_rely_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(monkeypatch, FakeJob(silent="6", ignored={"7": "TORCH_LOGS=+dynamo"})):
        assert main(["set-logs", "-dynamo,graph_breaks", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in ("revision", "until", "applied", "ignored", "failed", "silent", "took_ms")} == {
        "revision": 3,
        "until": None,
        "applied": "0-3",
        "ignored": {"7": "TORCH_LOGS=+dynamo"},
        "failed": {},
        "silent": "6",
        "took_ms": 11.8,
    }


def test_levels_show_the_odd_rank_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def report(level: str | None, *artifacts: str) -> dict[str, Any]:
        components = {"c10d": {"configured": level, "effective": level or "WARNING"}}
        return {"components": components, "artifacts": list(artifacts)}

    with answering(monkeypatch, FakeJob()) as job:
        job.found["ranks"] = {str(rank): report("DEBUG", "guards") for rank in range(8)} | {"8": report("INFO")}
        job.found["leases"] = [Lease(4, {"c10d": 10}, RankSet.of(range(8)), ttl_s=75.0, author="anna@n1").as_map()]
        assert main(["levels"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["4", "c10d=DEBUG", "0-7", "1m15s", "left", "anna@n1"]
    assert [line.split() for line in lines[4:6]] == [["c10d", "INFO", "INFO", "8"], ["c10d", "DEBUG", "DEBUG", "0-7"]]
    assert lines[6:] == ["no artifacts on: rank 8", "artifacts on, ranks 0-7: guards"]


@pytest.mark.parametrize(
    ("arguments", "ended", "lines"),
    [
        ([], [], ["nothing to reset"]),
        ([], [1, 2], ["ended revisions 1, 2", "applied  ranks 0-3 in 12 ms (revision 3)"]),
        (["1", "7"], [1], ["ended revision 1", "not in force: revision 7", "applied  ranks 0-3 in 12 ms (revision 3)"]),
    ],
)
def test_reset_says_what_it_ended(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    ended: list[int],
    lines: list[str],
) -> None:
    with answering(monkeypatch, FakeJob(ended=ended)):
        assert main(["reset", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[: len(lines)] == lines


ROW: Final = {
    "host": "n1", "pid": 7, "attempt": 0, "state": "running", "since": "2026-01-31T12:00:00.000000000Z", "exit": None,
    "stored": 5, "in_flight": 0, "dropped": 0, "last_record_s": 1.0, "last_said": "step 5", "last_heard_s": 0.2,
    "clock_offset_ms": 0.0, "revision": 0,
}  # fmt: skip


def died(rank: int, state: str, second: int, **exit: Any) -> dict[str, Any]:
    return {**ROW, "rank": rank, "state": state, "since": f"2026-01-31T12:00:{second:02}.0Z", "exit": exit or None}


def test_ranks_come_with_the_dead_first_by_time_of_death(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(monkeypatch, FakeJob()) as job:
        assert main(["ranks"]) == 0
        assert capsys.readouterr().out == "no rank has connected yet\n"
        job.rows = [
            {**ROW, "rank": 0},
            {**ROW, "rank": 1, "state": "finished", "exit": {"code": 0}},
            {**ROW, "rank": 2, "state": "silent", "outbox": "/tmp/x.outbox", "last_record_s": None, "last_said": None},
            died(3, "killed", 7, signal="SIGKILL", oom=True),
            died(4, "failed", 5, exception="ValueError: loss is nan"),
            {**ROW, "rank": 5, "last_record_s": 75.0},
            {**ROW, "rank": 6, "late": True, "last_heard_s": 4.0},
        ]
        main(["ranks"])
        table = capsys.readouterr().out.splitlines()
        main(["ranks", "--json"])
    assert [line.split()[:2] for line in table[1:8]] == [
        ["4", "failed"],
        ["3", "killed"],
        ["2", "silent"],
        ["0", "running"],
        ["1", "finished"],
        ["5", "running"],
        ["6", "running"],
    ]
    assert "  ValueError: loss is nan  " in table[1]
    assert "  SIGKILL (out of memory)  " in table[2]
    assert [line.rpartition("same")[2].strip() for line in table[3:8]] == [
        "",
        "1.0s ago: step 5",
        "step 5",
        "quiet 1m15s: step 5",
        "host late 4.0s: step 5",
    ]
    assert table[8] == "rank 2 left /tmp/x.outbox; on n1, run: tlogs recover"
    assert [row["rank"] for row in json.loads(capsys.readouterr().out)] == [4, 3, 2, 0, 1, 5, 6]


def test_80_columns_hold_the_ranks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the columns in which something is unusual are shown on a terminal; long cells are cut."""
    monkeypatch.setattr("tlogs.cli.table.sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    with answering(monkeypatch, FakeJob()) as job:
        job.rows = [
            {**died(3, "failed", 5, exception="ValueError: " + "x" * 100), "host": "ip-10-0-0-1.ec2.internal"},
            {**ROW, "rank": 0, "last_said": "a long sentence " * 9, "stored": 1_000_000},
        ]
        main(["ranks"])
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert lines[0].split() == ["RANK", "STATE", "SINCE", "EXIT", "HOST", "PID", "STORED", "LAST", "SAID"]
    assert max(map(len, lines)) <= 80
    assert "ValueErr" in lines[1]


def test_refused_messages_are_told_with_their_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(monkeypatch, FakeJob()) as job:
        job.refused = {"count": 3, "last_s": 180.0, "why": "wrong or missing secret"}
        assert main(["ranks"]) == 0
    assert capsys.readouterr().err == "3 messages refused, last 3m ago: wrong or missing secret\n"


def test_check_says_where_each_answer_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("TLOGS_COLECTOR", "x")
    assert main(["check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "rank3 of 8" in lines[2]
    assert "from the environment" in lines[2]
    assert "PROBLEM: no collector" in lines[4]
    assert "did you mean TLOGS_COLLECTOR?" in lines[-1]


def test_keygen_makes_a_secret_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "secret"
    assert main(["keygen", str(file)]) == 0
    first = file.read_text()
    assert len(first.strip()) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert main(["keygen", str(file)]) == 2
    assert file.read_text() == first
    assert "choose another file" in capsys.readouterr().err


def test_a_problem_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(FakeJob):
        def lay(self, lease: Lease, *, timeout: float = 5.0) -> Result:
            raise ConfigError("several runs are live: a, b; choose one with --run")

    with answering(monkeypatch, Refusing()):
        assert main(["set-logs", "c10d=DEBUG"]) == 2
    assert capsys.readouterr().err == "tlogs: several runs are live: a, b; choose one with --run\n"
