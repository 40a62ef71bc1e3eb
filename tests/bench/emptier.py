"""What stands in for the agent in the benches: a process that takes the records out of an outbox every 20 ms.

Run with the outbox's path and `plain`, `checked` (the batches are made) or `compressed` (and compressed). For each line
on standard input it says on standard output how many records it has taken so far, and how much CPU that was, in
seconds; it ends with its input.
"""

from __future__ import annotations

import os
import select
import sys
import time

import zstandard

from tlogs.outbox.reader import open_outbox
from tlogs_shared.storage.batch import Header, seal

LOOK_S = 0.02


def main() -> None:
    """Empty the outbox until the input ends."""
    path, how = sys.argv[1:]
    compressor = zstandard.ZstdCompressor(level=1) if how == "compressed" else None
    reader = open_outbox(path)
    assert reader.take()
    taken, began = 0, time.process_time()
    print(taken, 0.0, flush=True)
    while True:
        while (extent := reader.cut(True)) is not None:
            taken += extent.count
            if how != "plain":
                seal(Header(reader.stream, first=extent.first, count=extent.count), extent.view, compressor)
            reader.acknowledge(extent.end)
        if select.select([sys.stdin], [], [], LOOK_S)[0]:
            if not os.read(0, 100):
                return
            print(taken, time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
