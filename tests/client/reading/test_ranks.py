"""The ranks of a stored run, and what each said last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlogs.reading.local_run import LocalRun
from tlogs.reading.ranks import live_rows, stored_rows
from tlogs_shared.end import KILLED, End
from tlogs_shared.protocol.rows import PeerRow

START_NS = 1_700_000_000_000_000_000
NewRun = Callable[..., Any]
OURS = {"stream": "tlogs"}


def test_a_stored_rank_is_shown_as_it_ended(new_run: NewRun) -> None:
    run = new_run()
    end = End(KILLED, signal="SIGKILL", ended_ns=START_NS + 10**9)
    stream = run.stream(0, end=end, dropped={10: 3}, attempt=2, offset_ns=5_000_000, outbox="/o")
    run.batch(stream, (1, "step 1"), (2, "step 2"))
    run.batch(stream, (1000, "rank 0 was killed"), extra=OURS)
    [row] = stored_rows(LocalRun(run.path), START_NS + 3 * 10**9)
    assert row == {
        "rank": 0,
        "host": "n1",
        "pid": 1000,
        "attempt": 2,
        "state": "killed",
        "since": "2023-11-14T22:13:21.005000000Z",
        "exit": {"signal": "SIGKILL"},
        "stored": 3,
        "in_flight": 0,
        "dropped": 3,
        "last_record_s": 1.995,
        "last_said": "step 2",
        "last_heard_s": 1.995,
        "clock_offset_ms": 5.0,
        "revision": 0,
    }


def test_a_stored_rank_without_an_end_is_silent_once_nobody_writes_the_run(new_run: NewRun) -> None:
    run = new_run()
    run.batch(run.stream(0, outbox="/o"), (1, "step 1"))
    run.stream(1)
    run.stream(0, 77, helper="DataLoader0")
    run.stream(None)
    stored = LocalRun(run.path)
    with run.live():
        assert [(row["rank"], row["state"]) for row in stored_rows(stored, START_NS)] == [
            (0, "running"),
            (1, "starting"),
        ]
    found = stored_rows(stored, START_NS)
    assert [(row["state"], row.get("outbox"), row["last_said"]) for row in found] == [
        ("silent", "/o", "step 1"),
        ("silent", None, None),
    ]


def test_a_rank_is_shown_in_its_newest_attempt_or_in_all(new_run: NewRun) -> None:
    run = new_run()
    run.stream(0, 1, attempt=0)
    run.stream(0, 2, attempt=1, end=End(KILLED))
    run.stream(1, 3, attempt=0)
    stored = LocalRun(run.path)
    for every_attempt, attempts in [(False, [(0, 0), (1, 0)]), (True, [(0, 0), (0, 1), (1, 0)])]:
        rows = stored_rows(stored, START_NS, every_attempt=every_attempt)
        assert [(row["rank"], row["attempt"]) for row in rows] == attempts


def test_the_last_words_of_a_live_rank_are_read_from_the_store(new_run: NewRun) -> None:
    run = new_run()
    said, damaged, ours = run.stream(0), run.stream(1), run.stream(2)
    run.batch(said, (1, "a"), (2, "b"))
    run.batch(ours, (3, "rank 2 began"), extra=OURS)
    run.batch(damaged, (4, "lost"))
    segment = next(run.path.glob("segment-*"))
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)

    def row(stream: bytes) -> PeerRow:
        return {
            "stream": stream, "rank": 0, "host": "n1", "pid": 7, "attempt": 0, "state": "running", "since_ns": 0,
            "exit": None, "stored": 1, "in_flight": 0, "dropped": 0, "last_record_s": None, "last_heard_s": 0.0,
            "clock_offset_ms": 0.0, "revision": 0, "late": True, "duplicate": True, "outbox": "/o",
        }  # fmt: skip

    rows = live_rows([row(stream) for stream in (said, damaged, ours, b"not stored yet")], LocalRun(run.path))
    assert [row["last_said"] for row in rows] == ["b", None, None, None]
    assert (rows[0]["since"], rows[0]["late"], rows[0]["duplicate"], rows[0]["outbox"]) == (None, True, True, "/o")
    assert "stream" not in rows[0]
    assert [found["last_said"] for found in live_rows([row(said)], None)] == [None]
