"""What arrives of a record beside its message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess


def test_exceptions_stacks_extra_fields_and_warnings_arrive(lab: Lab) -> None:
    collector = lab.collector("--quiet")
    script = """\
import warnings
times = []
class Lazy:
    def __str__(self):
        times.append(1)
        return "made late"
try:
    {}["key"]
except KeyError:
    log.exception("failed", extra={"step": 7, "loss": float("inf"), "what": object()})
log.info("here", stack_info=True)
log.info("%s", Lazy())
log.info("formatted %d times", len(times))
warnings.warn("careful")
log.info("first\\nsecond")
"""
    lab.worker(script, collector=collector, TLOGS_CAPTURE_WARNINGS="1", PYTHONWARNINGS="default").ends()
    collector.stop()
    failed, here, lazy, times, warning, multiline = lab.cat()
    assert failed["exc"].startswith("Traceback")
    assert failed["exc"].endswith("KeyError: 'key'")
    assert (failed["extra"]["step"], failed["extra"]["loss"]) == (7, "Infinity")
    assert failed["extra"]["what"].startswith("<object object")
    assert here["stack"].startswith("Stack (most recent call last)")
    assert (lazy["template"], lazy["message"]) == ("%s", "made late")
    assert times["message"] == "formatted 1 times"
    assert (warning["logger"], warning["level"]) == ("py.warnings", "WARNING")
    assert "UserWarning: careful" in warning["message"]
    text = lab.tlogs("cat", "--grep", "second", "--dir", str(collector.directory))
    assert [line.partition("] ")[2] for line in text.splitlines()] == ["first", "second"]
    assert all(line.startswith("[rank0]:I") for line in text.splitlines())
    assert multiline["message"] == "first\nsecond"


@pytest.mark.torch
def test_a_collective_that_fails_arrives_with_what_c10d_knows_of_it(lab: Lab) -> None:
    """torch logs it to a logger of its own that shows nothing anywhere."""
    collector = lab.collector("--quiet")
    script = """\
import torch.distributed as dist
dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
try:
    dist.all_reduce("no tensor")
except TypeError:
    pass
"""
    worker = lab.worker(script, collector=collector)
    worker.ends()
    collector.stop()
    [failed] = lab.cat("--logger", "c10d-NullHandler-default")
    assert (failed["extra"]["func_name"], failed["extra"]["backend"]) == ("all_reduce", "gloo")
    assert "torch.Tensor" in failed["extra"]["error"]
