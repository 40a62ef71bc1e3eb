"""torch's own logging state, read and written, and the seams that keep ours in agreement with it.

Where torch is loaded its registry and its `log_state` are the truth. Three seams tell when they change, and a fourth
answers for the leases, which are never written into it:

- a post-import hook on `torch._logging._internal`, for a torch that is imported after us;
- `_init_logs`, which torch runs at import and in each set_logs(): every registered logger was reset;
- `configure_artifact_log`, which torch runs when a module asks for an artifact's logger: a logger was born;
- `LogState.is_artifact_enabled`, by which torch decides whether to make some records at all (`recompiles` is one).

What is private to torch is touched in this file only.
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

__all__ = ["INTERNAL", "Bridge", "find_bridge", "trace_id"]

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


def find_bridge() -> Bridge | None:
    """The way to the torch that is loaded; None where there is none, or where it is only just being imported."""
    module = sys.modules.get(INTERNAL)
    loaded = module is not None and hasattr(sys.modules.get("torch._logging"), "set_logs")
    if module is None or not loaded:
        return None
    bridge = Bridge(module)
    return bridge if bridge.is_complete else None


class Bridge:
    """torch's module `_internal`, as far as levels are concerned."""

    def __init__(self, module: ModuleType) -> None:
        self._module: Any = module
        self._originals: dict[str, Any] = {}
        self._is_artifact_enabled: Any = None
        self._inside = threading.local()
        self.artifacts_on: frozenset[str] | None = None
        """The artifacts that are on with the leases laid over torch's state; None where none are laid."""

    # -- seams

    @property
    def is_complete(self) -> bool:
        """Whether this torch has all that is needed to change its settings without its reset."""
        registry = getattr(self._module, "log_registry", None)
        return all(hasattr(self._module, name) for name in _NEEDED) and all(
            hasattr(registry, name) for name in _NEEDED_OF_REGISTRY
        )

    @property
    def is_hooked(self) -> bool:
        """Whether both seams are in place."""
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
        """Put the seams in place, as far as this torch has them; again is harmless."""
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
        """While torch configures its loggers it sees its own state: leases are laid over what comes of that."""
        self._inside.torch = True
        try:
            yield
        finally:
            self._inside.torch = False

    def unhook(self) -> None:
        """Take the seams out, unless somebody has wrapped them again."""
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
        """Make an empty TORCH_LOGS harmless, at which `import torch` otherwise fails with an AttributeError."""
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
        """torch's registry as it is now."""
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
        """What torch was asked for: TORCH_LOGS, or the last set_logs()."""
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
        """Make torch's state *state*, in one assignment: whoever looks sees the old one or the new one."""
        self._module._set_log_state(self._module.LogState(dict(state.levels), set(state.on)))

    def admit(self, wanted: Registry) -> None:
        """Register with torch what *wanted* has and torch has not."""
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
        """Have torch take *handlers* off, as its own, when it next sets up its loggers."""
        for handler in handlers:
            self._module._track_handler(handler)

    def set_up_handlers(self, loggers: Iterable[str], out: str | None) -> None:
        """Give *loggers* the handlers that torch's `_init_logs` would, and change those that they have to fit.

        Each writes to the standard error of now, and to the file *out* where there is one.

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
"""torch's thread-local that holds what is being compiled, once torch is loaded."""


def trace_id() -> str | None:
    """torch's compile id of what this thread compiles just now, such as `0/0` or `1/0_1`; None almost always."""
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
