"""A real torch.compile: what tlogs may take is what torch shows, record for record."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.limits import scaled

SCRIPT = """
import json, logging, os
import tlogs.loggers.controller, tlogs.loggers.with_torch
tlogs.loggers.controller.LEVELS.start(os.environ)
import torch

taken, shown, traced = [], [], []
call_handlers, emit = logging.Logger.callHandlers, logging.StreamHandler.emit

def take(self, record):
    if record.name.startswith("torch.") and record.name != "torch.__trace":
        taken.append([record.name, record.levelname, str(record.msg)])
        traced.append(tlogs.loggers.with_torch.trace_id())
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
@pytest.mark.timeout(300)
def test_what_may_be_taken_is_what_torch_shows() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=scaled(240),
        check=True,
        env={**os.environ, "TORCH_LOGS": "+dynamo,graph_breaks,recompiles"},
    )
    taken, shown, traced = json.loads(ran.stdout.splitlines()[-1])
    assert taken == shown
    names = {name.rpartition(".__")[2] for name, _, _ in taken if ".__" in name}
    assert {"graph_breaks", "recompiles", "guards"} <= names
    assert "bytecode" not in names
    assert "0/0" in traced


LEASED = """
import json, logging, os
import torch
from tlogs.loggers.controller import LEVELS
from tlogs_shared.protocol.lease import Lease

LEVELS.start(os.environ)
said = []

class Say(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

logging.getLogger("torch._dynamo").addHandler(Say())
double = torch.compile(lambda x: x * 2, backend="eager", dynamic=False)

def recompiled(rows):
    said.clear()
    double(torch.ones(rows))
    return sum("Recompiling" in text for text in said)

recompiled(1)
found = [recompiled(2)]
LEVELS.overlay([Lease(1, {"recompiles": True})])
found.append(recompiled(3))
torch._logging.set_logs(graph_breaks=True)
found.append(recompiled(4))
LEVELS.overlay([])
found.append(recompiled(5))
torch._logging.set_logs(recompiles=True)
found.append(recompiled(6))
LEVELS.overlay([Lease(2, {"recompiles": False})])
found.append(recompiled(7))
LEVELS.overlay([])
found.append(recompiled(8))
state = torch._logging._internal.log_state
print(json.dumps([found, sorted(state.artifact_names)]))
"""


@pytest.mark.torch
@pytest.mark.timeout(300)
def test_a_lease_turns_recompiles_on_and_off_though_torch_asks_its_own_state() -> None:
    """torch makes these records only where `log_state` says so, and leases are never written into it."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LEASED],
        capture_output=True,
        text=True,
        timeout=scaled(240),
        check=True,
        env={name: value for name, value in os.environ.items() if name != "TORCH_LOGS"},
    )
    found, state = json.loads(ran.stdout.splitlines()[-1])
    assert found == [0, 1, 1, 0, 1, 0, 1]
    assert state == ["recompiles"]
