"""What operators are answered: rows and levels."""

from __future__ import annotations

from typing import Any

import pytest
from tests.collector.conftest import Stage, lay

from tlogs_collector.hub import actions as do
from tlogs_shared.end import End
from tlogs_shared.protocol import messages as m
from tlogs_shared.protocol.wire import unpack_plain


def ask(stage: Stage, what: str, run: str | None = None) -> m.Report:
    """The answer to a question."""
    stage.say(b"op", m.Ask(0, "hello"))
    [found] = stage.say(b"op", m.Ask(5, what, run))
    assert isinstance(found, m.Report)
    assert found.number == 5
    return found


def test_a_rank_is_shown_with_everything_the_contract_names(stage: Stage) -> None:
    rank = stage.rank(3, boot_id="there", outbox="/tmp/box", started_ns=7 * 10**9)
    rank.hello()
    rank.log(0, 5)
    stage.carry_out(stage.hub.stored({("made-up-1", rank.stream): 2}))
    rank.beat(7, dropped={10: 4}, offset_ns=5_000_000_000, bound_ns=1000)
    stage.wait(2.5)
    [row] = ask(stage, "ranks").data["rows"]
    assert row == {
        "stream": rank.stream,
        "rank": 3,
        "host": "node1",
        "pid": rank.origin.pid,
        "attempt": 0,
        "state": "running",
        "since_ns": 12 * 10**9,
        "exit": None,
        "stored": 5,
        "in_flight": 3,
        "dropped": 4,
        "last_record_s": 0.0,
        "last_heard_s": 2.5,
        "clock_offset_ms": 5000.0,
        "revision": 7,
    }
    rank.die()
    stage.wait(1.0)
    [row] = ask(stage, "ranks").data["rows"]
    assert (row["state"], row["in_flight"], row["outbox"]) == ("ended", 0, "/tmp/box")
    rank.hello(recovering=True)
    rank.bye(end=End("failed", exception="ValueError: loss is nan", ended_ns=11 * 10**9))
    [row] = ask(stage, "ranks").data["rows"]
    assert (row["state"], row["exit"], "outbox" in row) == ("failed", {"exception": "ValueError: loss is nan"}, False)
    assert row["since_ns"] == 16 * 10**9


def test_a_rank_whose_host_misses_heartbeats_is_marked(stage: Stage) -> None:
    stage.ranks(1)
    stage.wait(3.5)
    [row] = ask(stage, "ranks").data["rows"]
    assert (row["state"], row["late"]) == ("starting", True)


def test_a_rank_that_has_logged_nothing_has_no_last_record(stage: Stage) -> None:
    stage.ranks(1)
    [row] = ask(stage, "ranks").data["rows"]
    assert row["last_record_s"] is None


def test_ranks_are_shown_by_rank_each_with_its_newest_attempt(stage: Stage) -> None:
    ranks = stage.ranks(3, restart_count=0)
    ranks[1].die()
    stage.wait(2.0)
    stage.rank(1, world_size=3, restart_count=1).hello()
    rows = ask(stage, "ranks").data["rows"]
    assert [(row["rank"], row["attempt"]) for row in rows] == [(0, 0), (1, 1), (2, 0)]
    rows = ask(stage, "attempts").data["rows"]
    assert [(row["rank"], row["attempt"]) for row in rows] == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert [row for row in rows if row.get("duplicate")] == []


@pytest.mark.parametrize(
    ("what", "run", "error"),
    [
        ("levels", None, "no run has begun here yet"),
        ("ranks", "x", "no run 'x' here; no run is live"),
        ("weather", None, "no run has begun here yet"),
    ],
)
def test_before_any_run_there_is_nothing_to_tell(stage: Stage, what: str, run: str | None, error: str) -> None:
    found = ask(stage, what, run)
    assert (found.error, found.data) == (error, None)
    assert ask(stage, "ranks").data["rows"] == ask(stage, "runs").data == []


def test_a_run_is_chosen_by_name_or_beginning_and_else_the_newest_live_one(stage: Stage) -> None:
    for name in ["one", "one-more", "two"]:
        rank = stage.rank(0, run=name)
        rank.hello()
        if name == "two":
            rank.bye()
        stage.wait(0.1)
    chosen = {run: ask(stage, "ranks", run) for run in [None, "latest", "one", "one-", "t", "o", "x"]}
    assert [found.data["run"] for found in chosen.values() if not found.error] == [
        "one-more",
        "one-more",
        "one",
        "one-more",
        "two",
    ]
    assert chosen["o"].error == "several runs begin with 'o': one, one-more"
    assert chosen["x"].error == "no run 'x' here; there are: one, one-more, two"
    assert ask(stage, "weather", "one").error == "this collector cannot answer 'weather'"


def test_a_run_is_shown_with_its_counts(stage: Stage) -> None:
    first, second = stage.ranks(2)
    first.log(0, 5)
    second.head = 3
    second.beat(dropped={10: 2})
    second.die()
    stage.wait(2.0)
    [row] = ask(stage, "runs").data
    began = row.pop("created_ns")
    assert began == 10**18
    assert row == {
        "name": "made-up-1", "live": True, "over": False, "ranks": 2, "records": 5, "dropped": 2, "lost": 3
    }  # fmt: skip


def test_the_same_report_of_many_ranks_is_told_once(stage: Stage) -> None:
    """Else the levels of some thousand ranks would not fit a message."""
    ranks = stage.ranks(4)
    for rank in ranks[:3]:
        rank.answer(0, components={"c10d": "DEBUG" if rank is ranks[1] else "INFO"})
    stage.say(b"op", m.Ask(0, "hello"))
    stage.say(b"op", lay(1))
    data = ask(stage, "levels").data
    groups = {ranks: packed and unpack_plain(packed) for ranks, packed in data["groups"]}
    assert groups == {"0,2": {"components": {"c10d": "INFO"}}, "1": {"components": {"c10d": "DEBUG"}}, "3": b""}
    [lease] = data["leases"]
    assert (lease["author"], lease["ttl_s"], lease["created_ns"]) == ("ann@desk", 600.0, stage.now.ns)
    ranks[3].bye()
    assert "3" not in dict(ask(stage, "levels").data["groups"])


def test_bytes_are_read_from_the_store(stage: Stage) -> None:
    stage.say(b"op", m.Ask(0, "hello"))
    fetch = m.Fetch(1, "made-up-1", "bytes", 1, 0, 10)
    stage.say(b"op", fetch)
    assert stage.took(do.Read) == [do.Read(b"op", fetch)]


# News.


def test_a_stream_that_has_ended_costs_no_more_looks_until_it_speaks_again(stage: Stage) -> None:
    rank, other = stage.ranks(2)
    run = stage.hub.runs["made-up-1"]
    rank.answer(0, filler="x" * 1000)
    rank.bye()
    assert list(run.speaking) == [other.stream]
    assert run.peers[rank.stream].report == b""
    rank.hello()
    assert set(run.speaking) == {rank.stream, other.stream}


def test_what_a_rank_says_of_its_levels_is_never_looked_into(stage: Stage) -> None:
    [rank] = stage.ranks(1)
    garbage: Any = b"\xc1 no msgpack"
    rank.say(m.Applied([m.AppliedRow([rank.stream], 0, {}, garbage)]))
    assert ask(stage, "levels").data["groups"] == [("0", garbage)]
