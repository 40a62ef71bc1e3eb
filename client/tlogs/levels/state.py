"""Settings -> the level of every logger, as torch puts it.

Theory of operation
-------------------
What was asked for is a `LevelState`: a level for some loggers, the artifacts that are on, the artifacts that were
turned off on purpose. `base_targets` makes of it the level of every logger that the registry knows, and whether its
records pass upwards; that is torch's `_init_logs` without the reset. `lease_targets` says what has to lie over that
for leases. `ordered` says in which order a difference must be put onto living loggers so that no record is lost.

An artifact that is off gets the level `OFF`, above every real one: then `isEnabledFor` is false and the record is not
even built. torch leaves such a logger enabled, lets the program format its record and drops it afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tlogs.levels.registry import Registry
from tlogs_shared.errors import DirectiveError
from tlogs_shared.level_names import NAMES

__all__ = [
    "DEFAULT_LEVEL",
    "OFF",
    "LevelState",
    "Target",
    "artifact_target",
    "base_targets",
    "lease_targets",
    "level_number",
    "ordered",
    "overlay",
    "settled",
]

OFF: Final = 1 << 30
"""The level of an artifact's logger that is off: no record has so high a level."""

DEFAULT_LEVEL: Final = logging.WARNING
"""The level of the logger `torch` where nothing else was asked for; the other components inherit it."""


class Target(NamedTuple):
    """What a logger's level and `propagate` shall be; None leaves `propagate` as it is."""

    level: int
    propagate: bool | None = None


@dataclass(frozen=True, slots=True)
class LevelState:
    """What was asked for: `levels` by logger, artifacts that are `on`, artifacts that are `off` on purpose.

    Only leases turn an artifact off: for set_logs() an artifact that is False is an artifact not named.
    """

    levels: Mapping[str, int] = field(default_factory=dict)
    on: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()


Settings = Sequence[tuple[Mapping[str, int | bool], bool]]
"""What each lease names, with whether it replaces everything below it."""


def overlay(state: LevelState, settings: Mapping[str, int | bool], registry: Registry) -> LevelState:
    """*state* with *settings* laid over it: only what they name changes."""
    levels = dict(state.levels)
    on, off = set(state.on), set(state.off)
    for name, value in settings.items():
        if name in registry.artifacts:
            (on if value else off).add(name)
            (off if value else on).discard(name)
            continue
        for logger in registry.loggers_of(name) or (name,):
            levels[logger] = int(value)
    return LevelState(levels, frozenset(on), frozenset(off))


def base_targets(registry: Registry, state: LevelState) -> dict[str, Target]:
    """What torch's `_init_logs` makes of every logger that *registry* knows.

    A component's logger has a handler of its own and passes nothing upwards; a child has none and does. (torch lets
    a component's logger that was also named as a module do both, and writes each record twice.)
    """
    found = {name: Target(state.levels.get(name, logging.NOTSET), propagate=True) for name in registry.children}
    for name in registry.loggers():
        default = DEFAULT_LEVEL if name == "torch" else logging.NOTSET
        found[name] = Target(state.levels.get(name, default), propagate=False)
    for name, artifact in registry.artifact_loggers.items():
        found[name] = artifact_target(registry, state, artifact, mark_off=False)
    return found


def lease_targets(registry: Registry, state: LevelState, leases: Settings) -> dict[str, Target]:
    """What has to lie over the loggers so that *leases*, oldest first, lie over *state*.

    Found are only loggers that the leases name or change, and those of artifacts that are off.
    """
    before = base_targets(registry, state)
    over = settled(registry, state, leases)
    named = {logger for names, _ in leases for name in names for logger in loggers_behind(name, registry)}
    if any(replaces for _, replaces in leases):
        named.update(before)
    found = {name: Target(target.level) for name, target in base_targets(registry, over).items() if name in named}
    found.update({name: Target(level) for name, level in over.levels.items() if name in named})
    for name, artifact in registry.artifact_loggers.items():
        target = artifact_target(registry, over, artifact)
        if name in named or target != before[name]:
            found[name] = target
    return found


def settled(registry: Registry, state: LevelState, leases: Settings) -> LevelState:
    """What is asked for altogether: *state* with *leases*, oldest first, over it."""
    for names, replaces in leases:
        state = overlay(LevelState() if replaces else state, names, registry)
    return state


def loggers_behind(name: str, registry: Registry) -> Sequence[str]:
    """The loggers that a setting for *name* is about, as far as they exist."""
    if name in registry.artifacts:
        return [logger for logger, artifact in registry.artifact_loggers.items() if artifact == name]
    return registry.loggers_of(name) or (name,)


def artifact_target(registry: Registry, state: LevelState, artifact: str, *, mark_off: bool = True) -> Target:
    """The target of any logger of *artifact*.

    With *mark_off* one that does not come out has the level `OFF`; without, it is as torch leaves it: without a
    level, and records do not pass upwards.
    """
    if artifact in state.on:
        return Target(logging.DEBUG, propagate=True)
    known = registry.artifacts.get(artifact)
    if artifact in state.off or (known is not None and known.off_by_default):
        return Target(OFF if mark_off else logging.NOTSET, propagate=False)
    return Target(logging.NOTSET, propagate=True)


def ordered(changes: Mapping[str, int]) -> list[tuple[str, int]]:
    """*changes* of level in an order in which no effective level is ever above both its old and its new value.

    Levels that are set come first, the deepest logger first; levels that are taken away follow, the shallowest
    first. In between every logger sees either all of its old chain or all of its new one, as far up as its level
    comes from. So a thread that logs meanwhile loses no record that both states allow.

    >>> ordered({"torch": 30, "torch._dynamo": 10, "torch.onnx": 0})
    [('torch._dynamo', 10), ('torch', 30), ('torch.onnx', 0)]
    """
    set_first = [item for item in changes.items() if item[1] != logging.NOTSET]
    unset_last = [item for item in changes.items() if item[1] == logging.NOTSET]
    return sorted(set_first, key=_depth, reverse=True) + sorted(unset_last, key=_depth)


def _depth(change: tuple[str, int]) -> int:
    return change[0].count(".")


def level_number(value: object) -> int:
    """A level as logging knows it: a number, or a name that has one.

    Raises:
        DirectiveError: a text that names no level.
        TypeError: neither a number nor a text; logging raises the same.
    """
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, str):
        raise TypeError(f"Level not an integer or a valid string: {value!r}")
    number = logging.getLevelName(value)
    if not isinstance(number, int):
        raise DirectiveError(f"Unknown level: {value!r}; expected {', '.join(NAMES.values())}")
    return number
