"""Sets of ranks as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.errors import ConfigError
from tlogs_shared.rankset import RankSet


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("0", [0], [1, None]),
        ("0-3,8", [0, 3, 8], [4, 7, 9]),
        ("0-63/8", [0, 8, 56], [1, 63]),
        ("^5", [0, 4, 6, 4095, None], [5]),
        ("^5,^7-9", [6, 10], [5, 7, 9]),
        ("all", [0, 10_000, None], []),
        ("all,^3", [0], [3]),
        ("0-7,^3", [0, 7], [3, 8, None]),
        (" 1 , 2 ", [1, 2], [0]),
    ],
)
def test_a_set_holds_what_its_text_says(text: str, inside: list[int | None], outside: list[int | None]) -> None:
    ranks = RankSet.parse(text)
    assert [rank for rank in inside if rank not in ranks] == []
    assert [rank for rank in outside if rank in ranks] == []


@pytest.mark.parametrize(
    "text", ["", "a", "1-", "-1", "3-1", "0-8/0", "1,,2", "1-2-3", "^", "^^1", "0-9999999999", "١"]
)
def test_what_is_no_set_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="rank set"):
        RankSet.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,3-1", "'3-1': first is above last; did you mean 1-3?"),
        ("0-8/0", "a step of 0; did you mean 0-8?"),
        ("0-9999999", "ranks above 1000000 are not supported"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RankSet.parse(text)
    assert str(caught.value) == f"rank set {text!r}: {said}"


sets = st.builds(RankSet, st.frozensets(st.integers(0, 200)), st.booleans())


@given(sets.filter(bool))
def test_the_text_of_a_set_reads_back_as_the_set(ranks: RankSet) -> None:
    assert RankSet.parse(str(ranks)) == ranks


@given(st.frozensets(st.integers(0, 200)))
def test_named_ranks_are_listed_in_order_and_counted(ranks: frozenset[int]) -> None:
    assert list(RankSet.of(ranks)) == sorted(ranks)
    assert len(RankSet.of(ranks)) == len(ranks)
    assert bool(RankSet.of(ranks)) == bool(ranks)


def test_the_text_is_the_shortest() -> None:
    assert str(RankSet.of([3, 0, 1, 2, 8, 9])) == "0-3,8-9"
    assert str(RankSet()) == ""
