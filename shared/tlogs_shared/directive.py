"""What people write: TORCH_LOGS, the arguments of set_logs(), the SPECs of `tlogs set-logs`.

The grammar of TORCH_LOGS is torch's: names joined by commas, blanks only after a comma, one sign in front of each::

    +dynamo      component at DEBUG        guards        artifact on (a sign in front of it changes nothing)
    dynamo       component at INFO         my.module     any importable module, by its full name
    -dynamo      component at ERROR        all           the logger `torch`, which the other components inherit from

Each name is looked up as component, artifact, module, in this order. A level written later wins over one written
earlier. set_logs() takes the same names, its keywords in torch's fixed order, then `modules` in the order given.

Whether a module exists is asked of a function *find_module*, as `importlib.util.find_spec(name) is not None` answers;
what that raises is raised here, with the name in its text.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tlogs_shared.errors import DirectiveError
from tlogs_shared.levels import LevelState, level_names, level_number
from tlogs_shared.registry import ALL, Registry
from tlogs_shared.torch_names import KEYWORDS

__all__ = ["Directive", "from_call", "from_text", "help_text", "parse", "parse_level", "parse_specs", "unknown_name"]

_WHOLE: Final = re.compile(r"((\+|-)?[\w\.]+,\s*)*(\+|-)?[\w\.]+?")
"""As torch/_logging/_internal.py has it; the whole text must match."""

_LEVEL_OF_SIGN: Final = {"+": logging.DEBUG, "-": logging.ERROR, "": logging.INFO}

FindModule = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Directive:
    """One clause: a name and the sign in front of it, `+`, `-` or nothing."""

    name: str
    sign: str = ""

    @property
    def level(self) -> int:
        """The level that the sign stands for, where the name is no artifact's."""
        return _LEVEL_OF_SIGN[self.sign]

    def __str__(self) -> str:
        return self.sign + self.name


def parse(text: str, where: str = "TORCH_LOGS") -> list[Directive]:
    """The clauses of *text*, none for the empty text.

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
    """What is probably wrong with a text that does not follow the grammar."""
    bare = text.strip()
    if bare[:1] in ("'", '"') or bare[-1:] in ("'", '"'):
        return " (quotes became part of the value)"
    if text != bare or re.search(r"\s,|[+-]\s|\w\s+\w", text):
        return " (blanks may stand only after a comma)"
    if re.search(r"^,|,$|,,", text):
        return " (there is nothing between two commas)"
    if odd := re.search(r"[^\w.,+\-\s]", text):
        return f" (at {odd[0]!r})"
    return ""


def from_text(
    text: str, registry: Registry, find_module: FindModule, ignore: FindModule = lambda name: False
) -> tuple[LevelState, Registry]:
    """The level state that TORCH_LOGS=*text* asks for, and *registry* with the modules it names.

    A name that nobody knows is passed over where *ignore* says so.

    Raises:
        DirectiveError: *text* is malformed or names what nobody knows; for ``help`` and ``+help`` the help itself.
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
        elif _is_module(name, registry, find_module, f"TORCH_LOGS={text!r}"):
            _admit(name, registry)
            levels[name] = directive.level
        elif not ignore(name):
            raise DirectiveError(unknown_name(name, registry, f"TORCH_LOGS={text!r}"))
    return LevelState(levels, frozenset(on)), registry


def from_call(
    items: Iterable[tuple[str, object]], registry: Registry, find_module: FindModule
) -> tuple[LevelState, Registry]:
    """The level state that set_logs() asks for with *items*, and *registry* with the modules they name.

    Raises:
        DirectiveError: an unknown name, an artifact that is no bool, or a level that logging does not know.
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
        elif _is_module(name, registry, find_module, "set_logs()"):
            _admit(name, registry)
            levels[name] = value  # torch does not check the range here, and neither do we
        else:
            raise DirectiveError(unknown_name(name, registry, "set_logs()"))
    return LevelState({name: level_number(value) for name, value in levels.items()}, frozenset(on)), registry


def _is_module(name: str, registry: Registry, find_module: FindModule, where: str) -> bool:
    try:
        return find_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{unknown_name(name, registry, where)}\n{error}", name=error.name) from error
    except ImportError as error:
        raise ImportError(f"{unknown_name(name, registry, where)}\n{error}", name=error.name) from error


def _admit(module: str, registry: Registry) -> None:
    """Make *module* known: a component of its own, or a child where a component lies above it."""
    if registry.has_component_above(module):
        registry.children.add(module)
    else:
        registry.components[module] = (module,)


def unknown_name(name: str, registry: Registry, where: str) -> str:
    """What to tell somebody who wrote a name that nobody knows."""
    suggestion = registry.suggest(name)
    if suggestion is not None:
        return f"unknown name {name!r} in {where} (did you mean {suggestion!r}?); `tlogs help-logs` lists them all"
    return (
        f"unknown name {name!r} in {where}: expected a component, an artifact, or the full name of an importable "
        f"module\n"
        f"components: {', '.join(sorted({ALL, *registry.components}))}\n"
        f"artifacts: {', '.join(sorted(registry.artifacts))}"
    )


def parse_level(text: str) -> int:
    """A level by its name in any case, or by its number.

    Raises:
        DirectiveError: neither a name that logging knows nor a number.
    """
    names = {name.upper(): logging.getLevelName(name) for name in ("NOTSET", "WARN", "FATAL", *level_names())}
    if text.upper() in names:
        return int(names[text.upper()])
    if re.fullmatch(r"\d{1,3}", text):
        return int(text)
    close = difflib.get_close_matches(text.upper(), list(names), n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise DirectiveError(f"unknown level {text!r}{meant}: expected {', '.join(level_names())}, or a number")


def parse_specs(specs: Iterable[str], registry: Registry) -> Mapping[str, int | bool]:
    """The settings of a lease: clauses of TORCH_LOGS, or `NAME=LEVEL`, `ARTIFACT=on`, `ARTIFACT=off`.

    A name that *registry* does not know is taken as it is: each rank says whether it knows it.

    >>> from tlogs_shared.registry import recorded
    >>> parse_specs(["+c10d,graph_breaks", "my.module=info", "guards=off"], recorded())
    {'c10d': 10, 'graph_breaks': True, 'my.module': 20, 'guards': False}

    Raises:
        DirectiveError: a clause that cannot be understood, or that would mean something else than it says.
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
    """What the value, or the sign where *signed*, says for *name*."""
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
        return _LEVEL_OF_SIGN[value]
    if switch is not None:
        if name == ALL or name in registry.components:
            raise DirectiveError(f"{clause!r}: {name} is a component and has a level; say {name}=DEBUG")
        return switch
    return parse_level(value)


def in_call_order(settings: Mapping[str, int | bool]) -> dict[str, int | bool]:
    """*settings* given as keywords, in the order in which set_logs() applies them; other names follow as they came.

    The order matters where two names stand for one logger: the later one wins.

    >>> list(in_call_order({"my.module": 10, "export": 10, "dynamo": 40}))
    ['dynamo', 'export', 'my.module']
    """
    known = {name: settings[name] for name in KEYWORDS if name in settings}
    return known | {name: value for name, value in settings.items() if name not in known}


def help_text(registry: Registry, *, verbose: bool) -> str:
    """What TORCH_LOGS=help says, and with *verbose* what TORCH_LOGS=+help says."""
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
  TORCH_LOGS="+some.random.module"    that module, and what lies below it, at DEBUG

  TORCH_LOGS_FORMAT="%(levelname)s: %(message)s" sets the output format, TORCH_LOGS_OUT=/tmp/output.txt writes the
  records to a file as well.
"""
