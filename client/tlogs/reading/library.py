"""Where runs are: in a directory here, or with a collector elsewhere; and which of them is meant.

The directory comes first wherever it can be reached, also while a collector writes it: reading costs the collector
nothing then. Only what is new is asked of the collector, as it alone knows what is still to come.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from tlogs.access.discovery import Address, find_address, find_live
from tlogs.reading.collector_run import CollectorRun, Connection
from tlogs.reading.local_run import LocalRun
from tlogs.reading.run import Run
from tlogs.reading.runs import summarize
from tlogs.reading.subscription import EVERY_RUN, CollectorSubscription, PollingSubscription, Subscription
from tlogs_shared.errors import CollectorUnavailable, ConfigError, ProtocolError, StoreError
from tlogs_shared.protocol.notice import FILE_NAME
from tlogs_shared.storage.layout import holds_run

if TYPE_CHECKING:
    from tlogs.access.connection import Operator

__all__ = ["CollectorLibrary", "Libraries", "Library", "LocalLibrary", "directory_of_runs"]

DEFAULT_DIRECTORY: Final = "tlogs-runs"

R = TypeVar("R", bound=Run)


class Library(Protocol):
    """Runs that can be read, all in one place."""

    @property
    def where(self) -> str:
        """The place, as messages name it: `in DIRECTORY`, `at ENDPOINT`."""

    def runs(self) -> Sequence[Run]:
        """All runs, live ones first, then the newest first."""

    def open(self, text: str, /) -> Run:
        """The run that *text* means: a name, the beginning of one, `latest`, or `latest~1`.

        Raises:
            ConfigError: there is no such run, or there are several.
        """

    def subscribe(self, run: Run | None, /) -> Subscription:
        """The news of a run; without one, of every run.

        Raises:
            CollectorUnavailable: only a collector has the news, and it does not answer.
        """


class LocalLibrary:
    """The runs in a directory. *connect* connects to the collector that writes a directory."""

    def __init__(self, directory: Path, connect: Callable[[Path], Connection] | None = None) -> None:
        self.directory = directory
        self._connect = connect

    @property
    def where(self) -> str:
        """The place, as messages name it."""
        return f"in {self.directory}"

    def runs(self) -> list[LocalRun]:
        """All runs, live ones first, then the newest first; what is not a run is skipped.

        Raises:
            StoreError: the directory cannot be read.
        """
        if not self.directory.is_dir():
            return []
        try:
            paths = sorted(Path(entry.path) for entry in os.scandir(self.directory) if entry.is_dir())
        except OSError as error:
            raise StoreError(error.errno, error.strerror, str(self.directory)) from error
        return _in_order([LocalRun(path) for path in reversed(paths) if _is_run(path)])

    def open(self, text: str, /) -> LocalRun:
        """The run that *text* means, which may also be a path.

        Raises:
            ConfigError: there is no such run, or there are several.
            StoreError: the directory cannot be read.
        """
        if os.sep in text or text in (".", ".."):
            return _at_path(text)
        found = self.runs()
        if not found:
            raise ConfigError(f"no runs {self.where}: give their directory with --dir or TLOGS_DIR")
        return _choose(text, found, self.where)

    def subscribe(self, run: Run | None, /) -> Subscription:
        """The news of a run, from the collector that writes it where that can be asked; without one, of every run."""
        if run is None:
            if self._connect is None:
                raise CollectorUnavailable(f"no collector to tell which runs begin {self.where}")
            return CollectorSubscription(self._connect(self.directory), EVERY_RUN)
        writer = self._writer_of(run)
        return PollingSubscription(run) if writer is None else CollectorSubscription(writer, run.name)

    def _writer_of(self, run: Run) -> Connection | None:
        if self._connect is None or run.path is None or not run.is_live():
            return None
        try:
            connection = self._connect(run.path.parent)
            # A directory may be shared by several collectors; this one may know nothing of the run.
            known = any(row["name"] == run.name for row in connection.runs())
        except (CollectorUnavailable, ProtocolError, ConfigError):
            return None
        return connection if known else None


class CollectorLibrary:
    """The runs that a collector has, read over a connection to it. *endpoint* is for messages."""

    def __init__(self, connection: Connection, endpoint: object) -> None:
        self._connection = connection
        self.where = f"at {endpoint}"

    def runs(self) -> list[CollectorRun]:
        """All runs, live ones first, then the newest first."""
        return _in_order([CollectorRun(self._connection, row) for row in self._connection.runs()])

    def open(self, text: str, /) -> CollectorRun:
        """The run that *text* means.

        Raises:
            ConfigError: there is no such run, or there are several.
            CollectorUnavailable: the collector does not answer.
        """
        found = self.runs()
        if not found:
            raise ConfigError(f"no run has begun yet {self.where}")
        return _choose(text, found, self.where)

    def subscribe(self, run: Run | None, /) -> Subscription:
        """The news of a run; without one, of every run."""
        if run is not None and not run.is_live():
            return PollingSubscription(run)
        return CollectorSubscription(self._connection, EVERY_RUN if run is None else run.name)


class Libraries:
    """The libraries that --dir, --collector, --secret-file and the environment name; a context manager."""

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

    def __enter__(self) -> Libraries:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def find(self, run: str | None) -> tuple[Library, Run]:
        """The run that *run* means, and its library; None is the newest live run, else the newest.

        Raises:
            ConfigError: no such run.
            CollectorUnavailable: the collector that was named does not answer.
        """
        if self._collector is not None:
            return _opened(self.of_collector(), run)
        here = LocalLibrary(self._directory or directory_of_runs(self._environ), self._writer)
        if self._directory is not None or (run is not None and (os.sep in run or _has(here, run))):
            return here, here.open(run or "latest")
        stored = here.runs()
        if run is None and stored and stored[0].is_live():
            return here, stored[0]
        # Nothing is live in this directory; perhaps a collector is at work in another one, or elsewhere.
        try:
            library, found = _opened(self.of_collector(), run)
        except (CollectorUnavailable, ProtocolError, ConfigError) as error:
            if stored:
                return here, here.open(run or "latest")
            if isinstance(error, CollectorUnavailable):
                raise ConfigError(f"no runs {here.where}, and {error}; --dir says where runs are") from None
            raise
        return (here, stored[0]) if stored and run is None and not found.is_live() else (library, found)

    def find_next(self, pause: Callable[[str, Run | None], None]) -> tuple[Library, Run]:
        """The newest run with a live rank, else the next one that begins.

        Until there is one *pause* is called again and again, with the place that is looked at and the last run there.

        Raises:
            ConfigError: there are neither runs nor a collector.
            CollectorUnavailable: the collector that was named does not answer.
        """
        libraries = self._places()
        known = {(library.where, run.name) for library in libraries for run in library.runs()}
        while True:
            for library in libraries:
                for run in library.runs():
                    if (run.is_live() and summarize(run).live) or (library.where, run.name) not in known:
                        return library, run
            last = next((run for library in libraries for run in library.runs()), None)
            pause(libraries[-1].where, last)
            try:
                libraries = self._places()
            except (CollectorUnavailable, ProtocolError, ConfigError):
                pass  # it was there, and may be started again

    def _places(self) -> list[Library]:
        """Where the next run may begin: in the directory that is named or the usual one, and with a collector."""
        if self._collector is not None:
            return [self.of_collector()]
        here = LocalLibrary(self._directory or directory_of_runs(self._environ), self._writer)
        if self._directory is not None:
            return [here]
        try:
            return [here, self.of_collector()]
        except (CollectorUnavailable, ProtocolError, ConfigError) as error:
            if here.runs():
                return [here]
            if isinstance(error, CollectorUnavailable):
                raise ConfigError(f"no runs {here.where}, and {error}; --dir says where runs are") from None
            raise

    def meant(self) -> Library:
        """The library that the options name; without one, a collector's if there are no runs here.

        Raises:
            CollectorUnavailable: the collector that was named does not answer.
        """
        if self._collector is not None:
            return self.of_collector()
        here = LocalLibrary(self._directory or directory_of_runs(self._environ), self._writer)
        if self._directory is not None or here.runs():
            return here
        try:
            return self.of_collector()
        except (CollectorUnavailable, ProtocolError, ConfigError):
            return here

    def of_collector(self) -> Library:
        """The runs of the named collector, else of the only live one.

        Raises:
            CollectorUnavailable: no collector runs here, or it does not answer.
        """
        address = find_address(self._collector, self._environ, secret_file=self._secret_file)
        address = address or find_live(self._environ, secret_file=self._secret_file)
        if address.directory is not None:
            return LocalLibrary(address.directory, lambda directory: self._operator(address))
        return CollectorLibrary(self._operator(address), address.endpoint)

    def _writer(self, directory: Path) -> Operator:
        """A connection to the collector that works on *directory*."""
        address = find_address(str(directory / FILE_NAME), self._environ, secret_file=self._secret_file)
        assert address is not None, "a path was given"
        return self._operator(address)

    def _operator(self, address: Address) -> Operator:
        from tlogs.access.connection import Operator  # opens sockets: only for those who need one

        found = self._operators.get(str(address.endpoint))
        if found is None:
            found = self._operators[str(address.endpoint)] = self._stack.enter_context(Operator(address))
        return found


def directory_of_runs(environ: Mapping[str, str] = os.environ) -> Path:
    """Where runs are, unless told: TLOGS_DIR, else `./tlogs-runs`."""
    return Path(environ.get("TLOGS_DIR") or DEFAULT_DIRECTORY)


def _in_order(runs: list[R]) -> list[R]:
    return sorted(runs, key=lambda run: (not run.is_live(), -run.created_ns))


_LATEST: Final = re.compile(r"latest(?:~(\d{1,6}))?", re.ASCII)


def _choose(text: str, runs: Sequence[R], where: str) -> R:
    """The one of *runs*, which are in order, that *text* means: `latest` is the first, `latest~1` the second."""
    if match := _LATEST.fullmatch(text):
        back = int(match[1] or 0)
        if back < len(runs):
            return runs[back]
        raise ConfigError(f"no run {text} {where}; {_listed(runs)}")
    found = [run for run in runs if run.is_called(text)] or [run for run in runs if run.name.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{len(found)} runs {where} begin with {text!r}: {_names(found)}")
    raise ConfigError(f"no run {text!r} {where}; {_listed(runs)}")


def _listed(runs: Sequence[Run]) -> str:
    return f"there {'are' if len(runs) > 1 else 'is'}: {_names(runs)}"


def _names(runs: Sequence[Run]) -> str:
    names = ", ".join(run.name for run in runs[:5])
    return f"{names} and {len(runs) - 5} more" if len(runs) > 5 else names


def _at_path(text: str) -> LocalRun:
    path = Path(text)
    if not path.is_dir():
        raise ConfigError(f"no run at {text}: expected the directory of a run")
    found = [LocalRun(path)] if _is_run(path) else LocalLibrary(path).runs()
    if not found:
        raise ConfigError(f"no run at {text}: neither a run nor a directory with one")
    if len(found) > 1:
        raise ConfigError(f"{text} holds {len(found)} runs: {_names(found)}; give the path of one")
    return found[0]


def _is_run(path: Path) -> bool:
    return holds_run(os.listdir(path))


def _has(library: Library, run: str) -> bool:
    try:
        library.open(run)
    except ConfigError:
        return False
    return True


def _opened(library: Library, run: str | None) -> tuple[Library, Run]:
    return library, library.open(run or "latest")
