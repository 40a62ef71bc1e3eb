"""Where the run that a command means can be read: a directory here, or a collector elsewhere.

The directory comes first wherever it can be reached, also while a collector writes it: reading costs the collector
nothing then. Only what is new is asked of the collector, as it alone knows what is still to come.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlogs.access.discovery import Address, find_address, find_live
from tlogs.reading.archive import RunArchive
from tlogs.reading.reader import choose_run, directory_of_runs, listed
from tlogs.reading.source import RemoteSource, Source, Watch, polled, told
from tlogs_shared.errors import CollectorUnavailable, ConfigError, ProtocolError
from tlogs_shared.protocol.notice import FILE_NAME

if TYPE_CHECKING:
    from tlogs.access.connection import Operator

__all__ = ["EVERY_RUN", "Place"]

EVERY_RUN: Final = "*"
"""As RUN: every run of the collector, those that are still to begin too."""

POLLED_HOLD_S: Final = 0.5
"""Where no collector says what is still to come, a record waits this long for older ones of other ranks."""

TOLD_HOLD_S: Final = 2.0
"""A rank that has stopped keeps the others' records back no longer than this."""


class Place:
    """What the options --dir, --collector, --secret-file and the environment say; a context manager that hangs up."""

    def __init__(
        self,
        directory: Path | None,
        collector: str | None,
        secret_file: Path | None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._directory = directory or (Path(environ["TLOGS_DIR"]) if environ.get("TLOGS_DIR") else None)
        self._collector = collector
        self._secret_file = None if secret_file is None else str(secret_file)
        self._environ = environ
        self._stack = ExitStack()
        self._operators: dict[str, Operator] = {}

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def find(self, run: str | None, *, wait: bool = False) -> Source:
        """The run that *run* means; None is the newest live one, else the newest. *wait*: also for the first to begin.

        Raises:
            ConfigError: there is no such run.
            CollectorUnavailable: the collector that was named does not answer.
        """
        if self._collector is not None:
            address = find_address(self._collector, self._environ, secret_file=self._secret_file)
            assert address is not None
            return self._at(address, run, wait=wait)
        here = self._directory or directory_of_runs(self._environ)
        if self._directory is not None or (run is not None and (os.sep in run or _is_there(run, here))):
            return choose_run(run or "latest", here)
        stored = listed(here)
        if run is None and stored and stored[0].is_live():
            return stored[0]
        # Nothing under way in this directory; perhaps a collector is at work in another one, or elsewhere.
        try:
            found = self._at(self._address(), run, wait=wait)
            return stored[0] if stored and run is None and not found.is_live() else found
        except (CollectorUnavailable, ProtocolError, ConfigError) as error:
            if stored or not isinstance(error, CollectorUnavailable):
                return choose_run(run or "latest", here)
            raise ConfigError(f"no runs in {here}, and {error}; --dir says where runs are") from None

    def watch(self, source: Source) -> tuple[Watch, float]:
        """How to wait for more of *source*, and how long a record may be held back meanwhile."""
        if isinstance(source, RemoteSource):
            return told(source.informant, source.name), TOLD_HOLD_S
        if isinstance(source, RunArchive) and source.is_live():
            operator = self._writer_of(source)
            if operator is not None:
                return told(operator, source.name), TOLD_HOLD_S
        return polled(source), POLLED_HOLD_S

    def every_run(self) -> tuple[Watch, Callable[[str], Source]]:
        """The news of all runs of the collector, and how to open one of them.

        Raises:
            CollectorUnavailable: there is no collector, or it does not answer.
        """
        address = find_address(self._collector, self._environ, secret_file=self._secret_file) or self._address()
        operator = self._operator(address)

        def open_run(name: str) -> Source:
            return RemoteSource(operator, name) if address.directory is None else choose_run(name, address.directory)

        return told(operator, EVERY_RUN), open_run

    def _address(self) -> Address:
        named = find_address(None, self._environ, secret_file=self._secret_file)
        return named or find_live(self._environ, secret_file=self._secret_file)

    def _at(self, address: Address, run: str | None, *, wait: bool) -> Source:
        said = False
        while True:
            try:
                if address.directory is not None:
                    return choose_run(run or "latest", address.directory)
                return self._remote(address, run)
            except ConfigError:
                if not wait or run is not None or (address.directory is not None and listed(address.directory)):
                    raise
            if not said:
                print(f"tlogs: waiting for a run at {address.endpoint}", file=sys.stderr)
                said = True
            time.sleep(0.2)

    def _remote(self, address: Address, run: str | None) -> Source:
        operator = self._operator(address)
        rows = sorted(operator.ask("runs"), key=lambda row: (not row["live"], -row["created_ns"]))
        names = [str(row["name"]) for row in rows]
        if run is None or run == "latest":
            found = names[:1]
        else:
            found = [name for name in names if name == run] or [name for name in names if name.startswith(run)]
        if len(found) != 1:
            raise ConfigError(f"no run {run or 'yet'!r} at {address.endpoint}: there are {', '.join(names) or 'none'}")
        return RemoteSource(operator, found[0])

    def _writer_of(self, run: RunArchive) -> Operator | None:
        """The collector that writes *run*, where it can be asked."""
        notice = run.path.parent / FILE_NAME
        try:
            address = find_address(str(notice), self._environ, secret_file=self._secret_file)
            if address is None:
                return None
            operator = self._operator(address)
            # A directory may be shared by several collectors; this one may know nothing of the run.
            known = any(row["name"] == run.name for row in operator.ask("runs"))
        except (CollectorUnavailable, ProtocolError, ConfigError):
            return None
        return operator if known else None

    def _operator(self, address: Address) -> Operator:
        from tlogs.access.connection import Operator  # opens sockets: only for those who need one

        found = self._operators.get(str(address.endpoint))
        if found is None:
            found = self._operators[str(address.endpoint)] = self._stack.enter_context(Operator(address))
        return found


def _is_there(run: str, directory: Path) -> bool:
    try:
        choose_run(run, directory)
    except ConfigError:
        return False
    return True
