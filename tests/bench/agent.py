"""What the agent's part costs: run me with `python tests/bench/agent.py [--records N] [--json]`.

A process beside takes the records of a burst out of an outbox, looking every 20 ms as the agent does, in three ways:
*taken* (read, checked, acknowledged), *batched* (made into batches, with their checksum) and *compressed*. The figures
are microseconds of that process's CPU a record.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from call import Emptier
from tlogs.outbox.outbox import Outbox

WAYS = {"taken": "plain", "batched": "checked", "compressed": "compressed"}
ARGUMENTS = (1, 0.123456, "3e-4", 8192, 1.5, "cuda:0")
TEMPLATE = "step %d: loss %.6f, learning rate %s, %d tokens in %.3f s on %s"


def measure(how: str, records: int) -> float:
    """Microseconds of CPU a record."""
    with tempfile.TemporaryDirectory() as directory:
        outbox = Outbox(Path(directory, "outbox"), stream=bytes(16), meta={}, capacity=64 << 20)
        with Emptier(outbox.path, how) as emptier:
            taken, before_s = emptier.so_far()
            for _ in range(records):
                outbox.append(20, "bench.agent", TEMPLATE, ARGUMENTS, None, "agent.py", 1, "f", "MainThread", None)
            while outbox.acknowledged < outbox.head:
                time.sleep(0.005)
            after, after_s = emptier.so_far()
        assert not outbox.dropped, "the bench is faster than the outbox is emptied"
        outbox.close(delete=True)
    return (after_s - before_s) / (after - taken) * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {name: round(measure(how, options.records), 3) for name, how in WAYS.items()}
    if options.json:
        print(json.dumps(found))
        return
    print("µs CPU a record, in a burst")
    for name, value in found.items():
        print(f"{name:12} {value:6.3f}")


if __name__ == "__main__":
    main()
