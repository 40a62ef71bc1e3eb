"""How a worker ended, from what it said and what the kernel says."""

from __future__ import annotations

import pytest

from tlogs.agent.ends import Status, Word, end_record, end_text, judge
from tlogs_shared.end import End
from tlogs_shared.origin import Origin
from tlogs_shared.storage.record import unpack

OK = Status(0, None)
UNSURE = Status(0, None, is_sure=False)
KILL = Status(None, 9)
BYE = Word(bye="exit")
LOSS = Word(exception="ValueError: loss is nan")


@pytest.mark.parametrize(
    ("word", "status", "found"),
    [
        (BYE, OK, {"how": "finished", "code": 0}),
        (BYE, UNSURE, {"how": "finished", "code": 0}),
        (BYE, None, {"how": "finished"}),
        (BYE, Status(3, None), {"how": "failed", "code": 3}),
        (BYE, Status(None, 6), {"how": "killed", "signal": "SIGABRT"}),
        (Word(), OK, {"how": "finished", "code": 0}),
        (Word(), UNSURE, {"how": "ended"}),
        (Word(), None, {"how": "ended"}),
        (Word(), KILL, {"how": "killed", "signal": "SIGKILL"}),
        (Word(), Status(2, None), {"how": "failed", "code": 2}),
        (LOSS, Status(1, None), {"how": "failed", "code": 1, "exception": "ValueError: loss is nan"}),
        (LOSS, UNSURE, {"how": "failed", "exception": "ValueError: loss is nan"}),
        (LOSS, None, {"how": "failed", "exception": "ValueError: loss is nan"}),
        (Word("exit", "E"), OK, {"how": "failed", "exception": "E"}),
        (LOSS, KILL, {"how": "failed", "exception": "ValueError: loss is nan"}),
    ],
)
def test_what_is_known_decides_in_its_order(word: Word, status: Status | None, found: dict[str, object]) -> None:
    assert judge(word, status, oom=False, ended_ns=7).as_map() == {**found, "ended_ns": 7}


def test_only_a_killed_process_was_out_of_memory() -> None:
    assert judge(Word(), KILL, oom=True, ended_ns=1).as_map()["oom"] is True
    assert "oom" not in judge(Word(), KILL, oom=False, ended_ns=1).as_map()


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (End("finished", code=0), "rank 2 attempt 1 finished (pid 7)"),
        (End("failed", exception="E: x"), "rank 2 attempt 1 failed: E: x (pid 7); its last words are above"),
        (End("failed", code=3), "rank 2 attempt 1 failed with exit status 3 (pid 7); its last words are above"),
        (
            End("killed", signal="SIGKILL", oom=True),
            "rank 2 attempt 1 was killed by SIGKILL (out of memory) (pid 7); its last words are above",
        ),
        (End("ended"), "rank 2 attempt 1 ended (pid 7); how is not known on this kernel; its last words are above"),
    ],
)
def test_each_end_has_its_words(end: End, text: str) -> None:
    assert end_text(end, Origin("n1", 7, rank=2), 1) == text
    ts, level, packed = end_record(end, Origin("n1", 7, rank=2), 1, 5)
    assert ts == 5
    assert unpack(packed).template == text
    assert unpack(packed).levelno == level
