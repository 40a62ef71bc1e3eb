"""A record with all that is known of it, as the Python API gives it and as JSON has it.

The attributes of `Record`, in their order, are the keys of the JSON format. A new key is declared there, and filled
in where it comes from: `keys_of_speaker` is the same in every record of a stream, `keys_of_call` in every record of a
logging call without extras, `record_of` has the rest. `tlogs.reading.json_lines` then writes it without being told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final

from tlogs.reading.entry import Entry, Speaker, names_of
from tlogs.reading.stamp import rfc3339
from tlogs_shared.storage.record import Fields, message_of, record_level

__all__ = ["Record", "keys_of_call", "keys_of_speaker", "present", "record_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record: the keys of the JSON format as attributes. Those with a default are absent from JSON at that value.

    `corrected` and `stream_id` are for programs, and not in JSON.
    """

    ts: int
    """Nanoseconds since the epoch on the worker's clock; never goes back within a stream."""
    offset_ns: int | None = None
    bound_ns: int | None = None
    run: str
    attempt: int
    rank: int | None
    local_rank: int | None
    world_size: int | None
    host: str
    pid: int
    helper: str | None = None
    recovered: bool = False
    thread: str
    seq: int
    level: str
    levelno: int
    logger: str
    component: str | None = None
    artifact: str | None = None
    template: str
    path: str
    line: int
    func: str
    args: Sequence[Any] | Mapping[str, Any] | None = None
    message: str
    trace_id: str | None = None
    exc: str | None = None
    stack: str | None = None
    extra: Mapping[str, Any] | None = None
    stream: str
    corrected: int
    """`ts` on the collector's clock: the same where the worker runs on the collector's host."""
    stream_id: bytes

    @property
    def time(self) -> str:
        """The corrected time, RFC 3339 in UTC with nanoseconds."""
        return rfc3339(self.corrected)

    def asdict(self) -> dict[str, Any]:
        """The record as the JSON format has it: one flat map, with `time`; keys that do not apply are left out."""
        return {"time": self.time, **present({key: getattr(self, key) for key in _KEYS})}


_KEYS: Final = tuple(field.name for field in fields(Record) if field.name not in ("corrected", "stream_id"))
_DEFAULTS: Final = {field.name: field.default for field in fields(Record) if field.default is not MISSING}


def present(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that JSON has: all but those at their default."""
    return {key: value for key, value in values.items() if value is not _DEFAULTS.get(key, MISSING)}


def keys_of_speaker(speaker: Speaker) -> dict[str, Any]:
    """The keys that are the same in every record of a stream, in their order."""
    info, origin = speaker.info, speaker.info.origin
    return {
        "offset_ns": info.offset_ns,
        "bound_ns": info.bound_ns,
        "run": speaker.run,
        "attempt": info.attempt,
        "rank": origin.rank,
        "local_rank": origin.local_rank,
        "world_size": origin.world_size,
        "host": origin.host,
        "pid": origin.pid,
        "helper": origin.helper,
        "recovered": speaker.recovered,
    }


def keys_of_call(record: Fields) -> dict[str, Any]:
    """The keys that are the same in every record of a logging call that gives no extras, in their order."""
    component, artifact = names_of(record.logger, record.extra)
    return {
        "level": record_level(record.levelno, record.extra),
        "levelno": record.levelno,
        "logger": record.logger,
        "component": component,
        "artifact": artifact,
        "template": record.template,
        "path": record.path,
        "line": record.line,
        "func": record.func,
    }


def record_of(entry: Entry) -> Record:
    """The record with all that is known of it."""
    corrected, _, number, speaker, record = entry
    extra = record.extra or {}
    return Record(
        ts=record.ts,
        corrected=corrected,
        thread=record.thread,
        seq=number,
        args=record.args,
        message=message_of(record),
        trace_id=extra.get("trace_id"),
        exc=extra.get("exc"),
        stack=extra.get("stack"),
        extra=extra.get("fields"),
        stream=extra.get("stream", "log"),
        stream_id=speaker.stream,
        **keys_of_speaker(speaker),
        **keys_of_call(record),
    )
