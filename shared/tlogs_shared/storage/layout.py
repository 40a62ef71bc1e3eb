"""The names of files: those of a run in the store, and those of an outbox. Pure; nothing is looked up here.

A directory of runs has a directory for each run, and `collector.json` (`tlogs_shared.protocol.notice`) beside them::

    NAME/run.json                the metadata, replaced whole
    NAME/segment-00000001.tlf    the records; see `tlogs_shared.storage.segment`
    NAME/control.jsonl           what operators asked for, a line each
    NAME/ledger.json             what was removed to save space; only once something was
    NAME/lock                    held by the daemon that has the run open
    NAME/….torn                  damaged, or cut off after a crash; never read
    NAME/….tmp                   not complete yet; removed when the run is next opened

A directory of outboxes has for each process, NS being the mount namespace of its container::

    HOST-PID.NS-ID.outbox           the outbox; see `tlogs.outbox.ring`
    HOST-PID.NS-ID.outbox.new       an outbox that is being made
    HOST-PID.NS-ID.outbox.fault     the stacks that faulthandler wrote
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = [
    "CONTROL_FILE",
    "FAULT_SUFFIX",
    "LEDGER_FILE",
    "LOCK_FILE",
    "NEW_SUFFIX",
    "OUTBOX_SUFFIX",
    "PARTIAL_SUFFIX",
    "RUN_FILE",
    "RUN_NAME_RULE",
    "TORN_SUFFIX",
    "format_outbox",
    "holds_run",
    "is_of_run",
    "is_run_name",
    "parse_name",
    "parse_outbox",
    "parse_torn",
    "segment_name",
    "torn_name",
]

RUN_FILE: Final = "run.json"
CONTROL_FILE: Final = "control.jsonl"
LEDGER_FILE: Final = "ledger.json"
LOCK_FILE: Final = "lock"
TORN_SUFFIX: Final = ".torn"
PARTIAL_SUFFIX: Final = ".tmp"

OUTBOX_SUFFIX: Final = ".outbox"
NEW_SUFFIX: Final = ".new"
FAULT_SUFFIX: Final = ".fault"

RUN_NAME_RULE: Final = "a name of up to 128 letters, digits, '.', '_' and '-'"
"""The rule of `is_run_name`, for error texts."""

_RUN_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_SEGMENT: Final = re.compile(r"segment-(\d{8,10})\.tlf", re.ASCII)
_TORN: Final = re.compile(r"segment-(\d{8,10})\.\d+\.torn", re.ASCII)
_OUTBOX: Final = re.compile(r".*-(\d+)(?:\.([0-9a-f]+))?-[0-9a-f]+\.outbox", re.ASCII)


def is_run_name(name: str) -> bool:
    """Return True if a run may have this name, which is that of its directory, too.

    >>> is_run_name("20261121-4e63"), is_run_name(".."), is_run_name("a/b")
    (True, False, False)
    """
    return _RUN_NAME.fullmatch(name) is not None and name.strip(".") != ""


def holds_run(names: Iterable[str]) -> bool:
    """Return True if a directory with files of these names is a run's: it has metadata, or records."""
    return any(name == RUN_FILE or parse_name(name) is not None for name in names)


def is_of_run(name: str) -> bool:
    """Return True if the store may have made a file of this name in a run's directory, other than its lock."""
    bare = name.removesuffix(PARTIAL_SUFFIX).removesuffix(TORN_SUFFIX)
    return bare in (RUN_FILE, LEDGER_FILE, CONTROL_FILE) or bare.startswith("segment-")


def segment_name(number: int) -> str:
    """The file name of a segment; names sort as their numbers do.

    >>> segment_name(3), parse_name("segment-00000003.tlf"), parse_name("segment-00000003.torn")
    ('segment-00000003.tlf', 3, None)
    """
    return f"segment-{number:08d}.tlf"


def parse_name(name: str) -> int | None:
    """The number in the file name of a segment, None where it is not one."""
    match = _SEGMENT.fullmatch(name)
    return int(match[1]) if match else None


def torn_name(number: int, offset: int) -> str:
    """The file name for what was cut off a segment at *offset*."""
    return f"segment-{number:08d}.{offset}{TORN_SUFFIX}"


def parse_torn(name: str) -> int | None:
    """The segment that a file was cut off, None where *name* is not such a file."""
    match = _TORN.fullmatch(name)
    return int(match[1]) if match else None


def format_outbox(host: str, pid: int, container: int, stream: bytes) -> str:
    """The file name of an outbox; containers that share a directory may have processes of the same number.

    >>> format_outbox("node7", 4242, 255, bytes(16)), parse_outbox("node7-4242.ff-00000000.outbox")
    ('node7-4242.ff-00000000.outbox', (4242, 255))
    """
    return f"{host}-{pid}.{container:x}-{stream.hex()[:8]}{OUTBOX_SUFFIX}"


def parse_outbox(name: str) -> tuple[int, int | None] | None:
    """The process whose outbox a file is, and its container (None before 0.2); None where *name* is not an outbox's."""
    match = _OUTBOX.fullmatch(name)
    if match is None:
        return None
    return int(match[1]), None if match[2] is None else int(match[2], 16)
