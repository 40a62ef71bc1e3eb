"""The SPECs of `tlogs set-logs`: clauses of TORCH_LOGS, or NAME=VALUE.

A clause that does not mean what it seems to is refused: `-guards`, which in TORCH_LOGS turns guards *on*; a level for
an artifact; on or off for a component.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tlogs.levels.registry import ALL, Registry
from tlogs.levels.torch_logs import LEVEL_OF_SIGN, Directive, parse
from tlogs_shared.errors import ConfigError, DirectiveError
from tlogs_shared.level_names import parse_level

__all__ = ["parse_specs"]


def parse_specs(specs: Iterable[str], registry: Registry) -> Mapping[str, int | bool]:
    """The settings of a lease: clauses of TORCH_LOGS, or `NAME=LEVEL`, `ARTIFACT=on`, `ARTIFACT=off`.

    A name that *registry* does not have is accepted: each rank answers for itself.

    >>> from tlogs.levels.registry import recorded
    >>> parse_specs(["+c10d,graph_breaks", "my.module=info", "guards=off"], recorded())
    {'c10d': 10, 'graph_breaks': True, 'my.module': 20, 'guards': False}

    Raises:
        DirectiveError: a malformed clause, or one that does not mean what it seems to.
    """
    found: dict[str, int | bool] = {}
    for clause in (part.strip() for spec in specs for part in spec.split(",")):
        name, equals, value = (part.strip() for part in clause.partition("="))
        if not equals:
            (directive,) = parse(clause, "SPEC") or [Directive("")]
            name, value = directive.name, directive.sign
        if not re.fullmatch(r"\w+(\.\w+)*", name):
            raise DirectiveError(f"SPEC {clause!r}: expected a name, as in c10d=DEBUG, +c10d or graph_breaks=on")
        found[name] = _setting(clause, name, value, registry, signed=not equals)
    if not found:
        raise DirectiveError("nothing to set: expected a SPEC such as c10d=DEBUG, +c10d or graph_breaks=on")
    return found


def _setting(clause: str, name: str, value: str, registry: Registry, *, signed: bool) -> int | bool:
    """The setting for *name* by *value*, which is a sign if *signed*."""
    switch = {"on": True, "true": True, "off": False, "false": False}.get(value.lower())
    if name in registry.artifacts:
        if signed and value == "-":
            raise DirectiveError(
                f"{clause!r}: say {name}=off (in TORCH_LOGS a sign before an artifact changes nothing)"
            )
        if signed or switch is not None:
            return True if signed else bool(switch)
        raise DirectiveError(f"{clause!r}: {name} is an artifact, on or off and without a level; say {name}=on")
    if signed:
        return LEVEL_OF_SIGN[value]
    if switch is not None:
        if name == ALL or name in registry.components:
            raise DirectiveError(f"{clause!r}: {name} is a component and has a level; say {name}=DEBUG")
        return switch
    try:
        return parse_level(value)
    except ConfigError as error:
        raise DirectiveError(f"{clause!r}: {error}") from None
