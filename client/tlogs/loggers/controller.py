"""This process's levels: the settings of TORCH_LOGS and set_logs(), and leases over them.

Theory of operation
-------------------
The settings that this process made itself are the *base* (`tlogs.loggers.base`); leases are never written into it.
Their effect is computed as a whole (`tlogs.levels.state`) and applied to the loggers as a difference, under one lock
(`tlogs.loggers.layer`). When the base changes, the leases are applied again.

An artifact that is off has a mark on its loggers, so that its records are not even built. The mark is part of the
layer, like the effect of leases, and is removed when torch or a lease turns the artifact on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any, Final

from tlogs.levels.registry import ALL, Artifact, Registry
from tlogs.levels.set_logs import arguments, check_keywords, from_call
from tlogs.levels.state import (
    OFF,
    LevelState,
    Settings,
    Target,
    artifact_target,
    base_targets,
    lease_targets,
    loggers_behind,
    settled,
)
from tlogs.loggers.base import Base
from tlogs.loggers.layer import Layer
from tlogs.loggers.module_lookup import find_module, locate
from tlogs.loggers.outcome import Outcome, judge
from tlogs.loggers.with_torch import INTERNAL
from tlogs_shared.level_names import level_name
from tlogs_shared.protocol.lease import Lease

__all__ = ["LEVELS", "Levels"]

_IGNORED: Final = "Using TORCH_LOGS environment variable for log settings, ignoring call to set_logs"
"""torch's own words, on torch's own logger: people and scripts look for them."""


class Levels:
    """The level controller of this process. Thread-safe."""

    def __init__(self) -> None:
        self.lock: Final = RLock()
        self._base = Base(self.lock, self._base_changed, self._lay_artifact)
        self._seen = LevelState()
        self._layer = Layer()
        self._leases: tuple[Lease, ...] = ()
        self._labels: dict[str, tuple[str | None, str | None]] = {}
        self._started = False
        self._torch_logs: str | None = None
        self._over = False

    def start(self, environ: Mapping[str, str]) -> None:
        """Apply TORCH_LOGS, and listen to torch; calling it again is harmless.

        Raises:
            DirectiveError: TORCH_LOGS cannot be understood, and no loaded torch has reported it already.
            ConfigError: TORCH_LOGS_FORMAT is not a format.
            ImportError: TORCH_LOGS names a module whose parent cannot be imported.
            OSError: the file of TORCH_LOGS_OUT cannot be opened.
        """
        if self._started:
            return
        self._base.start(environ)
        with self.lock:
            self._started = True
            self._torch_logs = environ.get("TORCH_LOGS")
            self._over = environ.get("TLOGS_LEASES") == "over"
            self._lay()

    def stop(self) -> None:
        """Restore every logger that was changed; settings that set_logs() made in torch stay."""
        with self.lock:
            if self._started:
                self._layer.enable(set())
                self._layer.lay({})
                self._base.stop()
                self._base = Base(self.lock, self._base_changed, self._lay_artifact)
                self._seen, self._leases = LevelState(), ()
                self._labels.clear()
                self._started, self._torch_logs, self._over = False, None, False

    def set_logs(self, **settings: Any) -> None:
        """Do what `torch._logging.set_logs` does, with or without torch; a call that fails changes nothing.

        Raises:
            DirectiveError: an unknown name, an artifact that is not a bool, or a level that logging does not know.
            TypeError: an unknown keyword, or a level of a type that logging does not take.
            ImportError: a module whose parent cannot be imported.
            OSError: the file of TORCH_LOGS_OUT cannot be opened.
        """
        check_keywords(settings)
        if "TORCH_LOGS" in os.environ:
            logging.getLogger(INTERNAL).warning(_IGNORED)
            return
        self.start(os.environ)
        items = arguments(**settings)
        state, wanted = from_call(items, self._base.registry(), find_module)  # may import: not under the lock
        with self.lock:
            self._lay(self._base.ask(items, state, wanted))

    # -- names

    def artifact_logger(self, module: str, artifact: str) -> logging.Logger:
        """The logger of *artifact* in *module*, configured by the present settings.

        Raises:
            DirectiveError: *artifact* is not registered.
        """
        with self.lock:
            return self._base.artifact_logger(module, artifact)

    def register_log(self, alias: str, loggers: tuple[str, ...]) -> None:
        """Make *alias* a component, or change its loggers."""
        with self.lock:
            self._base.register_log(alias, loggers)
            self._labels.clear()

    def register_artifact(self, artifact: Artifact) -> None:
        """Make *artifact* known, or change what is known of it."""
        with self.lock:
            self._base.register_artifact(artifact)
            self._labels.clear()

    # -- leases

    def overlay(self, leases: Sequence[Lease]) -> Outcome:
        """Lay *leases*, oldest first, over the base, in place of those before; return the judgement on the newest."""
        with self.lock:
            # Found out first: setting a level creates the logger of that name.
            unknown = {name for lease in leases for name in lease.settings if not self.known(name)}
            free = self._torch_logs is None or self._over
            allowed = [lease for lease in leases if free or lease.force]
            self._leases = tuple(_without(lease, unknown) for lease in allowed)
            self._lay()
            self._layer.enable(self._forced())
            if leases and max(leases, key=lambda lease: lease.revision) not in allowed:
                return Outcome("ignored", f"TORCH_LOGS={self._torch_logs}")
            return judge(allowed, self._base.registry(), unknown)

    def _settings(self) -> Settings:
        return [(lease.settings, lease.replace) for lease in self._leases]

    def _wanted(self, registry: Registry) -> dict[str, Target]:
        """The targets to apply over the base at present."""
        wanted = lease_targets(registry, self._base.state(), self._settings())
        for name, artifact in registry.artifact_loggers.items():
            if name in wanted and not self._may_be_marked(name, artifact, wanted[name]):
                del wanted[name]
        return wanted

    def _may_be_marked(self, name: str, artifact: str, target: Target) -> bool:
        """Return False for an artifact that is off but has a handler of the program's, which expects its records."""
        if target.level != OFF or not logging.getLogger(name).handlers:
            return True
        return any(artifact in lease.settings for lease in self._leases)

    def _lay(self, base: Mapping[str, Target] | None = None) -> int:
        registry = self._base.registry()
        changed = self._layer.lay(self._wanted(registry), base or {})
        self._seen = self._base.state()
        self._labels.clear()
        self._base.answer(settled(registry, self._seen, self._settings()).on if self._leases else None)
        self._base.hush(registry)
        return changed

    def _forced(self) -> set[str]:
        """The loggers that leases with `force` are about."""
        registry = self._base.registry()
        names = {name for lease in self._leases if lease.force for name in lease.settings}
        return {logger for name in names for logger in loggers_behind(name, registry)}

    def _lay_artifact(self, name: str) -> None:
        """Apply the leases to the one logger of an artifact that was just configured."""
        registry, state = self._base.registry(), self._base.state()
        artifact = registry.artifact_loggers[name]
        under = artifact_target(registry, state, artifact, mark_off=False)
        target = artifact_target(registry, settled(registry, state, self._settings()), artifact)
        laid = target if target != under and self._may_be_marked(name, artifact, target) else None
        self._layer.lay_one(name, laid, under)

    def _base_changed(self) -> None:
        """Take the levels that torch has just set as the base, and apply the leases again."""
        self._layer.rebase(base_targets(self._base.registry(), self._base.state()))
        self._lay()

    # -- queries

    def check(self) -> bool:
        """Apply the leases again if a hook is missing and a level was changed; return True if that was necessary.

        Called once a second: where all hooks are in place it costs next to nothing.
        """
        with self.lock:
            if not self._started:
                return False
            if self._base.find_torch():
                return True
            if self._base.seams != "polled":
                return False
            if self._base.state() != self._seen:
                self._layer.rebase(base_targets(self._base.registry(), self._base.state()))
            return self._lay() > 0

    @property
    def is_polled(self) -> bool:
        """Whether a seam is missing, so that levels have to be compared now and then."""
        return self._started and self._base.seams == "polled"

    def known(self, name: str) -> bool:
        """Return True if *name* is a component, an artifact, a logger or a module here; imports nothing."""
        registry = self._base.registry()
        return (
            name == ALL
            or name in registry.components
            or name in registry.artifacts
            or isinstance(logging.root.manager.loggerDict.get(name), logging.Logger)
            or locate(name)
        )

    def label(self, logger_name: str) -> tuple[str | None, str | None]:
        """The component and the artifact that a record of this logger belongs to, by this process's registry.

        `tlogs.levels.registry.component_of` gives the same from the recorded one; they differ where the program
        registered names of its own.
        """
        found = self._labels.get(logger_name)
        if found is None:
            found = self._labels[logger_name] = self._base.registry().label(logger_name)
        return found

    def report(self) -> dict[str, Any]:
        """Levels and artifacts for `tlogs levels`: primitives only."""
        with self.lock:
            registry = self._base.registry()
            state = settled(registry, self._base.state(), self._settings())
        components = {
            alias: {"configured": _configured(loggers, state), "effective": _effective(loggers)}
            for alias, loggers in registry.components.items()
        }
        return {"components": components, "artifacts": sorted(state.on), "seams": self._base.seams}


def _without(lease: Lease, names: set[str]) -> Lease:
    """*lease* without the settings for *names*."""
    return replace(lease, settings={name: value for name, value in lease.settings.items() if name not in names})


def _configured(loggers: Sequence[str], state: LevelState) -> str | None:
    levels = [state.levels[name] for name in loggers if name in state.levels]
    return level_name(min(levels)) if levels else None


def _effective(loggers: Sequence[str]) -> str:
    return level_name(min(logging.getLogger(name).getEffectiveLevel() for name in loggers))


LEVELS: Final = Levels()
"""This process's levels."""

if hasattr(os, "register_at_fork"):  # a child must not inherit the lock held by a thread that it does not have
    os.register_at_fork(
        before=LEVELS.lock.acquire, after_in_parent=LEVELS.lock.release, after_in_child=LEVELS.lock.release
    )
