"""One stream of this process: its outbox, its link and its forwarder, made together and ended together."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tlogs.access.discovery import Address
from tlogs.outbox import places
from tlogs.outbox.file import outbox_capacity
from tlogs.outbox.outbox import Outbox
from tlogs.outbox.reader import open_outbox
from tlogs.worker.forwarder import Forwarder, Hooks
from tlogs.worker.link import Link
from tlogs_shared.host import outbox_name
from tlogs_shared.origin import STREAM_ID_BYTES, Origin
from tlogs_shared.protocol.clock import Moment

__all__ = ["Channel"]

log = logging.getLogger("tlogs")


class Channel:
    """A stream on its way to a collector."""

    def __init__(self, origin: Origin, address: Address, environ: Mapping[str, str], hooks: Hooks) -> None:
        """Make the outbox and start to forward what comes into it.

        Raises:
            ConfigError, StoreError: the outbox cannot be made.
            CollectorUnavailable: there are hardly any descriptors left for a socket.
        """
        stream = os.urandom(STREAM_ID_BYTES)
        is_helper = origin.helper is not None
        self.origin = origin
        self._address = address
        self._run: str | None = None
        self.outbox = places.make(
            environ,
            outbox_name(origin.host, origin.pid, stream),
            complain=lambda text: log.warning("tlogs: %s", text),
            stream=stream,
            meta=self._meta(),
            capacity=outbox_capacity(environ, fork=is_helper),
            helper=is_helper,
        )
        try:
            self.origin = replace(origin, outbox=self.outbox.path)
            self.outbox.set_meta(self._meta())
            self._reader = open_outbox(self.outbox.path, settle_s=0)  # writer and reader have one interpreter lock
            self._reader.take()
        except BaseException:
            self.outbox.close(delete=True)
            raise
        try:
            self.link = Link(stream, self.origin, self._reader, secret=address.secret, nonce=os.urandom)
            self.forwarder = Forwarder(self.link, self._reader, address.endpoint, address.secret, hooks)
        except BaseException:
            self._reader.close()
            self.outbox.close(delete=True)
            raise
        self.forwarder.start()

    def _meta(self) -> dict[str, Any]:
        """What whoever recovers this outbox must know; not the secret, which has a place of its own."""
        return {"endpoint": str(self._address.endpoint), "origin": self.origin.as_map()}

    @property
    def append(self) -> Callable[..., bool]:
        """What takes a record."""
        return self.outbox.append

    def keep_meta(self) -> None:
        """Once the collector has named the run, the outbox names it too: what is recovered goes there.

        Also the time to give back what an outbox took for a burst that is stored.
        """
        self.outbox.trim()
        if self.link.run != self._run:
            self._run = self.link.run
            self.origin = replace(self.origin, run=self._run)
            self.outbox.set_meta(self._meta())

    def relabel(self, origin: Origin) -> None:
        """A label was learnt late."""
        self.origin = replace(origin, outbox=self.origin.outbox, run=self.origin.run)
        self.outbox.set_meta(self._meta())
        labelled = self.origin

        def job(link: Link, now: Moment) -> Any:
            return link.relabel(labelled, now)

        self.forwarder.tell(job)

    def close(self, timeout: float, *, at_exit: bool = False) -> bool:
        """Send what is left and end; whether everything arrived. What did not arrive stays in the file.

        *at_exit* it stays open: exit handlers that were registered before us run after us, and may log. What they log
        is recovered from the file, as after any other end.
        """
        done = self.forwarder.close(timeout)
        if at_exit:
            _give_up_late(self.outbox)
        else:
            self.outbox.close(delete=done)
            if self.forwarder.has_ended:
                self._reader.close()
        return done

    def abandon(self) -> None:
        """In a forked child: this is the parent's."""
        self.outbox.abandon()
        self._reader.close()


def _give_up_late(outbox: Outbox) -> None:
    """Give *outbox* up when exit handlers have run too: the interpreter then collects garbage once more, and tells.

    Where it does not (``gc.disable()``), the file stays, and whoever recovers it finds nothing new in it.
    """

    def give_up(phase: str, _: object) -> None:
        if phase == "start" and sys.is_finalizing():
            gc.callbacks.remove(give_up)
            outbox.close(delete=outbox.acknowledged >= outbox.head)

    gc.callbacks.append(give_up)
