"""The settings that this process itself made, wherever they are kept: here without torch, in torch's state with it.

`Base` hides which of the two applies, and when that changes: a torch that is imported later takes over the settings
made before. The owner is told when torch changed the base, and when torch created an artifact's logger.
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
from tlogs.loggers.with_torch import INTERNAL, WithTorch, find_torch
from tlogs.loggers.without_torch import WithoutTorch
from tlogs_shared.errors import DirectiveError

__all__ = ["Base"]

_log = logging.getLogger("tlogs")

_SILENT: Final = logging.NullHandler()
"""Takes the place of `logging.lastResort` under TLOGS_STDERR=quiet."""

Items = list[tuple[str, object]]
_Given = ParamSpec("_Given")


class Base:
    """Registry and state of this process. The owner's *lock* is held during changes and during both callbacks.

    *changed* is called after torch has set up its loggers, *born* with the name of an artifact's logger that has just
    been configured.
    """

    def __init__(self, lock: RLock, changed: Callable[[], None], born: Callable[[str], None]) -> None:
        self._lock = lock
        self._changed = changed
        self._born = born
        self._kept: WithoutTorch | WithTorch = WithoutTorch()
        self._coming: WithTorch | None = None
        self._hook = ImportHook(INTERNAL, _guarded(self._torch_executed))
        self._listens = False
        self._quiet = False
        self._last_resort: logging.Handler | None = None

    def start(self, environ: Mapping[str, str]) -> None:
        """Apply TORCH_LOGS unless torch has done so, and listen to torch.

        Raises:
            DirectiveError, ConfigError, ImportError, OSError: as `WithoutTorch.start` raises them; nothing is changed.
        """
        quiet = environ.get("TLOGS_STDERR") == "quiet"
        torch = find_torch()
        if torch is None:
            assert isinstance(self._kept, WithoutTorch)
            self._kept.start(environ, quiet=quiet)
        with self._lock:
            self._listens = True
            self._quiet = quiet
            if quiet:
                self._last_resort, logging.lastResort = logging.lastResort, _SILENT
            self._hook.install()
            if torch is not None:
                self._join(torch)

    def stop(self) -> None:
        """Stop listening, and restore handlers and levels of loggers, except those that are torch's."""
        self._hook.remove()
        for torch in (self._kept, self._coming):
            if isinstance(torch, WithTorch):
                torch.unhook()
        if isinstance(self._kept, WithoutTorch):
            self._kept.close()
        elif self._quiet:
            self._kept.silence_stderr(self.registry().loggers(), quiet=False)
        if self._quiet and logging.lastResort is _SILENT:
            logging.lastResort = self._last_resort

    # -- what was asked for

    def registry(self) -> Registry:
        """The names known at present."""
        return self._kept.registry()

    def state(self) -> LevelState:
        """The settings of TORCH_LOGS, or of the last set_logs()."""
        return self._kept.state()

    def ask(self, items: Items, state: LevelState, wanted: Registry) -> dict[str, Target]:
        """Record *state* and register *wanted*; return the target of every logger, for the caller to apply.

        Raises:
            OSError: the file of TORCH_LOGS_OUT cannot be opened; nothing is changed then.
        """
        self._kept.set_up_handlers(wanted.loggers(), os.environ.get("TORCH_LOGS_OUT"))
        self._kept.admit(wanted)
        self._kept.set_state(state)
        if isinstance(self._kept, WithoutTorch):
            self._kept.last_call = items
        return base_targets(self.registry(), state)

    def answer(self, artifacts_on: frozenset[str] | None) -> None:
        """Set the artifacts that torch is told are on; None means those in its own state."""
        if isinstance(self._kept, WithTorch):
            self._kept.artifacts_on = artifacts_on

    def hush(self, registry: Registry) -> None:
        """Silence torch's handlers for the standard error, if TLOGS_STDERR=quiet."""
        if self._quiet and isinstance(self._kept, WithTorch):
            self._kept.silence_stderr(registry.loggers(), quiet=True)

    # -- names

    def _names(self) -> WithoutTorch | WithTorch:
        """The keeper of the names: torch as soon as it is loaded."""
        return self._kept if self._listens else find_torch() or self._kept

    def register_log(self, alias: str, loggers: tuple[str, ...]) -> None:
        """Make *alias* a component, or change its loggers."""
        self._names().register_log(alias, loggers)

    def register_artifact(self, artifact: Artifact) -> None:
        """Make *artifact* known, or change what is known of it."""
        self._names().register_artifact(artifact)

    def artifact_logger(self, module: str, artifact: str) -> logging.Logger:
        """The logger of *artifact* in *module*, configured by the present settings.

        Raises:
            DirectiveError: *artifact* is not registered.
        """
        kept = self._names()
        registry = kept.registry()
        if artifact not in registry.artifacts:
            suggestion = registry.suggest(artifact)
            meant = f" (did you mean {suggestion!r}?)" if suggestion else ""
            raise DirectiveError(f"unknown artifact {artifact!r}{meant}: register_artifact() makes a new one")
        if isinstance(kept, WithTorch):
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
        """How changes by torch are noticed: by hooks, by polling, or not at all before `start`."""
        if isinstance(self._kept, WithTorch):
            return "hooked" if self._kept.is_hooked else "polled"
        return "hooked" if self._listens else "none"

    def find_torch(self) -> bool:
        """Join a torch whose import went unnoticed; return True if there was one."""
        if isinstance(self._kept, WithTorch) or (self._coming is not None and self._coming.is_hooked):
            return False
        torch = find_torch()
        if torch is not None:
            self._join(torch)
        return torch is not None

    def _torch_executed(self, module: ModuleType) -> None:
        """Handle the import of torch's `_internal`, before its registrations and its first `_init_logs`."""
        with self._lock:
            torch = WithTorch(module)
            if not self._listens or isinstance(self._kept, WithTorch) or not torch.is_complete:
                return
            self._coming = torch
            torch.admit(self._kept.additions())
            torch.adopt(self._kept.handlers)
            torch.accept_empty()
            self._hook_into(torch)

    def _before_init(self) -> None:
        """Hand the settings kept here to a torch that is about to set up its loggers for the first time."""
        kept, torch = self._kept, self._coming
        if not isinstance(kept, WithoutTorch) or torch is None or "TORCH_LOGS" in os.environ or kept.last_call is None:
            return
        try:
            state, wanted = from_call(kept.last_call, torch.registry(), find_module)
        except (ImportError, TypeError, ValueError) as error:
            _log.warning("this torch does not know all that set_logs() was called with before its import: %s", error)
            state, wanted = kept.state(), torch.registry()
        with self._lock:
            torch.admit(wanted)
            torch.set_state(state)

    def _after_init(self) -> None:
        with self._lock:
            if self._coming is not None and isinstance(self._kept, WithoutTorch):
                self._join(self._coming)
            elif isinstance(self._kept, WithTorch):
                self._changed()

    def _after_configure(self, logger: logging.Logger) -> None:
        with self._lock:
            if isinstance(self._kept, WithTorch):
                self._born(logger.name)

    def _join(self, torch: WithTorch) -> None:
        """Use torch's state from now on."""
        old, self._kept, self._coming = self._kept, torch, None
        if isinstance(old, WithoutTorch):
            torch.admit(old.additions())
            old.hand_over(torch.registry().loggers())
        self._hook_into(torch)
        self._changed()

    def _hook_into(self, torch: WithTorch) -> None:
        torch.hook(_guarded(self._before_init), _guarded(self._after_init), _guarded(self._after_configure))


def _guarded(call: Callable[_Given, None]) -> Callable[_Given, None]:
    """*call* for torch to make: an error in it is logged, and never ends an import or a `set_logs` of torch's."""

    def guarded(*args: _Given.args, **kwargs: _Given.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception:  # noqa: BLE001 - a torch unlike any that we know must still be importable
            _log.warning("tlogs: levels may not follow this torch", exc_info=True)

    return guarded
