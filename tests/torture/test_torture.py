"""A short `make torture`, the same faults each time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.limits import scaled

TORTURE = Path(__file__).with_name("torture.py")


@pytest.mark.multiprocess
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("outboxes", "seed"), [("roomy", 1), ("tight", 2)])
def test_nothing_is_lost_or_doubled_whatever_goes_wrong(outboxes: str, seed: int, tmp_path: Path) -> None:
    """Collector and workers are killed, stopped and cut off; every call that returned is stored, or counted."""
    command = [sys.executable, str(TORTURE), "--seconds", "8", "--seed", str(seed), "--outboxes", outboxes]
    process = subprocess.Popen(
        [*command, "--rate", "20000", "--ranks", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=scaled(500))
    finally:
        if process.poll() is None:
            process.terminate()  # it takes its mount away
            process.communicate(timeout=scaled(60))
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, out
    assert re.search(r"^lost +0$", out, re.MULTILINE), out
    logged, killed = (
        re.search(r"^records logged +([\d,]+)", out, re.MULTILINE),
        re.search(r"collector killed (\d+)", out),
    )
    assert logged is not None, out
    assert killed is not None, out
    assert int(logged[1].replace(",", "")) > 10_000, out
