"""This process's levels: what TORCH_LOGS and set_logs() ask for, and leases laid over it.

Theory of operation
-------------------
What this process asked for itself is the *base* (`tlogs.loggers.base`); leases are never written into it. What they
change is computed as a whole (`tlogs.levels.state`) and put onto the loggers as a difference, under one lock
(`tlogs.loggers.layer`). When the base changes, the leases are laid again.

An artifact that is off has a mark laid over its loggers, so that its records are not even built. The mark is part of
the layer, like what leases do, and goes where torch or a lease turns the artifact on.
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
from tlogs.loggers.with_torch import INTERNAL, trace_id
from tlogs_shared.level_names import level_name
from tlogs_shared.protocol.lease import Lease

__all__ = ["LEVELS", "Levels", "Outcome", "trace_id"]

_IGNORED: Final = "Using TORCH_LOGS environment variable for log settings, ignoring call to set_logs"
"""torch's own words, on torch's own logger: people and scripts look for them."""


class Levels:
    """The level controller of this process. Thread-safe."""

    def __init__(self) -> None:
        self.lock: Final = RLock()
        self._clear()

    def _clear(self) -> None:
        self._base = Base(self.lock, self._base_changed, self._lay_artifact)
        self._seen = LevelState()
        self._layer = Layer()
        self._leases: tuple[Lease, ...] = ()
        self._labels: dict[str, tuple[str | None, str | None]] = {}
        self._started = False
        self._torch_logs: str | None = None
        self._over = False

    def start(self, environ: Mapping[str, str]) -> None:
        """Put TORCH_LOGS into effect, and listen to torch; again is harmless.

        Raises:
            DirectiveError: TORCH_LOGS cannot be understood, and no torch is loaded that has said so already.
            ConfigError: TORCH_LOGS_FORMAT is no format.
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
        """Put back what was changed on other people's loggers; what set_logs() asked of torch stays asked."""
        with self.lock:
            if self._started:
                self._layer.enable(set())
                self._layer.lay({})
                self._base.stop()
                self._clear()

    def set_logs(self, **settings: Any) -> None:
        """What `torch._logging.set_logs` does, whether torch is loaded or not; a call that fails changes nothing.

        Raises:
            DirectiveError: an unknown name, an artifact that is no bool, or a level that logging does not know.
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
        """The logger of *artifact* in *module*, configured as things stand.

        Raises:
            DirectiveError: nobody registered *artifact*.
        """
        with self.lock:
            return self._base.artifact_logger(module, artifact)

    def register_log(self, alias: str, loggers: tuple[str, ...]) -> None:
        """Make *alias* a component, or change the loggers that it stands for."""
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
        """Lay *leases*, those in this process's scope, oldest first, over the base; none of them take all off."""
        with self.lock:
            # Judged before anything is laid: laying a level makes a logger of that name.
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
        """What has to lie over the loggers just now."""
        wanted = lease_targets(registry, self._base.state(), self._settings())
        for name, artifact in registry.artifact_loggers.items():
            if name in wanted and not self._may_be_marked(name, artifact, wanted[name]):
                del wanted[name]
        return wanted

    def _may_be_marked(self, name: str, artifact: str, target: Target) -> bool:
        """Whether an artifact that is off may have its records not built: not where a handler of the program waits."""
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
        """Lay what the leases want over the one logger of an artifact that was just configured."""
        registry, state = self._base.registry(), self._base.state()
        artifact = registry.artifact_loggers[name]
        under = artifact_target(registry, state, artifact, mark_off=False)
        target = artifact_target(registry, settled(registry, state, self._settings()), artifact)
        laid = target if target != under and self._may_be_marked(name, artifact, target) else None
        self._layer.lay_one(name, laid, under)

    def _base_changed(self) -> None:
        """torch has put its loggers where it wants them: that is what lies under from now on."""
        self._layer.rebase(base_targets(self._base.registry(), self._base.state()))
        self._lay()

    # -- what others ask

    def check(self) -> bool:
        """Lay the leases again where a seam is missing and something else has changed; whether that was so.

        For heartbeats: where all seams are in place this costs next to nothing.
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
        """Whether this process knows *name*: a component, an artifact, a logger, or a module; imports nothing."""
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

        `tlogs.levels.registry.component_of` says the same from the recorded one; they differ where the program
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
    """*lease* as far as it is about other names."""
    return replace(lease, settings={name: value for name, value in lease.settings.items() if name not in names})


def _configured(loggers: Sequence[str], state: LevelState) -> str | None:
    levels = [state.levels[name] for name in loggers if name in state.levels]
    return level_name(min(levels)) if levels else None


def _effective(loggers: Sequence[str]) -> str:
    return level_name(min(logging.getLogger(name).getEffectiveLevel() for name in loggers))


LEVELS: Final = Levels()
"""This process's levels."""

if hasattr(os, "register_at_fork"):  # the child must not find the lock held by a thread that it does not have
    os.register_at_fork(
        before=LEVELS.lock.acquire, after_in_parent=LEVELS.lock.release, after_in_child=LEVELS.lock.release
    )
