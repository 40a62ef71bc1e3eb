"""The answer that an operator gets from this process: does the lease have its effect, and if not, why."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from tlogs.levels.registry import Registry
from tlogs.levels.state import loggers_behind
from tlogs_shared.level_names import level_name
from tlogs_shared.protocol.lease import Lease, visible

__all__ = ["Outcome", "judge"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A rank's answer, judged on the newest of its leases.

    ``applied`` means that a record would come out; otherwise *reason* tells why not.
    """

    kind: Literal["applied", "ignored", "failed"]
    reason: str = ""


def judge(leases: Sequence[Lease], registry: Registry, unknown: Set[str]) -> Outcome:
    """Check the loggers after *leases* were applied; names in *unknown* were left out."""
    if not leases:
        return Outcome("applied")
    newest = max(leases, key=lambda lease: lease.revision)
    shown = visible(leases)
    if newest not in shown:
        return Outcome("failed", f"hidden by the lease of revision {shown[0].revision}, which replaces all before it")
    reasons = [reason for name in newest.settings for reason in _complaints(name, newest, registry, unknown)]
    return Outcome("failed", "; ".join(reasons)) if reasons else Outcome("applied")


def _complaints(name: str, lease: Lease, registry: Registry, unknown: Set[str]) -> Iterator[str]:
    value = lease.settings[name]
    is_artifact = name in registry.artifacts
    if name in unknown:
        suggestion = registry.suggest(name)
        yield f"unknown name {name!r}" + (f" (did you mean {suggestion!r}?)" if suggestion else "")
        return
    if type(value) is bool and not is_artifact:
        yield f"{name!r} is not an artifact here and has a level: say {name}=DEBUG"
        return
    if value is False:
        loud = [logger for logger in _loggers(name, registry) if logger.isEnabledFor(logging.DEBUG)]
        if loud:
            yield f"a later lease, or the program itself, keeps {name} on"
        return
    level = logging.DEBUG if is_artifact else int(value)
    if level == logging.NOTSET:
        return
    if logging.root.manager.disable >= level:
        yield (
            f"logging.disable({level_name(logging.root.manager.disable)}) in this program silences "
            f"{level_name(level)}; logging.disable(logging.NOTSET) lifts it"
        )
        return
    for logger in _loggers(name, registry):
        if logger.disabled:
            yield (
                f"the logger {logger.name} is disabled (logging.config does that to loggers that exist before it, "
                "unless disable_existing_loggers=False); --force enables it"
            )
        elif logger.getEffectiveLevel() != level:
            now = level_name(logger.getEffectiveLevel())
            yield f"{logger.name} is at {now}: a later lease, or the program itself, has set it"


def _loggers(name: str, registry: Registry) -> list[logging.Logger]:
    return [logging.getLogger(logger) for logger in loggers_behind(name, registry)]
