"""A thread logs without pause while settings change a thousand times: nothing that both states allow is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.limits import scaled

SCRIPT = """
import json, logging, os, sys, threading
if sys.argv[1] == "absent":
    sys.modules["torch"] = None
else:
    import torch

class Counter:
    def __init__(self):
        self.shown = []
    def write(self, text):
        if " number " in text:
            self.shown.append(int(text.rpartition(" number ")[2]))
    def flush(self):
        pass

sys.stderr = counter = Counter()
from tlogs.loggers.controller import LEVELS
from tlogs.loggers.torch_api import set_logs
from tlogs_shared.protocol.lease import Lease

taken = []
original = logging.Logger.callHandlers
def take(self, record):
    taken.append(record.args[0])
    original(self, record)
logging.Logger.callHandlers = take

LEVELS.start(os.environ)
set_logs(c10d=10)
log = logging.getLogger("torch.distributed.distributed_c10d")
done = threading.Event()
logged = []
def work():
    number = 0
    while not done.is_set():
        log.debug("number %d", number)
        number += 1
    logged.append(number)

thread = threading.Thread(target=work)
thread.start()
lease = lambda **settings: LEVELS.overlay([Lease(1, settings)] if settings else [])
changes = [
    lambda: set_logs(all=10),
    lambda: set_logs(distributed=10, dynamo=40),
    lambda: lease(c10d=10),
    lambda: set_logs(all=40, guards=True),
    lambda: lease(distributed=10, c10d=0),
    lambda: set_logs(c10d=10, modules={"json": 10}),
    lambda: lease(),
    lambda: set_logs(c10d=10, aot=10),
]
for turn in range(1000 // len(changes)):
    for change in changes:
        change()
done.set()
thread.join()
print(json.dumps([logged[0], len(taken), taken == list(range(logged[0])), len(set(counter.shown))]))
"""


@pytest.mark.parametrize("mode", ["absent", pytest.param("loaded", marks=pytest.mark.torch)])
def test_no_record_that_both_states_allow_is_missing(mode: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, mode],
        capture_output=True,
        text=True,
        timeout=scaled(150),
        check=True,
    )
    logged, taken, in_order, shown = json.loads(ran.stdout)
    assert logged > 1000
    assert taken == logged
    assert in_order
    assert shown == logged
