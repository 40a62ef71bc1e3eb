"""The line format of a process without torch: byte for byte torch's own."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.limits import scaled

from tlogs.levels.registry import recorded
from tlogs.loggers.torch_format import TorchFormatter

RECORDS = """
import logging, sys
def records():
    yield dict(name="torch._dynamo", level=20, msg="plain %d", args=(7,))
    yield dict(name="torch._dynamo", level=30, msg="two\\nlines", args=())
    yield dict(name="torch._x.__guards", level=10, msg="an artifact", args=())
    yield dict(name="torch._x.__custom_format_test_artifact", level=10, msg="its own\\nformat", args=())
    yield dict(name="torch._dynamo", level=35, msg="an odd level", args=())
    yield dict(name="torch._dynamo", level=50, msg="", args=())
    try:
        raise ValueError("with\\nlines")
    except ValueError:
        yield dict(name="torch._dynamo", level=40, msg="failed", args=(), exc_info=sys.exc_info())
    yield dict(name="torch._dynamo", level=40, msg="ends\\n", args=(), exc_info=None, sinfo="Stack:\\n  here")
def made():
    for values in records():
        exc_info = values.pop("exc_info", None)
        record = logging.LogRecord(pathname=json.__file__, lineno=5, exc_info=exc_info, func="f", **values)
        record.created, record.msecs, record.process = 1700000000.123, 123.0, 4711
        yield record
import json
"""
TORCH = (
    RECORDS
    + """
import torch._logging._internal as internal
for name in ("guards", "custom_format_test_artifact"):
    internal.getArtifactLogger("torch._x", name)
print(json.dumps([internal.TorchLogsFormatter().format(record) for record in made()]))
"""
)


def formatted() -> Iterator[str]:
    registry = recorded()
    for name in ("guards", "custom_format_test_artifact"):
        registry.artifact_loggers[f"torch._x.__{name}"] = name
    formatter = TorchFormatter(registry)
    names: dict[str, object] = {}
    exec(RECORDS, names)
    for record in names["made"]():  # type: ignore[operator]
        yield formatter.format(record)


def without_traceback(text: str) -> str:
    """Paths and line numbers in a traceback are where the record was made, here and there."""
    return re.sub(r'File "[^"]*", line \d+', "File", text)


@pytest.mark.torch
def test_each_line_is_the_line_that_torch_writes() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TORCH], capture_output=True, text=True, timeout=scaled(150), check=True
    )
    assert [without_traceback(text) for text in formatted()] == [
        without_traceback(text) for text in json.loads(ran.stdout)
    ]


def test_each_line_of_a_record_carries_the_prefix() -> None:
    texts = list(formatted())
    assert re.fullmatch(r"I\d{4} \d\d:\d\d:\d\d\.123000 4711 \S*json/__init__\.py:5\] plain 7", texts[0])
    first, second = texts[1].split("\n")
    assert (first[:1], first.rpartition("] ")[2], second.rpartition("] ")[2]) == ("W", "two", "lines")
    assert first.split("]")[0] == second.split("]")[0]
    assert texts[2].endswith(" [__guards] an artifact")
    assert texts[3] == "its own\nformat"
    assert texts[4].startswith("Level 35")
    prefix = texts[6].split("]")[0]
    assert all(line.startswith(prefix) for line in texts[6].split("\n"))


def test_a_record_of_an_unregistered_logger_is_plain() -> None:
    record = logging.LogRecord("train.__guards", 20, __file__, 1, "text", (), None)
    assert "[__guards]" not in TorchFormatter(recorded()).format(record)
