"""A real torch.compile under TORCH_LOGS: what is stored is what torch printed, line for line."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest
from tests.limits import scaled

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab, Process

pytestmark = [pytest.mark.multiprocess, pytest.mark.torch, pytest.mark.timeout(300)]

WORKER = "import tlogs\ntlogs.init()\n"

SCRIPT = """\
import warnings
warnings.simplefilter("ignore")
import torch

@torch.compile(backend="eager")
def step(x, n):
    y = x * n
    print("a graph break")
    return y.sum()

for n in (1, 2, 3):
    step(torch.ones(4), n)
"""

LINE = re.compile(r"(?:\[rank0\]:)?([VIWEC])\d{4} [\d:.]+ (\d+ \S+\].*)")
"""torch's line without its time: torch cuts microseconds to milliseconds, tlogs does not."""


def lines(text: str) -> list[tuple[str, str]]:
    """The lines that torch's format makes, without rank and time."""
    return [(found[1], found[2].rstrip()) for line in text.splitlines() if (found := LINE.fullmatch(line))]


@pytest.mark.parametrize("first", ["torch", "tlogs"])
def test_what_is_stored_is_what_torch_printed(lab: Lab, first: str) -> None:
    """With torch imported before tlogs.init(), and after it."""
    collector = lab.collector("--quiet")
    before = "import torch\n" if first == "torch" else ""
    command = [sys.executable, "-c", f"{before}{WORKER}{SCRIPT}"]
    environ = {**lab.rank(collector=collector), "TORCH_LOGS": "+dynamo,graph_breaks,recompiles"}
    worker: Process = lab.start(command, environ)
    try:
        worker.popen.wait(scaled(240))
    finally:
        printed = lines(worker.err)
    assert worker.popen.returncode == 0, worker.err
    stored = lines(lab.tlogs("cat", "--logger", "torch", "--dir", str(collector.directory)))
    assert len(printed) > 50
    assert any("[__recompiles]" in text for _, text in printed)
    assert stored == printed
    [closing] = collector.stop()
    assert (closing.dropped, closing.lost) == (0, 0)
