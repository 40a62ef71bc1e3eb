"""A worker that is killed with -9 right behind a logging call: its last words are the point.

RANK=4 TLOGS_COLLECTOR=127.0.0.1:5655 python deploy/examples/killed.py
"""

from __future__ import annotations

import logging
import os
import signal

import tlogs

log = logging.getLogger("doomed")


def main() -> None:
    """Log twenty records and die within the microsecond."""
    tlogs.init()
    log.setLevel(logging.DEBUG)
    for number in range(19):
        log.debug("working on item %d", number)
    log.error("item 19 is larger than memory; this is my last line")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
