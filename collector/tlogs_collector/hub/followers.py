"""Operators that follow runs, and what each was last told. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tlogs_collector.hub.actions import Action, Tell
from tlogs_collector.hub.run import FOR_EVER_NS, Run
from tlogs_collector.hub.runs import Runs
from tlogs_shared.protocol.clock import Moment

__all__ = ["Followers"]

EVERY_RUN: Final = "*"

STEP_NS: Final = 250_000_000
"""So often followers are told that nothing has come."""


class _State(NamedTuple):
    """A run's state as sent to followers, again only when it changes."""

    taken: int
    horizon_ns: int
    live: bool


@dataclass(slots=True)
class Followers:
    """The connections that follow, each with the run that it named."""

    runs: Runs
    by_connection: dict[bytes, str | None] = field(default_factory=dict)
    _told: dict[tuple[bytes, str], _State] = field(default_factory=dict)

    def add(self, connection: bytes, run: str | None) -> None:
        """Tell this connection about *run* from now on (None: the newest live one, `*`: all)."""
        self.by_connection[connection] = run

    def forget(self, connection: bytes) -> None:
        """This connection is gone."""
        if connection in self.by_connection:
            del self.by_connection[connection]
            self._told = {key: told for key, told in self._told.items() if key[0] != connection}

    def is_followed(self, run: str) -> bool:
        """Whether somebody waits for records of *run*."""
        return any(found.name == run for name in self.by_connection.values() for found in self._meant(name))

    def tick(self, now: Moment) -> list[Action]:
        """Tell each follower what has changed since it was last told."""
        states: dict[str, _State] = {}
        actions: list[Action] = []
        for connection, name in self.by_connection.items():
            for run in self._meant(name):
                if not run.is_open:
                    continue
                state = states[run.name] = states.get(run.name) or _state(run, now)
                if self._told.get((connection, run.name)) != state:
                    self._told[connection, run.name] = state
                    actions.append(Tell(connection, run.name, state.horizon_ns, state.live))
        return actions

    def _meant(self, name: str | None) -> Iterable[Run]:
        if name == EVERY_RUN:
            return self.runs.by_name.values()
        run = self.runs.named(name)
        return [] if isinstance(run, str) else [run]


def _state(run: Run, now: Moment) -> _State:
    late = [peer for peer in run.speaking.values() if peer.is_late(now.s, run.period_s)]
    horizon_ns = run.horizon_ns(late)
    if horizon_ns == FOR_EVER_NS and not run.is_concluded:
        # Nobody speaks, and somebody may again, whose records are not to be taken for late ones.
        horizon_ns = now.ns - now.ns % STEP_NS
    return _State(run.taken, horizon_ns, not run.is_concluded)
