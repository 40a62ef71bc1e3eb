"""The records that the changed names have logged since: the part of the answer that an operator waits for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tlogs.cli.answers import in_words
from tlogs.levels.registry import recorded
from tlogs.operator.job import Job
from tlogs.reading.record import Record
from tlogs.reading.stamp import rfc3339
from tlogs_shared.rankset import RankSet

__all__ = ["aftermath", "hints"]

_EVERYTHING: Final = 2**62

_HINTS: Final = {
    "c10d": (
        "c10d logs when process groups are made, not at each collective; for its C++ and NCCL lines start the job "
        "with TORCH_CPP_LOG_LEVEL=INFO and NCCL_DEBUG=INFO; who is stuck: tlogs ranks"
    ),
    "ddp": "ddp logs while the model is wrapped and when its graph is rebuilt, not at each step",
    "recompiles": "recompiles logs when a compiled function meets a new shape or value",
    "graph_breaks": "graph_breaks logs while a function is compiled, not when it runs again",
}
"""Names that log rarely, or elsewhere."""


def aftermath(job: Job, settings: Mapping[str, int | bool], since_ns: int, seconds: float) -> str:
    """Count the records of the changed names for *seconds*, with their ranks."""
    chosen = {name: _belongs(name) for name in settings}
    counts = dict.fromkeys(settings, 0)
    ranks: dict[str, set[int]] = {name: set() for name in settings}
    for record in job.tail(count=_EVERYTHING, since=rfc3339(since_ns), stream="log", timeout=seconds):
        for name, belongs in chosen.items():
            if belongs(record):
                counts[name] += 1
                if record.rank is not None:
                    ranks[name].add(record.rank)
    said = []
    for name, count in counts.items():
        where = f" ({in_words(RankSet.of(ranks[name]))})" if ranks[name] else ""
        said.append(f"{name} {count} record{'s' if count != 1 else ''}{where}")
    return f"since then: {', '.join(said)}"


def hints(settings: Mapping[str, int | bool]) -> list[str]:
    """Sentences about those of the names that log rarely, or elsewhere."""
    return [_HINTS[name] for name, value in settings.items() if name in _HINTS and value is not False]


def _belongs(name: str) -> Callable[[Record], bool]:
    """A test for records of *name*: an artifact, a component with its loggers, or a module."""
    registry = recorded()
    if name in registry.artifacts:
        return lambda record: record.artifact == name
    loggers = registry.loggers_of(name) or (name,)
    below = tuple(f"{logger}." for logger in loggers)
    return lambda record: record.logger in loggers or record.logger.startswith(below)
