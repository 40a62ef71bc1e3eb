"""What leases changed on the loggers of this process, and what lies under it.

A `Layer` puts targets onto loggers as a difference: a logger that need not change is not touched, and the order of
the changes is one in which a thread that logs meanwhile loses nothing. For each logger it keeps what it found there,
and puts that back when the target goes. What somebody else set in between is theirs: it is kept under a target that
still holds, and left alone where the target goes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from tlogs.levels.registry import lineage
from tlogs.levels.state import Target, ordered

__all__ = ["Layer", "current", "put"]


def current(name: str) -> Target:
    """What a logger's level and `propagate` are now."""
    logger = logging.getLogger(name)
    return Target(logger.level, logger.propagate)


def put(wanted: Mapping[str, Target]) -> int:
    """Bring loggers to *wanted*; returns how many had to be touched.

    Records pass upwards before a level lets more of them in, and stop passing after it lets them no more.
    """
    changed: dict[str, Target] = {name: target for name, target in wanted.items() if not _holds(name, target)}
    for name, target in changed.items():
        if target.propagate:
            logging.getLogger(name).propagate = True
    levels = {name: target.level for name, target in changed.items() if logging.getLogger(name).level != target.level}
    for name, level in ordered(levels):
        logging.getLogger(name).setLevel(level)
    for name, target in changed.items():
        if target.propagate is False:
            logging.getLogger(name).propagate = False
    return len(changed)


def _holds(name: str, target: Target) -> bool:
    level, propagate = current(name)
    return level == target.level and target.propagate in (None, propagate)


class Layer:
    """The targets that lie over this process's loggers. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._laid: dict[str, Target] = {}
        self._under: dict[str, Target] = {}
        self._enabled: set[str] = set()

    def lay(self, wanted: Mapping[str, Target], base: Mapping[str, Target] = MappingProxyType({})) -> int:
        """Make *wanted* all that lies over the loggers, and *base* what lies under them, in one difference.

        Loggers that *base* does not name keep what lies under them. Returns how many loggers had to be touched.
        """
        changes = dict(base)
        for name in self._laid.keys() - wanted.keys():
            laid, under = self._laid.pop(name), self._under.pop(name)
            if name not in base and _holds(name, laid):
                changes[name] = under
        for name, target in wanted.items():
            self._keep(name, target, base.get(name))
            changes[name] = _over(target, changes.get(name))
        return put(changes)

    def lay_one(self, name: str, target: Target | None, base: Target) -> None:
        """Lay *target*, or nothing, over the one logger under which *base* has just been put by somebody else."""
        if target is not None:
            self._keep(name, target, base)
            put({name: target})
        elif self._laid.pop(name, None) is not None:
            del self._under[name]

    def rebase(self, base: Mapping[str, Target]) -> None:
        """Say that *base* lies under from now on: somebody else has just put it there.

        What lay over a component's logger leaves its `propagate` alone, and so does what comes back.
        """
        for name in self._laid.keys() & base.keys():
            self._under[name] = base[name] if self._laid[name].propagate is not None else Target(base[name].level)

    def enable(self, roots: set[str]) -> None:
        """Enable the disabled loggers at and below *roots*, and disable again those that were enabled for others."""
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if not isinstance(logger, logging.Logger):
                continue
            if roots.intersection(lineage(name)):
                if logger.disabled:
                    self._enabled.add(name)
                    logger.disabled = False
            elif name in self._enabled:
                self._enabled.discard(name)
                logger.disabled = True

    def _keep(self, name: str, target: Target, base: Target | None) -> None:
        """Note what lies under *target*: *base*, else what was found before, else what is there now."""
        if base is not None:
            self._under[name] = base
        elif name not in self._laid or not _holds(name, self._laid[name]):
            found = current(name)
            self._under[name] = found if target.propagate is not None else Target(found.level)
        self._laid[name] = target


def _over(target: Target, base: Target | None) -> Target:
    if target.propagate is None and base is not None:
        return Target(target.level, base.propagate)
    return target
