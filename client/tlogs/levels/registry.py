"""The names that levels can be set by: components, artifacts, and the loggers behind them.

A *component* is an alias for one or more loggers and has a level. An *artifact* is a kind of record, on or off; its
loggers are named `<module>.__<artifact>` and are created when a module asks for them. `Registry` holds torch's
model of both, as `torch._logging._internal.LogRegistry` does, so that a copy of the live one and the recorded one
(`recorded`, see `torch_names`) are the same thing to everything above.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from tlogs.levels.torch_names import ARTIFACT_MODULES, ARTIFACTS, COMPONENTS

__all__ = ["ALL", "Artifact", "Registry", "component_of", "recorded"]

ALL: Final = "all"
"""The name of the component `torch` in TORCH_LOGS and set_logs(): the logger that the others inherit from."""

_LABELS_KEPT: Final = 4096
"""More distinct logger names than any job has; one entry is small."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One kind of record that is either on or off.

    One that is *off by default* is shown only if it is named; any other also if the level of the logger above it
    allows. `log_format` is a format of its own, None for the usual one; `visible` ones are in the short help.
    """

    name: str
    off_by_default: bool = False
    visible: bool = False
    log_format: str | None = None
    description: str = ""


@dataclass(slots=True)
class Registry:
    """The known components and artifacts, and the loggers registered later.

    `artifact_loggers` are the artifact loggers that exist, with their artifact's name; `children` are loggers that a
    setting named and that are below a component's, so that they have a level but no handler of their own.
    """

    components: dict[str, tuple[str, ...]] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    artifact_loggers: dict[str, str] = field(default_factory=dict)
    children: set[str] = field(default_factory=set)

    def copy(self) -> Registry:
        """An independent copy."""
        return Registry(dict(self.components), dict(self.artifacts), dict(self.artifact_loggers), set(self.children))

    def loggers(self) -> set[str]:
        """Every logger that belongs to a component."""
        return {logger for loggers in self.components.values() for logger in loggers}

    def loggers_of(self, name: str) -> tuple[str, ...] | None:
        """The loggers meant by a component's alias, by `all`, or by the name of a known child."""
        name = "torch" if name == ALL else name
        if name in self.components:
            return self.components[name]
        return (name,) if name in self.children else None

    def names(self) -> list[str]:
        """The names that TORCH_LOGS takes besides those of modules, sorted."""
        return sorted({ALL, *self.components, *self.artifacts})

    def suggest(self, name: str) -> str | None:
        """The known name closest to *name*; None without a close one.

        >>> recorded().suggest("dinamo"), recorded().suggest("Guards"), recorded().suggest("xyz")
        ('dynamo', 'guards', None)
        """
        names = self.names()
        found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.7)
        return found[0] if found else None

    def has_component_above(self, logger: str) -> bool:
        """Return True if *logger* or one above it belongs to a component, so that it needs no handler of its own."""
        known = self.loggers()
        return any(name in known for name in lineage(logger))

    def label(self, logger: str) -> tuple[str | None, str | None]:
        """The component and the artifact that a record of *logger* belongs to, each None if it has no such label.

        The nearest logger that belongs to a component decides. Where several components share it, the one with the
        fewest loggers is the most specific (`ddp` before `distributed`, `dynamic` before `dynamo` before `export`).
        """
        head, _, last = logger.rpartition(".")
        artifact = self.artifact_loggers.get(logger)
        if artifact is None and last.startswith("__") and last[2:] in self.artifacts:
            artifact = last[2:]
        for name in lineage(head if artifact is not None else logger):
            owners = [alias for alias, loggers in self.components.items() if name in loggers]
            if owners:
                return min(owners, key=lambda alias: (len(self.components[alias]), alias)), artifact
        return None, artifact


def lineage(logger: str) -> Iterator[str]:
    """A logger's name and the names above it, nearest first.

    >>> list(lineage("a.b.c"))
    ['a.b.c', 'a.b', 'a']
    """
    while logger:
        yield logger
        logger = logger.rpartition(".")[0]


@lru_cache(maxsize=1)
def _recorded() -> Registry:
    return Registry(
        components=dict(COMPONENTS),
        artifacts={
            name: Artifact(name, off_by_default, visible, log_format, description)
            for name, (off_by_default, visible, log_format, description) in ARTIFACTS.items()
        },
    )


def recorded() -> Registry:
    """A new registry, as `import torch` leaves it in the version that was recorded."""
    return _recorded().copy()


def emitters() -> Mapping[str, tuple[str, ...]]:
    """The modules of torch that emit each artifact, where that is known."""
    return ARTIFACT_MODULES


@lru_cache(maxsize=_LABELS_KEPT)
def component_of(logger_name: str) -> tuple[str | None, str | None]:
    """The component and the artifact that the recorded registry gives a logger; see `Registry.label`.

    >>> component_of("torch._dynamo.guards.__guards"), component_of("train")
    (('dynamo', 'guards'), (None, None))
    """
    return _recorded().label(logger_name)
