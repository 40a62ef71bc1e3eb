"""The arguments of set_logs(): torch's keywords in torch's order, then `modules` in the order given.

A component takes a level, an artifact a real bool; None, and False for an artifact, have no effect. Where two names
name one logger the later one wins, so the order is part of the meaning.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from tlogs.levels.registry import ALL, Registry
from tlogs.levels.state import LevelState, level_number
from tlogs.levels.torch_logs import FindModule, admit, is_module, unknown_name
from tlogs.levels.torch_names import KEYWORDS
from tlogs_shared.errors import DirectiveError

__all__ = ["arguments", "check_keywords", "from_call", "in_call_order"]


def check_keywords(settings: Mapping[str, object]) -> None:
    """Check the keywords of a call of set_logs().

    Raises:
        TypeError: set_logs() lacks one, as Python raises; with a suggestion.
    """
    for name in settings.keys() - KEYWORDS.keys() - {"modules"}:
        close = difflib.get_close_matches(name, KEYWORDS, n=1)
        meant = f". Did you mean {close[0]!r}?" if close else "; modules={...} takes any other name"
        raise TypeError(f"set_logs() got an unexpected keyword argument {name!r}{meant}")


def arguments(modules: Any = None, **settings: Any) -> list[tuple[str, object]]:
    """The arguments of set_logs() in the order in which torch applies them.

    Raises:
        AttributeError: *modules* is not a map, as torch raises it.
    """
    modules = modules or {}
    if not hasattr(modules, "items"):
        raise AttributeError(f"modules must map names to levels, found {modules!r}: it has no attribute 'items'")
    found: list[tuple[str, object]] = []
    for name, is_artifact in KEYWORDS.items():
        value = settings.get(name)
        if not (value is None or (is_artifact and value is False)):
            found.append(("torch" if name == ALL else name, value))
    return [*found, *modules.items()]


def from_call(
    items: Iterable[tuple[str, object]], registry: Registry, find_module: FindModule
) -> tuple[LevelState, Registry]:
    """The level state for the arguments *items* of set_logs(), and *registry* with the modules that they name.

    Raises:
        DirectiveError: an unknown name, an artifact that is not a bool, or a level that logging does not know.
        TypeError: a level of a type that logging does not take.
        ImportError: a module whose parent cannot be imported, as `find_spec` raises it.
    """
    registry = registry.copy()
    levels: dict[str, object] = {}
    on: set[str] = set()
    for name, value in items:
        if value is None:
            continue
        if name in registry.artifacts:
            if not isinstance(value, bool):
                raise DirectiveError(f"Expected bool to enable artifact {name}, received {value!r}")
            if value:
                on.add(name)
        elif name in registry.components or name in registry.children:
            if value not in logging._levelToName:
                valid = ", ".join(f"{number}" for number in logging._levelToName)
                raise DirectiveError(
                    f"Unrecognized log level for log {name}: {value!r}, valid level values are: {valid}"
                )
            levels.update(dict.fromkeys(registry.components.get(name, (name,)), value))
        elif is_module(name, registry, find_module, "set_logs()"):
            admit(name, registry)
            levels[name] = value  # torch does not check the range here, and neither do we
        else:
            raise DirectiveError(unknown_name(name, registry, "set_logs()"))
    return LevelState({name: level_number(value) for name, value in levels.items()}, frozenset(on)), registry


def in_call_order(settings: Mapping[str, int | bool]) -> dict[str, int | bool]:
    """*settings* given as keywords, in the order in which set_logs() applies them; other names follow as they came.

    The order matters where two names mean one logger: the later one wins.

    >>> list(in_call_order({"my.module": 10, "export": 10, "dynamo": 40}))
    ['dynamo', 'export', 'my.module']
    """
    known = {name: settings[name] for name in KEYWORDS if name in settings}
    return known | {name: value for name, value in settings.items() if name not in known}
