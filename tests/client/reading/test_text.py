"""Records as text."""

from __future__ import annotations

import re
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlogs.reading.entry import Entry, Speaker
from tlogs.reading.fold import Fold
from tlogs.reading.text import TextRenderer
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.record import Fields

TS = 1_700_000_000_123_456_789
STAMP = "1114 22:13:20.123456"


def speaker(rank: int | None = 0, *, helper: str | None = None, host: str = "n1", **more: Any) -> Speaker:
    return Speaker(bytes(16), StreamInfo(Origin(host=host, pid=27265, rank=rank, helper=helper), **more), "run1")


def entry(who: Speaker | None = None, **changed: Any) -> Entry:
    who = who or speaker()
    fields = Fields(TS, 20, "train", "step %d", [3], None, "train.py", 7, "main", "MainThread", None)
    fields = fields._replace(**changed)
    return who.info.corrected(fields.ts), who.rank, 5, who, fields


def text(*entries: Entry, **options: Any) -> str:
    return TextRenderer(timezone.utc, **options).entries(entries)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (entry(), f"[rank0]:I{STAMP} 27265 train.py:7] step 3"),
        (entry(speaker(3, helper="DataLoader1")), f"[rank3/DataLoader1]:I{STAMP} 27265 train.py:7] step 3"),
        (entry(speaker(None)), f"[n1:27265]:I{STAMP} 27265 train.py:7] step 3"),
        (entry(levelno=10), f"[rank0]:V{STAMP} 27265 train.py:7] step 3"),
        (entry(levelno=30), f"[rank0]:W{STAMP} 27265 train.py:7] step 3"),
        (entry(levelno=40), f"[rank0]:E{STAMP} 27265 train.py:7] step 3"),
        (entry(levelno=50), f"[rank0]:C{STAMP} 27265 train.py:7] step 3"),
        (entry(levelno=35), f"[rank0]:Level 35{STAMP} 27265 train.py:7] step 3"),
        (entry(levelno=35, extra={"levelname": "NOTICE"}), f"[rank0]:NOTICE{STAMP} 27265 train.py:7] step 3"),
        (entry(extra={"trace_id": "0/0"}), f"[rank0]:I{STAMP} 27265 train.py:7] [0/0] step 3"),
        (
            entry(extra={"trace_id": "0/0", "artifact": "guards"}),
            f"[rank0]:I{STAMP} 27265 train.py:7] [0/0] [__guards] step 3",
        ),
        (entry(extra={"stream": "stdout"}, path="", line=0), f"[rank0]:I{STAMP} 27265 stdout] step 3"),
        (entry(extra={"stream": "tlogs"}, path="x.py"), f"[rank0]:I{STAMP} 27265 tlogs] step 3"),
        (entry(args=None), f"[rank0]:I{STAMP} 27265 train.py:7] step %d"),
        (entry(message="settled"), f"[rank0]:I{STAMP} 27265 train.py:7] settled"),
        (entry(speaker(offset_ns=1_000_000_000)), f"[rank0]:I{STAMP.replace(':20', ':21')} 27265 train.py:7] step 3"),
    ],
)
def test_a_line_is_torchs_own_with_true_microseconds_and_the_rank(found: Entry, line: str) -> None:
    assert text(found) == line + "\n"


def test_times_are_in_the_readers_zone() -> None:
    renderer = TextRenderer(timezone(timedelta(hours=5, minutes=30)))
    assert renderer.entries([entry()]).startswith("[rank0]:I1115 03:43:20.123456 ")


def test_every_physical_line_carries_the_prefix() -> None:
    found = entry(message="one\ntwo\r\n\nfour", extra={"exc": "Traceback\nValueError: x", "stack": "Stack\n  File"})
    prefix = f"[rank0]:I{STAMP} 27265 train.py:7] "
    assert text(found) == "".join(
        f"{prefix}{line}\n" for line in ["one", "two", "", "four", "Traceback", "ValueError: x", "Stack", "  File"]
    )


def test_a_terminal_is_never_steered_by_what_was_logged() -> None:
    found = entry(message="a\x1b[2J\rb\tc\x9b1m\u202e\x07", path="p\x1b.py", extra={"trace_id": "\x1b]0;t\x07"})
    assert text(found, escape=True) == (
        f"[rank0]:I{STAMP} 27265 p\\x1b.py:7] [\\x1b]0;t\\x07] a\\x1b[2J\\x0db\tc\\x9b1m\\u202e\\x07\n"
    )


@given(st.text(), st.text(), st.text(min_size=1), st.text(min_size=1))
def test_whatever_is_logged_sends_no_control_character_to_a_terminal(
    message: str, path: str, host: str, thread: str
) -> None:
    found = text(entry(speaker(None, host=host), message=message, path=path, thread=thread), escape=True)
    assert not [character for character in found if ord(character) < 32 and character not in "\n\t"]
    lines = found[:-1].split("\n")
    assert len({line[: line.index(STAMP)] for line in lines}) == 1


def test_a_pipe_gets_the_characters_that_were_logged() -> None:
    assert "progress\r50 %\x1b[0m" in text(entry(message="progress\r50 %\x1b[0m"))


def test_a_line_feed_in_a_path_does_not_begin_a_line() -> None:
    assert text(entry(path="a\nb.py")) == f"[rank0]:I{STAMP} 27265 a\\nb.py:7] step 3\n"


def test_colours_are_there_only_when_asked_for_and_change_no_character() -> None:
    found = [entry(levelno=levelno) for levelno in (10, 20, 30, 40, 50)] + [entry(extra={"stream": "tlogs"})]
    coloured, plain = text(*found, colour=True), text(*found)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_a_folded_line_shows_the_ranks_that_said_it() -> None:
    fold = Fold()
    groups = [*fold.add([entry(speaker(rank)) for rank in (0, 1, 2, 5)]), *fold.until(None)]
    assert TextRenderer(timezone.utc).groups(groups) == f"[rank0-2,5]:I{STAMP} 27265 train.py:7] step 3\n"


def test_a_lone_surrogate_is_written() -> None:
    """File names that are no UTF-8 come as lone surrogates; output may neither fail on them nor drop the record."""
    found = entry(message="name \udcff")
    assert b"name \\udcff\n" in text(found).encode("utf-8", "backslashreplace")
