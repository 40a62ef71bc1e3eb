"""The changes that leases make to the loggers of this process, and the values to restore.

A `Layer` applies targets to loggers as a difference: a logger that need not change is not touched, and the changes
are ordered so that a thread that logs meanwhile loses no record. For each logger it keeps the values found there, and
restores them when the target goes. A value that somebody else set in the meantime is respected: it becomes the one
to restore, or is left alone if the target has gone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from tlogs.levels.registry import lineage
from tlogs.levels.state import Target, ordered

__all__ = ["Layer", "current", "put"]


def current(name: str) -> Target:
    """The present level and `propagate` of a logger."""
    logger = logging.getLogger(name)
    return Target(logger.level, logger.propagate)


def put(wanted: Mapping[str, Target]) -> int:
    """Apply *wanted* to the loggers; return how many had to be changed.

    `propagate` is set before a level that lets more records in, and cleared after one that lets fewer in.
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
    """The targets applied over this process's loggers. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._laid: dict[str, Target] = {}
        self._under: dict[str, Target] = {}
        self._enabled: set[str] = set()

    def lay(self, wanted: Mapping[str, Target], base: Mapping[str, Target] = MappingProxyType({})) -> int:
        """Make *wanted* the targets, and *base* the values below them, in one difference.

        Loggers that *base* does not name keep the values below them. Return how many loggers had to be changed.
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
        """Set or drop the target of one logger, to which somebody else has just applied *base*."""
        if target is not None:
            self._keep(name, target, base)
            put({name: target})
        elif self._laid.pop(name, None) is not None:
            del self._under[name]

    def rebase(self, base: Mapping[str, Target]) -> None:
        """Make *base*, which somebody else has just applied, the values to restore.

        The target of a component's logger leaves `propagate` alone, and so does restoring it.
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
        """Note the values below *target*: *base*, else those noted before, else the present ones."""
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
