"""Leases: scope, stacking, their form on the wire, and what people write for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs.levels.clauses import parse_specs
from tlogs.levels.registry import recorded
from tlogs_shared.errors import DirectiveError, MessageError
from tlogs_shared.protocol.lease import Lease, stack, visible
from tlogs_shared.rankset import RankSet

names = st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8}){0,2}", fullmatch=True)
leases = st.builds(
    Lease,
    revision=st.integers(0, 2**40),
    settings=st.dictionaries(names, st.booleans() | st.integers(0, 50), min_size=1, max_size=5),
    ranks=st.one_of(st.just(RankSet.all()), st.builds(RankSet.of, st.frozensets(st.integers(0, 99), max_size=5))),
    hosts=st.none() | st.just("node-*"),
    ends_ns=st.none() | st.integers(0, 2**62),
    ttl_s=st.none() | st.floats(0, 1e6),
    author=st.text(max_size=9),
    created_ns=st.integers(0, 2**62),
    replace=st.booleans(),
    force=st.booleans(),
)


def lease(revision: int, *, replace: bool = False, ranks: str = "all", **settings: int | bool) -> Lease:
    return Lease(revision, settings, ranks=RankSet.parse(ranks), replace=replace)


@given(leases)
def test_a_lease_survives_its_form_on_the_wire(given_lease: Lease) -> None:
    assert Lease.from_map(given_lease.as_map()) == given_lease


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "1"},
        {"revision": True},
        {"settings": {}},
        {"settings": {"a b": 10}},
        {"settings": {b"a": 10}},
        {"settings": {"a": 1001}},
        {"settings": {"a": "DEBUG"}},
        {"settings": {f"a{n}": 10 for n in range(600)}},
        {"ranks": "x"},
        {"ttl_s": float("nan")},
        {"ttl_s": -1.0},
        {"ttl_s": float("inf")},
        {"ttl_s": 1e12},  # its end would not fit into 64 bits, which is all that a message has
        {"ends_ns": 2**63},
        {"hosts": 7},
    ],
)
def test_a_map_that_is_no_lease_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        Lease.from_map({**lease(1, c10d=10).as_map(), **change})


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_anything_else_is_refused_as_a_message(values: Any) -> None:
    with pytest.raises(MessageError):
        Lease.from_map(values)


def test_a_missing_key_is_refused_and_an_unknown_one_passed_over() -> None:
    values = lease(1, c10d=10).as_map()
    assert Lease.from_map({**values, "newer": 1}) == lease(1, c10d=10)
    del values["author"]
    with pytest.raises(MessageError, match="author"):
        Lease.from_map(values)


def test_only_a_lease_that_replaces_may_name_nothing() -> None:
    assert Lease.from_map(lease(1, replace=True).as_map()).settings == {}


@pytest.mark.parametrize(
    ("ranks", "hosts", "rank", "host", "covered"),
    [
        ("all", None, 3, "n1", True),
        ("0-2", None, 3, "n1", False),
        ("all", "n2*", 3, "n1", False),
        ("all", "n*", 3, "n1", True),
        ("all", None, None, "n1", True),
        ("0-7", None, None, "n1", False),
        ("^5", None, None, "n1", False),
    ],
)
def test_scope_is_ranks_and_hosts(ranks: str, hosts: str | None, rank: int | None, host: str, covered: bool) -> None:
    assert Lease(1, {"c10d": 10}, ranks=RankSet.parse(ranks), hosts=hosts).covers(rank, host) is covered


def test_a_lease_with_the_same_names_and_scope_takes_the_older_ones_place() -> None:
    first, second, third = lease(1, c10d=10), lease(2, dynamo=10, c10d=40), lease(3, c10d=20)
    assert stack([first, second], third) == [third, second]


def test_a_lease_with_another_scope_goes_on_top() -> None:
    first, second = lease(1, c10d=10), lease(2, ranks="0", c10d=20)
    assert stack([first], second) == [first, second]


def test_a_lease_that_replaces_goes_on_top_and_hides_what_is_below() -> None:
    first, second, third = lease(1, c10d=10, replace=True), lease(2, dynamo=10), lease(3, c10d=20, replace=True)
    stacked = stack(stack([first], second), third)
    assert stacked == [second, third]
    assert visible(stacked) == [third]
    assert visible([*stacked, first, second]) == [first, second]


@given(st.lists(leases, max_size=6), leases)
def test_the_newest_lease_is_always_in_the_stack_and_only_equals_of_it_go(given: list[Lease], new: Lease) -> None:
    found = stack(given, new)
    assert new in found
    gone = [old for old in given if old not in found]
    assert all((old.settings.keys(), old.scope) == (new.settings.keys(), new.scope) for old in gone)


@pytest.mark.parametrize(
    ("specs", "settings"),
    [
        (["+c10d,-dynamo,graph_breaks"], {"c10d": 10, "dynamo": 40, "graph_breaks": True}),
        (["c10d", "+graph_breaks"], {"c10d": 20, "graph_breaks": True}),
        (["c10d=debug", "graph_breaks=OFF"], {"c10d": 10, "graph_breaks": False}),
        (["my.module=INFO", "+train"], {"my.module": 20, "train": 10}),
        (["all=15", "mine=on"], {"all": 15, "mine": True}),
        (["c10d=WARN, dynamo=notset"], {"c10d": 30, "dynamo": 0}),
        (["+c10d", "c10d=ERROR"], {"c10d": 40}),
    ],
)
def test_specs_are_the_grammar_of_torch_logs_or_name_and_level(specs: list[str], settings: dict[str, Any]) -> None:
    assert parse_specs(specs, recorded()) == settings


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("-graph_breaks", "say graph_breaks=off"),
        ("graph_breaks=DEBUG", "say graph_breaks=on"),
        ("c10d=on", "say c10d=DEBUG"),
        ("c10d=DEBIG", "did you mean DEBUG"),
        ("c10d=", "unknown level ''"),
        ("=DEBUG", "expected a name"),
        ("c10d dynamo", "malformed"),
        ("++c10d", "malformed"),
        ("a..b=INFO", "expected a name"),
        ("", "expected a name"),
        ("c10d,", "expected a name"),
    ],
)
def test_a_spec_that_means_something_else_than_it_says_is_refused(spec: str, text: str) -> None:
    with pytest.raises(DirectiveError, match=text):
        parse_specs([spec], recorded())


def test_no_spec_at_all_is_refused() -> None:
    with pytest.raises(DirectiveError, match="nothing to set"):
        parse_specs([], recorded())
