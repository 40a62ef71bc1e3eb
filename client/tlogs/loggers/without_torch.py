"""The base of a process without torch, which does torch's part itself.

`WithoutTorch` keeps the recorded registry, the settings of TORCH_LOGS and set_logs(), and the handlers that torch
would attach. It has the interface of `tlogs.loggers.with_torch.WithTorch`; when torch is imported after all, that one
takes over.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TextIO

from tlogs.levels.registry import Artifact, Registry, recorded
from tlogs.levels.state import LevelState, Target, base_targets
from tlogs.levels.torch_logs import from_text
from tlogs.loggers.layer import current, put
from tlogs.loggers.module_lookup import find_module, torch_may_know
from tlogs.loggers.torch_format import TorchFormatter, find_formatter, open_file

__all__ = ["WithoutTorch"]


class WithoutTorch:
    """Registry, state and handlers of a process that has no torch, or not yet."""

    def __init__(self) -> None:
        self._registry = recorded()
        self._state = LevelState()
        self._formatter: logging.Formatter = TorchFormatter(self._registry)
        self._stderr: logging.StreamHandler[TextIO] | None = logging.StreamHandler()
        self._file: logging.FileHandler | None = None
        self._found: dict[str, Target] = {}
        self.last_call: list[tuple[str, object]] | None = None
        """The arguments of the last set_logs(), for a torch that is imported later to resolve by its own registry."""

    def start(self, environ: Mapping[str, str], *, quiet: bool) -> None:
        """Do what `import torch` does with TORCH_LOGS, _FORMAT and _OUT; *quiet* leaves the standard error out.

        Raises:
            DirectiveError: TORCH_LOGS cannot be understood.
            ConfigError: TORCH_LOGS_FORMAT is not a format.
            ImportError, OSError: a module's parent cannot be imported, or the file of TORCH_LOGS_OUT not opened.
        """
        known = self._registry.loggers()
        state, wanted = from_text(environ.get("TORCH_LOGS", ""), self._registry, find_module, torch_may_know)
        self._formatter = find_formatter(environ, self._registry)
        self._stderr = None if quiet else logging.StreamHandler()
        self.set_up_handlers(wanted.loggers(), environ.get("TORCH_LOGS_OUT"))
        self.admit(wanted)
        self._state = state
        base = base_targets(wanted, state)
        for name in wanted.loggers() - known:
            # torch, too, lets a module that TORCH_LOGS names pass its records on to the program's own handlers.
            if not wanted.has_component_above(name.rpartition(".")[0]):
                base[name] = Target(base[name].level)
        put(base)

    # -- the interface shared with WithTorch

    def registry(self) -> Registry:
        """The present registry."""
        return self._registry.copy()

    def state(self) -> LevelState:
        """The settings made so far."""
        return self._state

    def set_state(self, state: LevelState) -> None:
        """Replace the settings."""
        self._state = state

    def admit(self, wanted: Registry) -> None:
        """Register everything in *wanted*."""
        ours = self._registry
        ours.components.update(wanted.components)
        ours.artifacts.update(wanted.artifacts)
        ours.artifact_loggers.update(wanted.artifact_loggers)
        ours.children.update(wanted.children)

    def register_log(self, alias: str, loggers: tuple[str, ...]) -> None:
        """Make *alias* a component; as with torch, its loggers get handlers when settings next change."""
        self._registry.components[alias] = loggers

    def register_artifact(self, artifact: Artifact) -> None:
        """Register *artifact*; as with torch, a second registration adds to the first."""
        old = self._registry.artifacts.get(artifact.name, artifact)
        self._registry.artifacts[artifact.name] = replace(
            artifact,
            off_by_default=artifact.off_by_default or old.off_by_default,
            visible=artifact.visible or old.visible,
            log_format=old.log_format if artifact.log_format is None else artifact.log_format,
        )

    def set_up_handlers(self, loggers: Iterable[str], out: str | None) -> None:
        """Give *loggers* the handlers that torch would: for the present standard error and the file *out*.

        Raises:
            OSError: *out* cannot be opened; nothing is changed then.
        """
        old = self._file
        if out is None:
            self._file = None
        elif old is None or old.baseFilename != os.path.abspath(out):
            self._file = open_file(out)
        if self._stderr is not None:
            self._stderr.setStream(sys.stderr)
        for handler in self.handlers:
            handler.setLevel(logging.DEBUG)
            handler.setFormatter(self._formatter)
        for name in loggers:
            self._found.setdefault(name, current(name))
            logger = logging.getLogger(name)
            for handler in self.handlers:
                logger.addHandler(handler)
            if old is not None and old is not self._file:
                logger.removeHandler(old)
        if old is not None and old is not self._file:
            old.close()

    # -- for `Base`

    @property
    def handlers(self) -> list[logging.Handler]:
        """The handlers that registered loggers got from here."""
        return [handler for handler in (self._stderr, self._file) if handler is not None]

    def additions(self) -> Registry:
        """The names registered here that are not recorded from torch."""
        known, found = recorded(), self._registry.copy()
        for alias in known.components:
            del found.components[alias]
        for name in known.artifacts:
            del found.artifacts[name]
        return found

    def close(self) -> None:
        """Remove the handlers; each logger gets back the level and `propagate` that it had before."""
        self._remove_handlers()
        put(self._found)
        self._found.clear()

    def hand_over(self, loggers: Collection[str]) -> None:
        """Remove the handlers, because torch has set up *loggers*; the others that we know pass records on again."""
        self._remove_handlers()
        # The recorded registry may have names that this torch is too old to know.
        left = {name: found for name, found in self._found.items() if name not in loggers}
        put({name: Target(current(name).level, found.propagate) for name, found in left.items()})
        self._found.clear()

    def _remove_handlers(self) -> None:
        for name in self._found:
            for handler in self.handlers:
                logging.getLogger(name).removeHandler(handler)
        if self._file is not None:
            self._file.close()
