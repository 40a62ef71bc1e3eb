"""The effect of a setting before it is used: logger by logger, artifact by artifact, each with the reason."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tlogs.levels.clauses import parse_specs
from tlogs.levels.registry import ALL, Registry, emitters, lineage
from tlogs.levels.state import DEFAULT_LEVEL, LevelState, loggers_behind, overlay
from tlogs.levels.torch_logs import FindModule, from_text, parse
from tlogs_shared.errors import DirectiveError
from tlogs_shared.level_names import level_name, setting_text

__all__ = ["ArtifactLine", "Explanation", "LoggerLine", "explain"]

_NAMED_ONLY = "off by default: shown only where it is named"


@dataclass(frozen=True, slots=True)
class LoggerLine:
    """A logger that gets a level, and the clause that sets it."""

    logger: str
    level: str
    because: str


@dataclass(frozen=True, slots=True)
class ArtifactLine:
    """An artifact, True if its records come out, and why."""

    artifact: str
    shown: bool
    because: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The effect of a setting; `notes` are warnings about it."""

    loggers: list[LoggerLine]
    artifacts: list[ArtifactLine]
    notes: list[str] = field(default_factory=list)

    def asdict(self) -> dict[str, Any]:
        """The explanation as a map of primitives."""
        return {
            "loggers": {line.logger: {"level": line.level, "because": line.because} for line in self.loggers},
            "artifacts": {line.artifact: {"shown": line.shown, "because": line.because} for line in self.artifacts},
            "notes": self.notes,
        }


def explain(specs: Iterable[str], registry: Registry, find_module: FindModule) -> Explanation:
    """The effect of TORCH_LOGS=*specs*, or of `tlogs set-logs` *specs* if a clause has the form NAME=VALUE.

    *find_module* tells whether a module exists here; the job may run where it does.

    Raises:
        DirectiveError: *specs* are malformed, or have an unknown name that is close to a known one.
    """
    text = ",".join(specs)
    notes: list[str] = []

    def could_be_module(name: str) -> bool:
        if find_module(name):
            return True
        if registry.suggest(name) is not None:
            return False
        notes.append(f"{name}: no such module is found here; a job without it refuses to start with this setting")
        return True

    if "=" in text:
        settings = parse_specs([text], registry)
        for name in settings:
            if name != ALL and not (name in registry.components or name in registry.artifacts):
                _refuse_unless(could_be_module(name), name, registry)
        clauses = [(name, f"{name}={setting_text(value)}") for name, value in settings.items()]
        state = overlay(LevelState(), settings, registry)
    else:
        state, registry = from_text(text, registry, could_be_module)
        clauses = [(directive.name, str(directive)) for directive in parse(text)]
        for directive in parse(text):
            if directive.sign == "-" and directive.name in registry.artifacts:
                notes.append(f"{directive}: a sign before an artifact changes nothing; this turns {directive.name} on")
    by = {logger: clause for name, clause in clauses for logger in loggers_behind(name, registry)}
    if not text:
        notes.append("nothing is set: torch and everything below it at WARNING, no artifact named")
    return Explanation(
        loggers=[
            LoggerLine(logger, level_name(level), by.get(logger, "")) for logger, level in sorted(state.levels.items())
        ],
        artifacts=[_artifact(name, state, registry, by) for name in sorted(registry.artifacts)],
        notes=notes,
    )


def _refuse_unless(fits: bool, name: str, registry: Registry) -> None:
    if not fits:
        raise DirectiveError(f"unknown name {name!r} (did you mean {registry.suggest(name)!r}?)")


def _artifact(name: str, state: LevelState, registry: Registry, by: Mapping[str, str]) -> ArtifactLine:
    """Tell whether the records of one artifact come out."""
    if name in state.on:
        return ArtifactLine(name, True, "it is named")
    if name in state.off:
        return ArtifactLine(name, False, "it is turned off")
    if registry.artifacts[name].off_by_default:
        return ArtifactLine(name, False, _NAMED_ONLY)
    found = list(dict.fromkeys(_levels_above(emitters().get(name, ()), state, registry, by)))
    loud = [owner for owner, level in found if level <= logging.DEBUG]
    if loud:
        return ArtifactLine(name, True, f"{_and(loud)} is at DEBUG")
    if not found:
        return ArtifactLine(name, False, "it is not named; where the logger above it is at DEBUG it is shown")
    owner, level = min(found, key=lambda pair: pair[1])
    return ArtifactLine(name, False, f"{owner} is at {level_name(level)}, and an artifact's records are DEBUG")


def _levels_above(
    modules: Iterable[str], state: LevelState, registry: Registry, by: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """The level in force in each module, with its source: the name in the setting, else the component."""
    for module in modules:
        for name in lineage(module):
            if state.levels.get(name, logging.NOTSET) != logging.NOTSET:
                yield by[name].lstrip("+-").partition("=")[0], state.levels[name]
                break
        else:
            yield registry.label(module)[0] or module, DEFAULT_LEVEL


def _and(names: list[str]) -> str:
    return " and ".join(names)
