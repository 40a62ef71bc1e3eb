"""The second thread: it waits for the disk, so that the loop never does."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Final

from tlogs_collector.store.store import Store
from tlogs_shared.errors import StoreError

__all__ = ["Syncer"]

RETAIN_EVERY_S: Final = 1.0
"""The store's bounds are looked at so often, also under a load that never pauses."""

FAILED_PAUSE_S: Final = 0.5


class Syncer:
    """Syncs group after group: what is appended while one sync runs is covered by the next.

    `ready` is a file descriptor that becomes readable when there is something to `take`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.ready, self._signal = os.pipe()
        os.set_blocking(self.ready, False)
        os.set_blocking(self._signal, False)
        self._covered = 0
        self._failures: deque[StoreError] = deque()
        self._fault: Exception | None = None
        self._work = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tlogs-sync", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to sync."""
        self._work.set()

    def take(self) -> tuple[int, list[StoreError]]:
        """How many frames are safe by now, and what failed since the last call.

        Raises:
            Exception: a fault of this program ended the thread; nothing would be acknowledged any more.
        """
        try:
            os.read(self.ready, 4096)
        except BlockingIOError:
            pass
        if self._fault is not None:
            raise self._fault
        failures = [self._failures.popleft() for _ in range(len(self._failures))]
        return self._covered, failures

    def stop(self) -> None:
        """End the thread; what was written before is synced by the store's close."""
        self._stop.set()
        self._work.set()
        self._thread.join()
        os.close(self.ready)
        os.close(self._signal)

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - the thread's outermost call: the daemon must end, and be seen to
            self._fault = error
            self._tell()

    def _serve(self) -> None:
        retained_s = time.monotonic()
        while not self._stop.is_set():
            found = self._work.wait(RETAIN_EVERY_S)
            if time.monotonic() - retained_s >= RETAIN_EVERY_S:
                self._retain()
                retained_s = time.monotonic()
            if not found:
                continue
            self._work.clear()
            if self._stop.is_set():
                return
            try:
                self._covered = self._store.sync()
            except StoreError as error:
                self._fail(error)
            else:
                self._tell()

    def _retain(self) -> None:
        """One step, so that acknowledgements wait for no more than that; the next one comes after another sync."""
        try:
            if self._store.retain():
                self._work.set()
        except StoreError as error:
            self._fail(error)

    def _fail(self, error: StoreError) -> None:
        self._failures.append(error)
        self._tell()
        # Nothing is gained by asking a failing disk a thousand times a second.
        self._stop.wait(FAILED_PAUSE_S)

    def _tell(self) -> None:
        try:
            os.write(self._signal, b".")
        except BlockingIOError:
            pass
