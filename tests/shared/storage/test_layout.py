"""The names of files, as they are made and as they are found again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs_shared.storage.layout import (
    format_outbox,
    holds_run,
    is_of_run,
    is_run_name,
    parse_name,
    parse_outbox,
    parse_torn,
    segment_name,
    torn_name,
)


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("20261121-215513-4e63", True),
        ("a", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        (".", False),
        ("..", False),
        ("...", False),
        (".hidden", True),
        ("a/b", False),
        ("a b", False),
        ("läuft", False),
        ("a\n", False),
    ],
)
def test_the_name_of_a_run_leads_to_one_directory_and_not_out_of_it(name: str, may: bool) -> None:
    assert is_run_name(name) is may


@given(number=st.integers(0, 10**10 - 1), offset=st.integers(0, 1 << 41))
def test_the_names_of_segments_are_read_back_and_not_taken_for_each_other(number: int, offset: int) -> None:
    whole, torn = segment_name(number), torn_name(number, offset)
    assert (parse_name(whole), parse_torn(torn)) == (number, number)
    assert (parse_name(torn), parse_torn(whole)) == (None, None)


@given(host=st.text(min_size=1).filter(lambda host: "\n" not in host), pid=st.integers(0, 1 << 31))
def test_an_outbox_names_its_process_whatever_its_host_is_called(host: str, pid: int) -> None:
    assert parse_outbox(format_outbox(host, pid, 0xF0000000, bytes.fromhex("00ff") * 8)) == (pid, 0xF0000000)


def test_an_outbox_of_version_0_1_names_no_container() -> None:
    assert parse_outbox("node-7-77-30313233.outbox") == (77, None)


@pytest.mark.parametrize("name", ["x.outbox", "n1-12-00ff.outbox.new", "n1-12-00ff.outbox.fault", "n1-x-00ff.outbox"])
def test_what_is_not_an_outbox_names_no_process(name: str) -> None:
    assert parse_outbox(name) is None


@pytest.mark.parametrize(
    ("names", "is_run"),
    [(["run.json"], True), (["segment-00000001.tlf"], True), (["lock", "control.jsonl"], False), ([], False)],
)
def test_a_run_is_a_directory_with_metadata_or_records(names: list[str], is_run: bool) -> None:
    assert holds_run(names) is is_run


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *((name, True) for name in ("run.json", "run.json.tmp", "ledger.json.torn", "control.jsonl")),
        *((name, True) for name in ("segment-00000001.tlf", "segment-00000001.tlf.tmp", torn_name(1, 7))),
        *((name, False) for name in ("notes.txt", "lock", "run.json.bak")),
    ],
)
def test_only_what_the_store_made_belongs_to_a_run(name: str, ours: bool) -> None:
    assert is_of_run(name) is ours
