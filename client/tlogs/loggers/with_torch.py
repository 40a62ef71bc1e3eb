"""torch's own logging state, read and written, and the hooks that keep levels in agreement with it.

Where torch is loaded, its registry and its `log_state` decide. Three hooks notice changes to them, and a fourth one
answers for the leases, which are never written into it:

- a post-import hook on `torch._logging._internal`, for a torch that is imported after tlogs;
- `_init_logs`, which torch runs at import and in each set_logs(), and which resets every registered logger;
- `configure_artifact_log`, which torch runs when a module asks for an artifact's logger;
- `LogState.is_artifact_enabled`, by which torch decides whether to build some records at all (`recompiles` is one).

Only this file uses torch's private names.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

from tlogs.levels.registry import Artifact, Registry
from tlogs.levels.state import OFF, LevelState, level_number

__all__ = ["INTERNAL", "WithTorch", "find_torch", "trace_id"]

INTERNAL: Final = "torch._logging._internal"

_SEAMS: Final = ("_init_logs", "configure_artifact_log")

_NEEDED: Final = (
    "LogState",
    "_is_torch_handler",
    "_set_log_state",
    "_setup_handlers",
    "_track_handler",
    "getArtifactLogger",
    "log_registry",
    "log_state",
)


_CONSOLE: Final = "_StderrHandler"
"""torch's class for the standard error since 2.14, a `logging.Handler` that follows `sys.stderr`; before it was a
StreamHandler. Of torch's own handlers on a registered logger, the one that writes no file is this one."""

_NEEDED_OF_REGISTRY: Final = (
    "artifact_descriptions",
    "artifact_log_formatters",
    "artifact_log_qnames",
    "artifact_names",
    "child_log_qnames",
    "log_alias_to_log_qnames",
    "off_by_default_artifact_names",
    "register_artifact_log",
    "register_artifact_name",
    "register_child_log",
    "register_log",
    "visible_artifacts",
)


def find_torch() -> WithTorch | None:
    """The loaded torch; None while it is not loaded or still being imported."""
    module = sys.modules.get(INTERNAL)
    loaded = module is not None and hasattr(sys.modules.get("torch._logging"), "set_logs")
    if module is None or not loaded:
        return None
    torch = WithTorch(module)
    return torch if torch.is_complete else None


class WithTorch:
    """torch's module `_internal`: registry, state, handlers and hooks."""

    def __init__(self, module: ModuleType) -> None:
        self._module: Any = module
        self._originals: dict[str, Any] = {}
        self._is_artifact_enabled: Any = None
        self._inside = threading.local()
        self.artifacts_on: frozenset[str] | None = None
        """The artifacts that are on by torch's state and the leases; None where there are no leases."""

    # -- seams

    @property
    def is_complete(self) -> bool:
        """Return True if this torch has every name that is needed to change its settings without its reset."""
        registry = getattr(self._module, "log_registry", None)
        return all(hasattr(self._module, name) for name in _NEEDED) and all(
            hasattr(registry, name) for name in _NEEDED_OF_REGISTRY
        )

    @property
    def is_hooked(self) -> bool:
        """Return True if both hooks are in place."""
        return all(
            name in self._originals
            and getattr(getattr(self._module, name, None), "__wrapped__", None) is self._originals[name]
            for name in _SEAMS
        )

    def hook(
        self,
        before_init: Callable[[], None],
        after_init: Callable[[], None],
        after_artifact: Callable[[logging.Logger], None],
    ) -> None:
        """Install the hooks, as far as this torch has the functions; calling it again is harmless."""
        for name in _SEAMS:
            original = getattr(self._module, name, None)
            if name in self._originals or not callable(original):
                continue

            @functools.wraps(original)
            def init_logs(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
                before_init()
                try:
                    with self._own_answers():
                        return _original(*args, **kwargs)
                finally:
                    after_init()

            @functools.wraps(original)
            def configure_artifact_log(log: logging.Logger, _original: Any = original) -> Any:
                with self._own_answers():
                    result = _original(log)
                after_artifact(log)
                return result

            self._originals[name] = original
            self._replace(name, original, init_logs if name == "_init_logs" else configure_artifact_log)
        self._hook_answers()

    def _hook_answers(self) -> None:
        original = getattr(self._module.LogState, "is_artifact_enabled", None)
        if original is None or self._is_artifact_enabled is not None:
            return

        @functools.wraps(original)
        def is_artifact_enabled(state: Any, name: str) -> bool:
            on = self.artifacts_on
            if on is None or state is not self._module.log_state or getattr(self._inside, "torch", False):
                return bool(original(state, name))
            return name in on

        self._is_artifact_enabled = original
        self._module.LogState.is_artifact_enabled = is_artifact_enabled

    @contextmanager
    def _own_answers(self) -> Iterator[None]:
        """Let torch see its own state while it configures its loggers: leases are applied after that."""
        self._inside.torch = True
        try:
            yield
        finally:
            self._inside.torch = False

    def unhook(self) -> None:
        """Remove the hooks, except those that somebody else has wrapped."""
        for name, original in self._originals.items():
            ours = getattr(self._module, name, None)
            if getattr(ours, "__wrapped__", None) is original:
                self._replace(name, ours, original)
        self._originals.clear()
        if self._is_artifact_enabled is not None:
            self._module.LogState.is_artifact_enabled = self._is_artifact_enabled
            self._is_artifact_enabled = None

    def _replace(self, name: str, old: object, new: object) -> None:
        setattr(self._module, name, new)
        package = sys.modules.get("torch._logging")  # imports `_init_logs` by name
        if getattr(package, name, None) is old:
            setattr(package, name, new)

    def accept_empty(self) -> None:
        """Let `import torch` pass with an empty TORCH_LOGS; it fails with an AttributeError otherwise."""
        original = getattr(self._module, "_parse_log_settings", None)
        if original is None or not hasattr(self._module, "LogState"):
            return

        @functools.wraps(original)
        def parse_log_settings(settings: str) -> Any:
            return self._module.LogState() if settings == "" else original(settings)

        for name in ("cache_clear", "cache_info"):
            setattr(parse_log_settings, name, getattr(original, name, None))
        self._module._parse_log_settings = parse_log_settings

    # -- registry and state

    def registry(self) -> Registry:
        """torch's present registry."""
        found = self._module.log_registry
        off, visible = set(found.off_by_default_artifact_names), set(found.visible_artifacts)
        formats, descriptions = dict(found.artifact_log_formatters), dict(found.artifact_descriptions)
        return Registry(
            components={alias: tuple(loggers) for alias, loggers in dict(found.log_alias_to_log_qnames).items()},
            artifacts={
                name: Artifact(
                    name,
                    name in off,
                    name in visible,
                    formats[name]._fmt if name in formats else None,
                    descriptions.get(name, ""),
                )
                for name in set(found.artifact_names)
            },
            artifact_loggers={name: name.rpartition(".__")[2] for name in set(found.artifact_log_qnames)},
            children=set(found.child_log_qnames),
        )

    def state(self) -> LevelState:
        """torch's settings: those of TORCH_LOGS, or of the last set_logs()."""
        state = self._module.log_state
        if isinstance(state, dict):  # what an empty TORCH_LOGS makes of it
            return LevelState()
        levels = {}
        for name, level in dict(state.log_qname_to_level).items():
            try:
                levels[name] = level_number(level)
            except (TypeError, ValueError):  # torch takes it, and fails when it comes to set it
                continue
        return LevelState(levels, frozenset(state.artifact_names))

    def set_state(self, state: LevelState) -> None:
        """Replace torch's state in one assignment, so that other threads see the old one or the new one."""
        self._module._set_log_state(self._module.LogState(dict(state.levels), set(state.on)))

    def admit(self, wanted: Registry) -> None:
        """Register with torch the names in *wanted* that it lacks."""
        found = self._module.log_registry
        for alias in wanted.components.keys() - dict(found.log_alias_to_log_qnames).keys():
            self.register_log(alias, wanted.components[alias])
        for name in wanted.artifacts.keys() - set(found.artifact_names):
            self.register_artifact(wanted.artifacts[name])
        for name in wanted.artifact_loggers:
            found.register_artifact_log(name)
        for name in wanted.children:
            found.register_child_log(name)

    def register_log(self, alias: str, loggers: tuple[str, ...]) -> None:
        """As torch's function of this name."""
        self._module.log_registry.register_log(alias, list(loggers))

    def register_artifact(self, artifact: Artifact) -> None:
        """As torch's function of this name."""
        self._module.log_registry.register_artifact_name(
            artifact.name, artifact.description, artifact.visible, artifact.off_by_default, artifact.log_format
        )

    def artifact_logger(self, module: str, artifact: str) -> logging.Logger:
        """As torch's getArtifactLogger."""
        logger: logging.Logger = self._module.getArtifactLogger(module, artifact)
        return logger

    # -- handlers

    def adopt(self, handlers: Iterable[logging.Handler]) -> None:
        """Mark *handlers* as torch's, which removes them when it next sets up its loggers."""
        for handler in handlers:
            self._module._track_handler(handler)

    def set_up_handlers(self, loggers: Iterable[str], out: str | None) -> None:
        """Give *loggers* the handlers that torch's `_init_logs` would, reusing those that they have.

        They write to the present standard error, and to the file *out* unless it is None.

        Raises:
            OSError: *out* cannot be opened; nothing is changed then.
        """
        path = None if out is None else os.path.abspath(out)
        if out is not None:
            logging.FileHandler(out).close()
        for name in loggers:
            logger = logging.getLogger(name)
            ours = [handler for handler in logger.handlers if self._module._is_torch_handler(handler)]
            files = [handler for handler in ours if isinstance(handler, logging.FileHandler)]
            consoles = [handler for handler in ours if handler not in files]
            for console in consoles:
                if isinstance(console, logging.StreamHandler):
                    console.setStream(sys.stderr)
            if not consoles:
                self._module._setup_handlers(getattr(self._module, _CONSOLE, logging.StreamHandler), logger)
            if out is not None and all(file.baseFilename != path for file in files):
                self._module._setup_handlers(functools.partial(logging.FileHandler, out), logger)
            for file in files:
                if file.baseFilename != path:
                    logger.removeHandler(file)
                    file.close()

    def silence_stderr(self, loggers: Iterable[str], *, quiet: bool) -> None:
        """Silence torch's standard error handlers, or restore them; its files and the user's handlers stay on."""
        for name in loggers:
            for handler in logging.getLogger(name).handlers:
                if self._module._is_torch_handler(handler) and not isinstance(handler, logging.FileHandler):
                    handler.setLevel(OFF if quiet else logging.DEBUG)


_thread_state: Any = None
"""torch's thread-local with the current compilation, once torch is loaded."""


def trace_id() -> str | None:
    """The id of the compilation that this thread is in, such as `0/0` or `1/0_1`; None almost always."""
    global _thread_state
    if _thread_state is None:
        _thread_state = getattr(sys.modules.get("torch._guards"), "_TLS", None)
        if _thread_state is None:
            return None
    # `getattr` with a default takes six times as long where the attribute is missing.
    context = _thread_state.__dict__.get("compile_context")
    if context is None or context.compile_id is None:
        return None
    return str(sys.modules["torch._guards"].CompileContext.current_trace_id())
