"""A real torch.compile: what tlogs may take is what torch shows, record for record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

SCRIPT = """
import json, logging, os
import tlogs.apply
tlogs.apply.LEVELS.start(os.environ)
import torch

taken, shown, traced = [], [], []
call_handlers, emit = logging.Logger.callHandlers, logging.StreamHandler.emit

def take(self, record):
    if record.name.startswith("torch.") and record.name != "torch.__trace":
        taken.append([record.name, record.levelname, str(record.msg)])
        traced.append(tlogs.apply.trace_id())
    call_handlers(self, record)

def show(self, record):
    if record.name.startswith("torch.") and record.name != "torch.__trace":
        shown.append([record.name, record.levelname, str(record.msg)])

logging.Logger.callHandlers, logging.StreamHandler.emit = take, show

@torch.compile(backend="eager")
def step(x, n):
    y = x * n
    print("a graph break")
    return y.sum()

for n in (1, 2, 3):
    step(torch.ones(4), n)
print(json.dumps([taken, shown, sorted({str(trace) for trace in traced})]))
"""


@pytest.mark.torch
@pytest.mark.timeout(120)
def test_what_may_be_taken_is_what_torch_shows() -> None:
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env={**os.environ, "TORCH_LOGS": "+dynamo,graph_breaks,recompiles"},
    )
    taken, shown, traced = json.loads(ran.stdout.splitlines()[-1])
    assert taken == shown
    names = {name.rpartition(".__")[2] for name, _, _ in taken if ".__" in name}
    assert {"graph_breaks", "recompiles", "guards"} <= names
    assert "bytecode" not in names
    assert "0/0" in traced
