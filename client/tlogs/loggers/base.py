"""What this process asked for itself, wherever that is kept: here without torch, in torch's own state with it.

`Base` hides which of the two it is, and when that changes: a torch that is imported later takes over what was asked
for before. Whoever lays something over the base is told when it was changed from outside, or a logger was born.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from threading import RLock
from types import ModuleType
from typing import Final, Literal, ParamSpec

from tlogs.levels.registry import Artifact, Registry
from tlogs.levels.set_logs import from_call
from tlogs.levels.state import LevelState, Target, artifact_target, base_targets
from tlogs.loggers.import_hook import ImportHook
from tlogs.loggers.layer import put
from tlogs.loggers.module_lookup import find_module
from tlogs.loggers.with_torch import INTERNAL, Bridge, find_bridge
from tlogs.loggers.without_torch import Alone
from tlogs_shared.errors import DirectiveError

__all__ = ["Base"]

_log = logging.getLogger("tlogs")

_SILENT: Final = logging.NullHandler()
"""What `logging.lastResort` is under TLOGS_STDERR=quiet."""

Items = list[tuple[str, object]]
_Given = ParamSpec("_Given")


class Base:
    """Registry and state of this process. Its owner's *lock* is held in what changes it, and in the two calls.

    *changed* is called when torch has put its loggers where it wants them, *born* with the name of an artifact's
    logger that has just been configured.
    """

    def __init__(self, lock: RLock, changed: Callable[[], None], born: Callable[[str], None]) -> None:
        self._lock = lock
        self._changed = changed
        self._born = born
        self._kept: Alone | Bridge = Alone()
        self._coming: Bridge | None = None
        self._hook = ImportHook(INTERNAL, _guarded(self._torch_executed))
        self._listens = False
        self._quiet = False
        self._last_resort: logging.Handler | None = None

    def start(self, environ: Mapping[str, str]) -> None:
        """Put TORCH_LOGS into effect unless torch has, and listen to torch.

        Raises:
            DirectiveError, ConfigError, ImportError, OSError: as `Alone.start` raises them; nothing is changed then.
        """
        quiet = environ.get("TLOGS_STDERR") == "quiet"
        bridge = find_bridge()
        if bridge is None:
            assert isinstance(self._kept, Alone)
            self._kept.start(environ, quiet=quiet)
        with self._lock:
            self._listens = True
            self._quiet = quiet
            if quiet:
                self._last_resort, logging.lastResort = logging.lastResort, _SILENT
            self._hook.install()
            if bridge is not None:
                self._join(bridge)

    def stop(self) -> None:
        """Listen no more, and give back handlers and levels of loggers, where they are not torch's to have."""
        self._hook.remove()
        for bridge in (self._kept, self._coming):
            if isinstance(bridge, Bridge):
                bridge.unhook()
        if isinstance(self._kept, Alone):
            self._kept.close()
        elif self._quiet:
            self._kept.silence_stderr(self.registry().loggers(), quiet=False)
        if self._quiet and logging.lastResort is _SILENT:
            logging.lastResort = self._last_resort

    # -- what was asked for

    def registry(self) -> Registry:
        """The names as they are now known."""
        return self._kept.registry()

    def state(self) -> LevelState:
        """What TORCH_LOGS or the last set_logs() asked for."""
        return self._kept.state()

    def ask(self, items: Items, state: LevelState, wanted: Registry) -> dict[str, Target]:
        """Make *state* the state and *wanted* known; what every logger must be for it, which is not yet done.

        Raises:
            OSError: the file of TORCH_LOGS_OUT cannot be opened; nothing is changed then.
        """
        self._kept.set_up_handlers(wanted.loggers(), os.environ.get("TORCH_LOGS_OUT"))
        self._kept.admit(wanted)
        self._kept.set_state(state)
        if isinstance(self._kept, Alone):
            self._kept.last_call = items
        return base_targets(self.registry(), state)

    def answer(self, artifacts_on: frozenset[str] | None) -> None:
        """What torch hears when it asks its state which artifacts are on; None: what it holds itself."""
        if isinstance(self._kept, Bridge):
            self._kept.artifacts_on = artifacts_on

    def hush(self, registry: Registry) -> None:
        """Silence what torch writes to the standard error, where that was asked for."""
        if self._quiet and isinstance(self._kept, Bridge):
            self._kept.silence_stderr(registry.loggers(), quiet=True)

    # -- names

    def _names(self) -> Alone | Bridge:
        """Where names are registered: with torch as soon as it is loaded."""
        return self._kept if self._listens else find_bridge() or self._kept

    def register_log(self, alias: str, loggers: tuple[str, ...]) -> None:
        """Make *alias* a component, or change the loggers that it stands for."""
        self._names().register_log(alias, loggers)

    def register_artifact(self, artifact: Artifact) -> None:
        """Make *artifact* known, or change what is known of it."""
        self._names().register_artifact(artifact)

    def artifact_logger(self, module: str, artifact: str) -> logging.Logger:
        """The logger of *artifact* in *module*, configured as things stand.

        Raises:
            DirectiveError: nobody registered *artifact*.
        """
        kept = self._names()
        registry = kept.registry()
        if artifact not in registry.artifacts:
            suggestion = registry.suggest(artifact)
            meant = f" (did you mean {suggestion!r}?)" if suggestion else ""
            raise DirectiveError(f"unknown artifact {artifact!r}{meant}: register_artifact() makes a new one")
        if isinstance(kept, Bridge):
            return kept.artifact_logger(module, artifact)
        logger = logging.getLogger(f"{module}.__{artifact}")
        logger.artifact_name = artifact  # type: ignore[attr-defined]  # torch's formatter looks for it
        if logger.name not in registry.artifact_loggers:
            kept.admit(Registry(artifact_loggers={logger.name: artifact}))
            put({logger.name: artifact_target(registry, kept.state(), artifact, mark_off=False)})
            self._born(logger.name)
        return logger

    # -- torch

    @property
    def seams(self) -> Literal["hooked", "polled", "none"]:
        """How we learn of what torch changes: it tells us, we look from time to time, or we do not listen."""
        if isinstance(self._kept, Bridge):
            return "hooked" if self._kept.is_hooked else "polled"
        return "hooked" if self._listens else "none"

    def find_torch(self) -> bool:
        """Join a torch that was imported without our being told; whether there was one."""
        if isinstance(self._kept, Bridge) or (self._coming is not None and self._coming.is_hooked):
            return False
        bridge = find_bridge()
        if bridge is not None:
            self._join(bridge)
        return bridge is not None

    def _torch_executed(self, module: ModuleType) -> None:
        """torch's `_internal` stands; its registrations and its first `_init_logs` are still to come."""
        with self._lock:
            bridge = Bridge(module)
            if not self._listens or isinstance(self._kept, Bridge) or not bridge.is_complete:
                return
            self._coming = bridge
            bridge.admit(self._kept.additions())
            bridge.adopt(self._kept.handlers)
            bridge.accept_empty()
            self._hook_into(bridge)

    def _before_init(self) -> None:
        """torch is about to set up its loggers: for the first time, where the state is still kept here."""
        kept, bridge = self._kept, self._coming
        if not isinstance(kept, Alone) or bridge is None or "TORCH_LOGS" in os.environ or kept.last_call is None:
            return
        try:
            state, wanted = from_call(kept.last_call, bridge.registry(), find_module)
        except (ImportError, TypeError, ValueError) as error:
            _log.warning("this torch does not know all that set_logs() was called with before its import: %s", error)
            state, wanted = kept.state(), bridge.registry()
        with self._lock:
            bridge.admit(wanted)
            bridge.set_state(state)

    def _after_init(self) -> None:
        with self._lock:
            if self._coming is not None and isinstance(self._kept, Alone):
                self._join(self._coming)
            elif isinstance(self._kept, Bridge):
                self._changed()

    def _after_configure(self, logger: logging.Logger) -> None:
        with self._lock:
            if isinstance(self._kept, Bridge):
                self._born(logger.name)

    def _join(self, bridge: Bridge) -> None:
        """From now on torch's state is ours."""
        old, self._kept, self._coming = self._kept, bridge, None
        if isinstance(old, Alone):
            bridge.admit(old.additions())
            old.hand_over(bridge.registry().loggers())
        self._hook_into(bridge)
        self._changed()

    def _hook_into(self, bridge: Bridge) -> None:
        bridge.hook(_guarded(self._before_init), _guarded(self._after_init), _guarded(self._after_configure))


def _guarded(call: Callable[_Given, None]) -> Callable[_Given, None]:
    """*call* for torch to make: what fails in it is ours to know of, and must not end an import or a `set_logs`."""

    def guarded(*args: _Given.args, **kwargs: _Given.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception:  # noqa: BLE001 - a torch that is other than all we know must be imported all the same
            _log.warning("tlogs: levels may not follow this torch", exc_info=True)

    return guarded
