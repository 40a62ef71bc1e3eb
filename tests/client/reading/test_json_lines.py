"""Records as JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tlogs.reading.entry import Entry, Speaker
from tlogs.reading.fold import Fold
from tlogs.reading.json_lines import JsonRenderer
from tlogs.reading.record import record_of
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.record import Fields

TS = 1_700_000_000_123_456_789


def speaker(rank: int | None = 0, *, helper: str | None = None, host: str = "n1", **more: Any) -> Speaker:
    return Speaker(bytes(16), StreamInfo(Origin(host=host, pid=27265, rank=rank, helper=helper), **more), "run1")


def entry(who: Speaker | None = None, **changed: Any) -> Entry:
    who = who or speaker()
    fields = Fields(TS, 20, "train", "step %d", [3], None, "train.py", 7, "main", "MainThread", None)
    fields = fields._replace(**changed)
    return who.info.corrected(fields.ts), who.rank, 5, who, fields


primitives = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
entries = st.builds(
    entry,
    st.builds(
        speaker,
        st.none() | st.integers(0, 99),
        helper=st.none() | st.text(min_size=1),
        offset_ns=st.none() | st.integers(-(10**9), 10**9),
        attempt=st.integers(0, 3),
    ),
    ts=st.integers(0, 2**63),
    levelno=st.sampled_from([0, 10, 20, 30, 40, 50, 15, -3]),
    logger=st.sampled_from(["train", "torch._dynamo.guards.__guards", 'q"\n', "torch.distributed.distributed_c10d"]),
    template=st.text() | st.just("%s and %s"),
    args=st.none() | st.lists(primitives, max_size=3) | st.dictionaries(st.text(), primitives, max_size=3),
    message=st.none() | st.text(),
    path=st.text(),
    line=st.integers(0, 10**6),
    func=st.text(),
    thread=st.text(),
    extra=st.none()
    | st.fixed_dictionaries(
        {},
        optional={
            "exc": st.text(),
            "artifact": st.text(),
            "fields": st.dictionaries(st.text(), primitives),
            "stream": st.sampled_from(["stdout", "tlogs"]),
        },
    ),
)


@given(st.lists(entries, max_size=4))
def test_json_has_the_keys_and_values_of_the_record_in_their_order_one_a_line(found: list[Entry]) -> None:
    lines = JsonRenderer().entries(found).splitlines()
    assert [list(json.loads(line).items()) for line in lines] == [
        list(record_of(one).asdict().items()) for one in found
    ]


def test_json_is_valid_where_a_value_is_no_number_or_no_json() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    args = [float("nan"), float("inf"), float("-inf"), b"\xff", {1: 2, b"k": 3}]
    found = entry(args=args, message="x", extra={"fields": {"loss": float("nan"), "deep": deep}})
    read = json.loads(JsonRenderer().entries([found]), parse_constant=refuse)
    assert read["args"] == ["NaN", "Infinity", "-Infinity", "b'\\xff'", {"1": 2, "b'k'": 3}]
    assert read["extra"]["loss"] == "NaN"


def test_output_is_ascii_whatever_was_logged() -> None:
    """Control characters steer no terminal, and a lone surrogate (a file name that is no UTF-8) is written as well."""
    text = "name \udcff \x1b[2J \x9b1m \u202e \u2028 é"
    line = JsonRenderer().entries([entry(message=text, thread=text, func=text)])
    assert line.isascii()
    assert line.splitlines() == [line[:-1]]
    assert line[:-1].isprintable()
    found = json.loads(line)
    assert (found["message"], found["thread"], found["func"]) == (text, text, text)


def test_a_folded_line_names_the_ranks_that_said_it() -> None:
    fold = Fold()
    groups = [*fold.add([entry(speaker(rank)) for rank in (0, 1, 2, 5)]), *fold.until(None)]
    assert json.loads(JsonRenderer().groups(groups))["ranks"] == "0-2,5"


def test_templates_that_a_program_makes_up_are_written_though_not_kept() -> None:
    renderer = JsonRenderer()
    found = [entry(template=f"step {number}", args=None) for number in range(5000)]
    assert [json.loads(line)["message"] for line in renderer.entries(found).splitlines()] == [
        f"step {number}" for number in range(5000)
    ]
