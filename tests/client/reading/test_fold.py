"""The same record from many ranks is shown once, and nobody's order suffers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tlogs.reading.entry import Entry, Speaker
from tlogs.reading.fold import Fold, Group
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.record import Fields

SECOND = 1_000_000_000

SPEAKERS = {rank: Speaker(bytes([rank]) * 16, StreamInfo(Origin(host="n1", pid=rank, rank=rank))) for rank in range(8)}
LAUNCHER = Speaker(b"L" * 16, StreamInfo(Origin(host="n1", pid=99)))
HELPER = Speaker(b"H" * 16, StreamInfo(Origin(host="n1", pid=98, rank=0, helper="DataLoader1")))


def said(time: float, rank: int, text: str, *, speaker: Speaker | None = None, **more: Any) -> Entry:
    speaker = speaker or SPEAKERS[rank]
    fields = Fields(round(time * SECOND), 20, "train", text, None, None, "a.py", 1, "f", "MainThread", None)
    return round(time * SECOND), speaker.rank, 0, speaker, fields._replace(**more)


def folded(entries: list[Entry], fold: Fold | None = None) -> list[Group]:
    fold = fold or Fold()
    return [*fold.add(entries), *fold.until(None)]


def shown(groups: list[Group]) -> list[str]:
    return [f"{group.label} {group.first[4].template}" for group in groups]


def test_one_line_stands_for_all_who_said_it_and_shows_who() -> None:
    entries = [said(0.1 * rank, rank, "hello") for rank in (0, 1, 2, 5)]
    assert shown(folded(entries)) == ["rank0-2,5 hello"]


def test_lines_of_one_rank_are_never_folded_with_each_other() -> None:
    entries = [said(0, 0, "a"), said(0.1, 0, "a"), said(0.2, 1, "a"), said(0.3, 1, "a"), said(0.4, 1, "a")]
    assert shown(folded(entries)) == ["rank0-1 a", "rank0-1 a", "rank1 a"]


def test_a_rank_that_says_two_things_in_the_other_order_keeps_its_order() -> None:
    entries = [said(0.0, 0, "a"), said(0.1, 1, "b"), said(0.2, 0, "b"), said(0.3, 1, "a")]
    assert shown(folded(entries)) == ["rank0 a", "rank0-1 b", "rank1 a"]


def test_what_comes_after_the_window_is_a_line_of_its_own() -> None:
    assert shown(folded([said(0, 0, "a"), said(1.0, 1, "a"), said(2.1, 2, "a")])) == ["rank0-1 a", "rank2 a"]


def test_records_that_differ_in_what_text_shows_are_kept_apart() -> None:
    entries = [
        said(0, 0, "a"),
        said(0, 1, "a", levelno=30),
        said(0, 2, "a", line=2),
        said(0, 3, "a", extra={"exc": "ValueError: 1"}),
        said(0, 4, "a", extra={"exc": "ValueError: 2"}),
        said(0, 5, "%s", args=["a"]),
    ]
    assert [group.ranks for group in folded(entries)] == [[0, 5], [1], [2], [3], [4]]


def test_helpers_and_launchers_keep_their_own_lines() -> None:
    entries = [said(0, 0, "a"), said(0, 0, "a", speaker=HELPER), said(0, 0, "a", speaker=LAUNCHER), said(0, 1, "a")]
    assert shown(folded(entries)) == ["rank0-1 a", "rank0/DataLoader1 a", "n1:99 a"]


def test_a_line_waits_for_the_window_unless_all_ranks_have_said_it() -> None:
    fold = Fold(world=2)
    assert shown(list(fold.add([said(0, 0, "a"), said(0.1, 1, "a"), said(0.2, 0, "b")]))) == ["rank0-1 a"]
    assert shown(list(fold.until(round(1.2 * SECOND)))) == []
    assert shown(list(fold.until(round(1.3 * SECOND)))) == ["rank0 b"]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 400)), max_size=60))
def test_nothing_is_lost_or_reordered_for_any_rank(steps: list[tuple[int, str, int]]) -> None:
    time, entries = 0.0, []
    for rank, text, step in steps:
        time += step / 1000
        entries.append(said(time, rank, text))
    groups = folded(entries)
    for rank in range(4):
        assert [group.first[4].template for group in groups if rank in group.ranks] == [
            text for one, text, _ in steps if one == rank
        ]
    assert all(len(set(group.ranks)) == len(group.ranks) for group in groups)
    assert [group.first[0] for group in groups] == sorted(group.first[0] for group in groups)
