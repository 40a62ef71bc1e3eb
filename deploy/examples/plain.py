"""A job without torch: one of several worker processes that pretend to train, for a machine that has no torch.

    RANK=0 WORLD_SIZE=4 TLOGS_COLLECTOR=127.0.0.1:5655 python deploy/examples/plain.py

The loader's own logger is silent until somebody asks for it: `tlogs set-logs train.loader=DEBUG`.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import time

import tlogs

log = logging.getLogger("train")
loader = logging.getLogger("train.loader")


def main() -> None:
    """Pretend to train for a while."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="how long to train")
    seconds = parser.parse_args().seconds
    tlogs.init()
    logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s: %(message)s")
    rank = int(os.environ.get("RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    chance = random.Random(rank)
    log.info("rank %d of %d is ready", rank, world_size)
    began, step = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        wait_ms = chance.expovariate(1 / 8)
        if step % 10 == 0:
            loader.debug("batch %d waited %.1f ms for its data", step, wait_ms)
        if step % 20 == 0:
            log.info("step %d: loss %.4f", step, 2.5 / (1 + step / 50) + chance.gauss(0, 0.02))
        if wait_ms > 60:
            log.warning("step %d: the loader took %.0f ms", step, wait_ms)
        step += 1
        time.sleep(0.05)
    log.info("rank %d has finished after %d steps", rank, step)


if __name__ == "__main__":
    main()
