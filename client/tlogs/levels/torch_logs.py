"""The grammar of TORCH_LOGS, which is torch's: names joined by commas, blanks only after a comma, a sign before each::

    +dynamo      component at DEBUG        guards        artifact on (a sign in front of it changes nothing)
    dynamo       component at INFO         my.module     any importable module, by its full name
    -dynamo      component at ERROR        all           the logger `torch`, which the other components inherit from

Each name is looked up as component, artifact, module, in this order. A level written later wins over one written
earlier.

A function *find_module* tells whether a module exists, as `importlib.util.find_spec(name) is not None` does; its
exceptions are raised here with the name in their text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tlogs.levels.registry import ALL, Registry
from tlogs.levels.state import LevelState
from tlogs_shared.errors import DirectiveError

__all__ = ["Directive", "from_text", "help_text", "parse", "unknown_name"]

_WHOLE: Final = re.compile(r"((\+|-)?[\w\.]+,\s*)*(\+|-)?[\w\.]+?")
"""As torch/_logging/_internal.py has it; the whole text must match."""

LEVEL_OF_SIGN: Final = {"+": logging.DEBUG, "-": logging.ERROR, "": logging.INFO}

FindModule = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Directive:
    """One clause: a name and the sign in front of it, `+`, `-` or nothing."""

    name: str
    sign: str = ""

    @property
    def level(self) -> int:
        """The level that the sign means, where the name is not an artifact's."""
        return LEVEL_OF_SIGN[self.sign]

    def __str__(self) -> str:
        return self.sign + self.name


def parse(text: str, where: str = "TORCH_LOGS") -> list[Directive]:
    """The clauses of *text*; an empty list for the empty text.

    >>> [str(part) for part in parse("+dynamo, aot,-inductor")]
    ['+dynamo', 'aot', '-inductor']

    Raises:
        DirectiveError: *text* does not follow the grammar.
    """
    if text == "":
        return []
    if _WHOLE.fullmatch(text) is None:
        raise DirectiveError(
            f"{where}={text!r} is malformed{_complaint(text)}: expected names joined by commas, each with + (DEBUG), "
            "- (ERROR) or nothing (INFO) in front, as in +dynamo,aot,-inductor,guards"
        )
    parts = re.sub(r"\s+", "", text).split(",")
    return [Directive(part.lstrip("+-"), part[0] if part[0] in "+-" else "") for part in parts]


def _complaint(text: str) -> str:
    """The probable mistake in a text that does not follow the grammar."""
    bare = text.strip()
    if bare[:1] in ("'", '"') or bare[-1:] in ("'", '"'):
        return " (quotes became part of the value)"
    if text != bare or re.search(r"\s,|[+-]\s|\w\s+\w", text):
        return " (blanks are allowed only after a comma)"
    if re.search(r"^,|,$|,,", text):
        return " (there is nothing between two commas)"
    if odd := re.search(r"[^\w.,+\-\s]", text):
        return f" (at {odd[0]!r})"
    return ""


def from_text(
    text: str, registry: Registry, find_module: FindModule, ignore: FindModule = lambda name: False
) -> tuple[LevelState, Registry]:
    """The level state for TORCH_LOGS=*text*, and *registry* with the modules that it names.

    An unknown name is skipped if *ignore* returns True for it.

    Raises:
        DirectiveError: *text* is malformed or has an unknown name; for ``help`` and ``+help`` the help itself.
        ImportError: *text* names a module whose parent cannot be imported, as `find_spec` raises it.
    """
    if text in ("help", "+help"):
        raise DirectiveError(help_text(registry, verbose=text == "+help"))
    registry = registry.copy()
    levels: dict[str, int] = {}
    on: set[str] = set()
    for directive in parse(text):
        name = "torch" if directive.name == ALL else directive.name
        if name in registry.components:
            levels.update(dict.fromkeys(registry.components[name], directive.level))
        elif name in registry.artifacts:
            on.add(name)
        elif is_module(name, registry, find_module, f"TORCH_LOGS={text!r}"):
            admit(name, registry)
            levels[name] = directive.level
        elif not ignore(name):
            raise DirectiveError(unknown_name(name, registry, f"TORCH_LOGS={text!r}"))
    return LevelState(levels, frozenset(on)), registry


def is_module(name: str, registry: Registry, find_module: FindModule, where: str) -> bool:
    """Call *find_module*; its exceptions are raised with *name* and *where* in their text."""
    try:
        return find_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{unknown_name(name, registry, where)}\n{error}", name=error.name) from error
    except ImportError as error:
        raise ImportError(f"{unknown_name(name, registry, where)}\n{error}", name=error.name) from error


def admit(module: str, registry: Registry) -> None:
    """Register *module*: as a child if a logger above it belongs to a component, else as a component of its own."""
    if registry.has_component_above(module):
        registry.children.add(module)
    else:
        registry.components[module] = (module,)


def unknown_name(name: str, registry: Registry, where: str) -> str:
    """The error text for an unknown name."""
    suggestion = registry.suggest(name)
    if suggestion is not None:
        return f"unknown name {name!r} in {where} (did you mean {suggestion!r}?); `tlogs help-logs` lists them all"
    return (
        f"unknown name {name!r} in {where}: expected a component, an artifact, or the full name of an importable "
        f"module\n"
        f"components: {', '.join(sorted({ALL, *registry.components}))}\n"
        f"artifacts: {', '.join(sorted(registry.artifacts))}"
    )


def help_text(registry: Registry, *, verbose: bool) -> str:
    """The text of TORCH_LOGS=help, and with *verbose* of TORCH_LOGS=+help."""
    shown = [artifact for artifact in registry.artifacts.values() if verbose or artifact.visible]
    heading = "All registered names" if verbose else "Visible registered names (TORCH_LOGS=+help lists all)"
    lines = [ALL, *sorted(registry.components)]
    lines += sorted(f"{artifact.name:<30}\t{artifact.description}" for artifact in shown)
    return _HELP + f"\n{heading}\n" + "\n".join(f"  {line}" for line in lines) + "\n"


_HELP: Final = """
TORCH_LOGS Info

Examples:
  TORCH_LOGS="+dynamo,aot"            TorchDynamo at DEBUG, AOTAutograd at INFO
  TORCH_LOGS="-dynamo,+inductor"      TorchDynamo at ERROR, TorchInductor at DEBUG
  TORCH_LOGS="+dynamo,schedule"       TorchDynamo at DEBUG, and the schedule artifact
  TORCH_LOGS="+some.random.module"    that module, and everything below it, at DEBUG

  TORCH_LOGS_FORMAT="%(levelname)s: %(message)s" sets the output format, TORCH_LOGS_OUT=/tmp/output.txt writes the
  records to a file as well.
"""
