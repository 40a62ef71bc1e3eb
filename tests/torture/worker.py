"""One worker of the torture: it logs at a given rate and counts in its ledger which calls have returned.

A word on its standard input says how it is to end; the end of that file too, so that none is left over.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Final

import tlogs
from calls import LOGGER, log
from ledger import Ledger

BURST_S: Final = 0.02
"""What was missed while the process was stopped is not made up for beyond this."""

PAUSE_S: Final = 0.002


def speak(logger: logging.Logger, ledger: Ledger, worker: int, thread: int, rate: float, stop: threading.Event) -> None:
    """Make calls, so many a second, until told to stop."""
    words, slot = ledger.words, ledger.slot(thread)
    number, burst = 0, max(int(rate * BURST_S), 1)
    due, last = 0.0, time.monotonic()
    while not stop.is_set():
        now = time.monotonic()
        due = min(due + (now - last) * rate, burst)
        last = now
        for _ in range(int(due)):
            log(logger, worker, thread, number)
            number += 1
            words[slot] = number
        due -= int(due)
        stop.wait(PAUSE_S)


def main() -> None:
    """Log until told otherwise."""
    path, worker, threads, rate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    ledger = Ledger(path)
    tlogs.init()
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    stop = threading.Event()
    speakers = [
        threading.Thread(target=speak, args=(logger, ledger, worker, thread, rate / threads, stop))
        for thread in range(threads)
    ]
    ledger.ready()
    for speaker in speakers:
        speaker.start()
    match sys.stdin.readline().strip():
        case "_exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "raise":
            stop.set()
            raise RuntimeError("told to")
        case _:
            stop.set()
    for speaker in speakers:
        speaker.join()


if __name__ == "__main__":
    main()
