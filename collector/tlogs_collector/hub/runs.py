"""The runs of this collector, which of them a stream belongs to, and which one an operator means. Pure.

A stream joins the run that it was in before, else the one that is named (``--run``, TLOGS_RUN), else the newest run
with its key, unless that run is over or has its rank already; else a new run begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tlogs_collector.hub.peer import Peer
from tlogs_collector.hub.run import Run
from tlogs_shared.origin import Origin
from tlogs_shared.protocol.clock import Moment
from tlogs_shared.protocol.messages import Hello

__all__ = ["Known", "Runs"]

LATEST: Final = "latest"
"""The newest run, by the name that readers have for it."""


@dataclass(frozen=True, slots=True)
class Known:
    """A run in the directory that nobody owns and that was not closed: it is continued when its ranks come back."""

    name: str
    key: str
    created_ns: int


@dataclass(slots=True)
class Runs:
    """Every run that was opened here, and those that a dead daemon left open.

    `only` is the run that everything goes into (``--run``); `new_name` gives a name for a run; `is_alive` tells
    whether a process on this host lives (None where that cannot be known).
    """

    new_name: Callable[[], str]
    is_alive: Callable[[Origin], bool | None]
    only: str | None = None
    known: list[Known] = field(default_factory=list)
    by_name: dict[str, Run] = field(default_factory=dict)

    def find(self, stream: bytes) -> Peer | None:
        """The peer of a stream that was here before."""
        return next((run.peers[stream] for run in self.by_name.values() if stream in run.peers), None)

    def named(self, name: str | None) -> Run | str:
        """The run that an operator names or gives a prefix of (None: the newest, a live one first), else an error."""
        runs = self.by_name.values()
        if name is not None and name != LATEST:
            found = [run for run in runs if run.name == name] or [run for run in runs if run.name.startswith(name)]
            if len(found) == 1:
                return found[0]
            if found:
                return f"several runs begin with {name!r}: {', '.join(run.name for run in found)}"
            there = f"there {'are' if len(runs) > 1 else 'is'}: {', '.join(self.by_name)}" if runs else "no run is live"
            return f"no run {name!r} here; {there}"
        if not runs:
            return "no run has begun here yet"
        live = [run for run in runs if run.is_live]
        return max(live or runs, key=lambda run: run.created_ns)

    def changeable(self, name: str | None) -> Run | str:
        """As `named`, for what changes the run: where several are live, it has to be named."""
        live = [run.name for run in self.by_name.values() if run.is_live]
        if name is None and len(live) > 1:
            return f"several runs are live: {', '.join(live)}; choose one with --run"
        return self.named(name)

    def choose(self, hello: Hello, now: Moment) -> Run:
        """The run that a stream belongs to; it may have to be opened yet."""
        if (peer := self.find(hello.stream)) is not None:
            return self.by_name[peer.run]
        name = self.only or hello.origin.run
        if name is None:
            if (run := self._with_key(hello, now)) is not None:
                return run
            name = self._left_open(hello.origin.key) or self.new_name()
        if name not in self.by_name:
            created = next((known.created_ns for known in self.known if known.name == name), now.ns)
            self.known = [known for known in self.known if known.name != name]
            self.by_name[name] = Run(name, hello.origin.key, created)
        return self.by_name[name]

    def _with_key(self, hello: Hello, now: Moment) -> Run | None:
        """The newest run with the hello's key, if the stream can be of that job."""
        same = [run for run in self.by_name.values() if run.key == hello.origin.key]
        if not same:
            return None
        newest = same[-1]  # that began here last, whatever the wall clock says
        if hello.recovering:
            return newest
        if newest.is_over:
            return newest if newest.expects(hello.origin, now.s) else None
        rival = newest.rival(hello.stream, hello.origin)
        return newest if rival is None or self.has_made_way(rival, hello.origin) else None

    def _left_open(self, key: str) -> str | None:
        """A run with this key that a dead daemon left, unless one with the key has begun here already."""
        if any(run.key == key for run in self.by_name.values()):
            return None
        left = [known for known in self.known if known.key == key]
        return max(left, key=lambda known: known.created_ns).name if left else None

    def has_made_way(self, rival: Peer, origin: Origin) -> bool:
        """Whether a stream whose end was not noticed yet must have ended, now that *origin* has its rank."""
        if self.is_alive(rival.info.origin) is False:
            return True
        old, new = rival.info.origin.restart_count, origin.restart_count
        # torchrun starts a worker again only once the old one has ended.
        return old is not None and new is not None and new > old
