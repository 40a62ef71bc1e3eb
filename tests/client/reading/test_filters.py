"""What a reader can ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs.reading.filters import Filter, FilterOptions, make_filter, parse_moment, parse_pattern
from tlogs_shared.errors import ConfigError
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.rankset import RankSet
from tlogs_shared.storage.batch import Header
from tlogs_shared.storage.record import Fields

SECOND = 1_000_000_000


def info(rank: int | None = 0, host: str = "node-a", attempt: int = 0, **more: Any) -> StreamInfo:
    return StreamInfo(Origin(host=host, pid=1, rank=rank, **more), attempt=attempt)


def record(**changed: Any) -> Fields:
    return Fields(100, 20, "train", "step %d", [3], None, "a.py", 1, "f", "MainThread", None)._replace(**changed)


def keeps(choice: Filter, found: Fields) -> bool:
    test = choice.streams({b"s": info()})[b"s"].record
    return test is None or test(found)


STREAMS = {
    b"launcher": info(None),
    b"zero": info(0),
    b"one": info(1, host="node-b"),
    b"one again": info(1, host="node-b", attempt=1),
    b"helper": info(1, host="node-b", attempt=1, helper="DataLoader0"),
}


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Filter(), {b"launcher", b"zero", b"one", b"one again", b"helper"}),
        (Filter(ranks=RankSet.parse("0")), {b"zero"}),
        (Filter(ranks=RankSet.parse("1")), {b"one", b"one again", b"helper"}),
        (Filter(ranks=RankSet.parse("^1")), {b"launcher", b"zero"}),
        (Filter(ranks=RankSet.all()), {b"launcher", b"zero", b"one", b"one again", b"helper"}),
        (Filter(hosts="*-b"), {b"one", b"one again", b"helper"}),
        (Filter(attempt=0), {b"launcher", b"zero", b"one"}),
        (Filter(attempt="last"), {b"launcher", b"zero", b"one again", b"helper"}),
    ],
)
def test_a_stream_is_wanted_by_rank_host_and_attempt(choice: Filter, wanted: set[bytes]) -> None:
    assert set(choice.streams(STREAMS)) == wanted


@pytest.mark.parametrize(
    ("choice", "found", "kept"),
    [
        (Filter(level=30), record(levelno=30), True),
        (Filter(level=30), record(levelno=29), False),
        (Filter(logger="torch.distributed"), record(logger="torch.distributed.c10d"), True),
        (Filter(logger="torch.distributed"), record(logger="torch.distributed"), True),
        (Filter(logger="torch.distributed"), record(logger="torch.distributed_c10d"), False),
        (Filter(component="c10d"), record(logger="torch.distributed.distributed_c10d"), True),
        (Filter(component="distributed"), record(logger="torch.distributed.distributed_c10d"), True),
        (Filter(component="c10d"), record(logger="torch.distributed.fsdp"), False),
        (Filter(component="mine"), record(extra={"component": "mine"}), True),
        (Filter(component="mine"), record(), False),
        (Filter(artifact="guards"), record(logger="torch._dynamo.guards.__guards"), True),
        (Filter(artifact="guards"), record(extra={"artifact": "guards"}), True),
        (Filter(artifact="guards"), record(logger="torch._dynamo.guards"), False),
        (Filter(stream="log"), record(), True),
        (Filter(stream="log"), record(extra={"stream": "stdout"}), False),
        (Filter(stream="stdout"), record(extra={"stream": "stdout"}), True),
        (Filter(grep=re.compile(r"step \d")), record(), True),
        (Filter(grep=re.compile("Key")), record(extra={"exc": "KeyError: 1"}), True),
        (Filter(grep=re.compile("%d")), record(), False),
        (Filter(exclude=re.compile("step")), record(), False),
        (Filter(exclude=re.compile("epoch")), record(), True),
        (Filter(since_ns=100), record(), True),
        (Filter(since_ns=101), record(), False),
        (Filter(until_ns=101), record(), True),
        (Filter(until_ns=100), record(), False),
        (Filter(level=20, since_ns=100, grep=re.compile("step"), exclude=re.compile("4")), record(), True),
        (Filter(level=20, since_ns=100, grep=re.compile("step"), exclude=re.compile("3")), record(), False),
    ],
)
def test_a_record_is_kept_where_all_that_is_asked_holds(choice: Filter, found: Fields, kept: bool) -> None:
    assert keeps(choice, found) is kept


def test_times_are_corrected_ones() -> None:
    ahead = StreamInfo(Origin(host="a", pid=1, rank=0), offset_ns=-50)
    found = Filter(since_ns=100).streams({b"s": ahead})[b"s"]
    assert found.record is not None
    assert [found.record(record(ts=ts)) for ts in (149, 150)] == [False, True]
    assert [found.header(Header(b"s", last_ts=ts)) for ts in (149, 150)] == [False, True]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 200)), min_size=1, max_size=5),
    st.none() | st.integers(0, 60),
    st.none() | st.integers(0, 200),
    st.none() | st.integers(0, 200),
)
def test_no_batch_is_passed_over_that_holds_a_wanted_record(
    found: list[tuple[int, int]], level: int | None, since: int | None, until: int | None
) -> None:
    times = sorted(ts for _, ts in found)
    records = [record(levelno=levelno, ts=ts) for (levelno, _), ts in zip(found, times, strict=True)]
    header = Header(b"s", level=max(levelno for levelno, _ in found), first_ts=times[0], last_ts=times[-1])
    choice = Filter(level=level, since_ns=since, until_ns=until).streams({b"s": info()})[b"s"]
    if any(choice.record is None or choice.record(one) for one in records):
        assert choice.header(header)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((parse_pattern, text) for text in ("(", "[", "a**", "*")),
        *(
            (lambda text: parse_moment(text, 0, 0), text)
            for text in ("", "now", "25:00", "12:60", "2026-13-01", "5", "5 m")
        ),
    ],
)
def test_what_cannot_be_read_is_answered_with_what_was_expected(parse: Any, text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        parse(text)


def at(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round(moment.timestamp()) * SECOND


NOON = at("2026-03-10T12:00:00+00:00")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("5m", NOON - 300 * SECOND),
        ("11:30", at("2026-03-10T11:30:00+00:00")),
        ("12:30:00", at("2026-03-10T12:30:00+00:00")),
        ("12:30:00.000000001", at("2026-03-10T12:30:00+00:00") + 1),
        ("23:00:00", at("2026-03-09T23:00:00+00:00")),
        ("2026-03-10", at("2026-03-10T00:00:00+00:00")),
        ("2026-03-10 01:02:03", at("2026-03-10T01:02:03+00:00")),
        ("2026-03-10T01:02:03.5+02:00", at("2026-03-09T23:02:03+00:00") + SECOND // 2),
        ("2026-03-10T01:02:03.123456789Z", at("2026-03-10T01:02:03+00:00") + 123_456_789),
    ],
)
def test_a_moment_is_a_while_ago_or_iso_or_a_time_of_day_near_the_end_of_the_run(text: str, moment: int) -> None:
    assert parse_moment(text, NOON, NOON, timezone.utc) == moment


def test_a_time_of_day_means_the_day_of_a_run_that_passed_midnight() -> None:
    zone = timezone(timedelta(hours=-8))
    end = at("2026-03-10T00:20:00-08:00")
    assert parse_moment("23:55", NOON, end, zone) == at("2026-03-09T23:55:00-08:00")
    assert parse_moment("00:10", NOON, end, zone) == at("2026-03-10T00:10:00-08:00")


# Options.


def made(options: Mapping[str, Any]) -> Filter:
    return make_filter(cast(FilterOptions, options), NOON, lambda: NOON)


@pytest.mark.parametrize(
    ("options", "choice"),
    [
        ({}, Filter()),
        (dict.fromkeys(FilterOptions.__annotations__), Filter()),
        ({"ranks": "0-3"}, Filter(ranks=RankSet.parse("0-3"))),
        ({"ranks": 0}, Filter(ranks=RankSet.of([0]))),
        ({"ranks": RankSet.of([1])}, Filter(ranks=RankSet.of([1]))),
        ({"level": "info", "hosts": "n*", "stream": "log"}, Filter(level=20, hosts="n*", stream="log")),
        ({"grep": "a", "exclude": "b"}, Filter(grep=re.compile("a"), exclude=re.compile("b"))),
        ({"since": "5m", "until": NOON}, Filter(since_ns=NOON - 300 * SECOND, until_ns=NOON)),
        ({"since": datetime(2026, 3, 10, 12, tzinfo=timezone.utc)}, Filter(since_ns=NOON)),
        ({"attempt": "last"}, Filter(attempt="last")),
        ({"attempt": "2"}, Filter(attempt=2)),
        ({"attempt": 0}, Filter(attempt=0)),
    ],
)
def test_options_are_texts_or_values(options: dict[str, Any], choice: Filter) -> None:
    assert made(options) == choice


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stream": "stdlog"}, "stream 'stdlog': expected one of log, stdout"),
        ({"attempt": "first"}, "attempt 'first': expected a number"),
        ({"attempt": "-1"}, "attempt '-1': expected a number"),
        ({"attempt": -1}, "attempt -1: expected a number"),
        ({"ranks": True}, "ranks True: expected str or int or RankSet"),
        ({"ranks": -1}, "rank set '-1': expected"),
        ({"level": 1.5}, "level 1.5: expected str or int"),
        ({"logger": 3}, "logger 3: expected str"),
        ({"since": 1.5}, "since 1.5: expected str or int or datetime"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        made(options)


@pytest.mark.parametrize(
    ("name", "said"),
    [("rank", "unknown filter 'rank' (did you mean 'ranks'?)"), ("x", "unknown filter 'x'; there are ranks, level,")],
)
def test_an_unknown_name_is_refused_with_a_suggestion(name: str, said: str) -> None:
    with pytest.raises(TypeError, match=re.escape(said)):
        made({name: "1"})
