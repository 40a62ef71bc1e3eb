"""Settings -> the level of every logger, as torch puts it.

Theory of operation
-------------------
The settings are a `LevelState`: a level for some loggers, the artifacts that are on, the artifacts that were turned
off explicitly. `base_targets` computes from it the level and `propagate` of every registered logger, which is torch's
`_init_logs` without the reset. `lease_targets` computes what leases change on top of that. `ordered` sorts a
difference so that no record is lost while it is applied to loggers in use.

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
"""The level of a logger whose artifact is off; no record has a level that high."""

DEFAULT_LEVEL: Final = logging.WARNING
"""The level of the logger `torch` unless it is set; the other components inherit it."""


class Target(NamedTuple):
    """The level and `propagate` to give a logger; None leaves `propagate` as it is."""

    level: int
    propagate: bool | None = None


@dataclass(frozen=True, slots=True)
class LevelState:
    """Settings: `levels` by logger, artifacts that are `on`, artifacts that are explicitly `off`.

    Only leases turn an artifact off: for set_logs() an artifact that is False is an artifact not named.
    """

    levels: Mapping[str, int] = field(default_factory=dict)
    on: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()


Settings = Sequence[tuple[Mapping[str, int | bool], bool]]
"""The settings of each lease, and True for one that replaces everything below it."""


def overlay(state: LevelState, settings: Mapping[str, int | bool], registry: Registry) -> LevelState:
    """*state* with *settings* applied over it: only the names in them change."""
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
    """The target that torch's `_init_logs` gives every logger in *registry*.

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
    """The targets on top of *state* for *leases*, oldest first.

    They are for the loggers that the leases name or change, and for those of artifacts that are off.
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
    """*state* with *leases*, oldest first, applied to it."""
    for names, replaces in leases:
        state = overlay(LevelState() if replaces else state, names, registry)
    return state


def loggers_behind(name: str, registry: Registry) -> Sequence[str]:
    """The loggers that a setting for *name* affects; of an artifact, those that exist."""
    if name in registry.artifacts:
        return [logger for logger, artifact in registry.artifact_loggers.items() if artifact == name]
    return registry.loggers_of(name) or (name,)


def artifact_target(registry: Registry, state: LevelState, artifact: str, *, mark_off: bool = True) -> Target:
    """The target of any logger of *artifact*.

    With *mark_off*, one that is not shown has the level `OFF`; without, it is as torch leaves it: without a level,
    and its records do not propagate.
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
    """The number of a level given as `Logger.setLevel` takes it, by number or by name.

    Raises:
        DirectiveError: an unknown name.
        TypeError: neither a number nor a string; logging raises the same.
    """
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, str):
        raise TypeError(f"Level not an integer or a valid string: {value!r}")
    number = logging.getLevelName(value)
    if not isinstance(number, int):
        raise DirectiveError(f"Unknown level: {value!r}; expected {', '.join(NAMES.values())}")
    return number
