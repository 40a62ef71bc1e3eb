"""A record as the Python API gives it."""

from __future__ import annotations

from typing import Any

from tlogs.reading.entry import Speaker
from tlogs.reading.record import Record, record_of
from tlogs_shared.origin import Origin, StreamInfo
from tlogs_shared.storage.record import Fields

TS = 1_700_000_000_123_456_789
ALWAYS = (
    "time ts run attempt rank local_rank world_size host pid thread seq level levelno logger template path line func "
    "message stream"
)


def record(origin: dict[str, Any] | None = None, info: dict[str, Any] | None = None, **changed: Any) -> Record:
    who = StreamInfo(Origin(**{"host": "n1", "pid": 7, **(origin or {})}), **(info or {}))
    fields = Fields(TS, 20, "train", "step %d", None, None, "train.py", 7, "main", "MainThread", None)
    fields = fields._replace(**changed)
    return record_of((who.corrected(TS), -1, 5, Speaker(b"s", who, "run1"), fields))


def test_the_keys_that_are_always_there_come_in_this_order() -> None:
    found = record().asdict()
    assert list(found) == ALWAYS.split()
    assert found == {
        "time": "2023-11-14T22:13:20.123456789Z", "ts": TS, "run": "run1", "attempt": 0, "rank": None,
        "local_rank": None, "world_size": None, "host": "n1", "pid": 7, "thread": "MainThread", "seq": 5,
        "level": "INFO", "levelno": 20, "logger": "train", "template": "step %d", "path": "train.py", "line": 7,
        "func": "main", "message": "step %d", "stream": "log",
    }  # fmt: skip


def test_the_corrected_time_is_a_key_too() -> None:
    found = record(info={"offset_ns": 1_000_000_000, "bound_ns": 0})
    assert found.time == found.asdict()["time"] == "2023-11-14T22:13:21.123456789Z"
    assert (found.ts, found.corrected) == (TS, TS + 1_000_000_000)
    assert (found.asdict()["offset_ns"], found.asdict()["bound_ns"]) == (1_000_000_000, 0)


def test_what_a_record_may_have_is_a_key_where_it_has_it() -> None:
    extra = {"artifact": "guards", "trace_id": "0/0", "exc": "E", "stack": "S", "fields": {}, "stream": "stdout"}
    found = record({"rank": 0, "helper": "DataLoader0"}, args=[], extra=extra).asdict()
    assert set(found) - set(ALWAYS.split()) == {"helper", "artifact", "trace_id", "exc", "stack", "extra", "args"}
    assert (found["args"], found["extra"], found["stream"]) == ([], {}, "stdout")
