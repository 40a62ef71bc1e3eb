"""On a host without a collector, the next worker there brings in what the last one left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.jobs.conftest import Lab

pytestmark = pytest.mark.multiprocess


def test_the_next_worker_brings_in_what_the_last_one_left(lab: Lab) -> None:
    """The collector sees neither the outboxes nor this host's list of collectors, as on another machine."""
    elsewhere: dict[str, Any] = {
        "TLOGS_OUTBOX_DIR": str(lab.root / "not here"),
        "XDG_STATE_HOME": str(lab.root / "other state"),
    }
    worker = {"TLOGS_INSECURE": "1"}
    first = lab.collector("--quiet", "--insecure", **elsewhere)
    first.kill()
    script = "import os\nfor n in range(100): log.info('step %d', n)\nos._exit(9)\n"
    lab.worker(script, collector=first, TLOGS_RUN="one", **worker).ends(9)
    second = lab.collector("--quiet", "--insecure", port=first.port, **elsewhere)
    next_one = lab.worker("log.info('here'); input()", rank=0, collector=second, TLOGS_RUN="two", **worker)
    lab.wait_for(lambda: lab.stored(second) >= 101, "the records of both")
    next_one.tell()
    next_one.ends()
    closings = sorted((found.name, found.records, found.lost) for found in second.stop())
    assert closings == [("one", 100, 0), ("two", 1, 0)]
    assert len(lab.cat("--run", "one")) == 100
    assert all(record["recovered"] for record in lab.cat("--run", "one"))
