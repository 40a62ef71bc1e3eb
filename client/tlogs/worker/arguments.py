"""A record's arguments as text, without running more of the program than the program itself would.

Theory of operation
-------------------
Where a handler will emit a record, its message is made once more than without us, by the same code. Where no handler
will, nobody would have called the arguments' own `__str__`, which may take a lock that the caller holds, copy a tensor
from a device or make a text of megabytes. There each argument that is not a primitive is replaced by one whose text is
bounded, and made by C code and the standard library alone: other objects show their type and address, dataclasses
their fields, tensors their shape. Two exceptions are made to be read here: torch's own records, and lazy texts, objects
that have a `__str__` and no `__repr__` of their own.

Whatever a text raises, SystemExit too, becomes part of the text; only KeyboardInterrupt goes through.
"""

from __future__ import annotations

import logging
import reprlib
import sys
import types
from collections import deque
from collections.abc import Callable, Collection, ItemsView, KeysView, Mapping, ValuesView
from functools import partial
from itertools import islice
from typing import Any, Final

__all__ = ["MAX_REPR_CHARS", "PRIMITIVES", "fields", "formatted", "is_emitted", "message", "shown", "text"]

PRIMITIVES: Final = frozenset({int, float, str, bool, type(None)})

MAX_FIELDS: Final = 64
MAX_REPR_CHARS: Final = 4096
MAX_ITEMS: Final = 100
MAX_NESTING: Final = 6

_CONTAINERS: Final = (tuple, list, set, frozenset, deque, dict, KeysView, ValuesView, ItemsView)
_NESTING: Final = (types.MethodType, types.SimpleNamespace, partial)
"""Types in C whose texts hold that of any other object."""

_formatter: Final = logging.Formatter()


def is_emitted(logger: Any, levelno: int) -> bool:
    """Return whether a handler would format a record of this level that *logger* passes on."""
    found = False
    while logger is not None:
        for handler in logger.handlers:
            found = True
            if levelno >= handler.level and not isinstance(handler, logging.NullHandler):
                return True
        logger = logger.parent if logger.propagate else None
    # Its replacement while this job's merged stream is printed (TLOGS_STDERR=quiet) has no level.
    last = logging.lastResort
    return not found and last is not None and levelno >= (last.level or logging.WARNING)


def message(record: logging.LogRecord, *, emitted: bool) -> str:
    """The record's message; unless it is *emitted* without the program's own code for its arguments."""
    try:
        if emitted:
            return record.getMessage()
        template = text(record.msg, emitted=False)
        args: Any = record.args or ()
        if isinstance(args, Mapping):
            return template % {name: _settled(value) for name, value in args.items()}
        return template % tuple(map(_settled, args))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever the arguments' own texts raise
        return f"{shown(record.msg)} {shown(record.args)} ({type(error).__name__} when it was formatted)"


def formatted(exc_info: tuple[type[BaseException], BaseException, types.TracebackType | None] | Any) -> str:
    """A traceback as logging prints it."""
    return _guarded(_formatter.formatException, exc_info)


def text(value: Any, *, emitted: bool) -> str:
    """An object that is a message itself; one with a `__str__` of its own was made to have it called."""
    if type(value) is str:
        return value
    return _guarded(str if emitted or isinstance(type(value).__str__, types.FunctionType) else _str, value)


def fields(given: Mapping[Any, Any]) -> dict[str, Any]:
    """The user's fields as primitives, else as text, within limits."""
    found: dict[str, Any] = {}
    for name, value in list(given.items())[:MAX_FIELDS]:
        kind = type(value)
        plain = kind in PRIMITIVES and (kind is not int or -(1 << 63) <= value < 1 << 64)
        found[str(name)] = value if plain else shown(value)
    return found


def shown(value: Any) -> str:
    """A `repr` of at most MAX_REPR_CHARS characters, without the program's own code."""
    return _guarded(_bounded.repr, value)[:MAX_REPR_CHARS]


def _guarded(make: Callable[[Any], str], value: Any) -> str:
    try:
        return make(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a foreign object's text raises
        return f"<{type(value).__name__}: {type(error).__name__} in its text>"


class _Settled:
    """Stands for an argument in the template."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        return _guarded(_str, self._value)[:MAX_REPR_CHARS]

    def __repr__(self) -> str:
        return shown(self._value)

    def __int__(self) -> int:
        return int(_number(self._value))

    def __index__(self) -> int:
        return int.__index__(_number(self._value))

    def __float__(self) -> float:
        return float(_number(self._value))


def _settled(value: Any) -> Any:
    return value if type(value) in PRIMITIVES else _Settled(value)


def _number(value: Any) -> Any:
    """A number that formats like *value*.

    Raises:
        TypeError: it is not a number, or only the program's own code could tell.
    """
    if _is_tensor(value):
        if value.device.type == "cpu" and value.numel() == 1:  # from another device it would have to be waited for
            return value.item()
    elif _is_harmless(type(value), "__index__"):
        return value.__index__()
    elif _is_harmless(type(value), "__float__"):
        return value.__float__()
    raise TypeError(f"{type(value).__name__} is not shown as a number")


def _str(value: Any) -> str:
    kind = type(value)
    if isinstance(value, str):
        return str.__str__(value)
    own = vars(BaseException)["__str__"] if isinstance(value, BaseException) else vars(object)["__str__"]
    if isinstance(value, BaseException) and kind.__str__ == own and len(value.args) < 2:
        return _str(value.args[0]) if value.args else ""
    is_lazy = not isinstance(value, BaseException) and kind.__repr__ == vars(object)["__repr__"]
    return str(value) if kind.__str__ != own and (is_lazy or _is_harmless(kind, "__str__")) else _bounded.repr(value)


class _Bounded(reprlib.Repr):
    """`repr` within limits that runs code in C and of the standard library only."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = MAX_NESTING
        self.maxtuple = self.maxlist = self.maxarray = self.maxdeque = MAX_ITEMS
        self.maxstring = self.maxlong = self.maxother = MAX_REPR_CHARS

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """A dict in its own order."""
        items = [f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}" for key, value in _first(x.items())]
        return f"{{{', '.join(items)}{_more(x)}}}" if level > 0 else "{...}"

    def repr_set(self, x: Collection[Any], level: int) -> str:
        """A set in its own order; comparing the elements may be the program's code."""
        items = [self.repr1(item, level - 1) for item in _first(x)] if level > 0 else ["..."]
        return f"{{{', '.join(items)}{_more(x)}}}" if x else "set()"

    def repr_frozenset(self, x: frozenset[Any], level: int) -> str:
        """As a set, with its name."""
        return f"frozenset({self.repr_set(x, level) if x else ''})"

    def repr_instance(self, x: Any, level: int) -> str:
        """Whatever is not of a builtin type."""
        kind = type(x)
        if _is_tensor(x):
            if x.device.type == "cpu" and x.numel() == 1:
                return f"tensor({x.item()})"
            return f"tensor(shape={list(x.shape)}, dtype={x.dtype}, device='{x.device}')"
        if isinstance(x, _CONTAINERS):
            inner = self.repr_dict(x, level) if isinstance(x, dict) else self.repr_list([*_first(x)], level)
            return f"{kind.__name__}({inner})"
        if isinstance(x, BaseException) and kind.__repr__ == vars(BaseException)["__repr__"]:
            return f"{kind.__name__}({', '.join(self.repr1(arg, level - 1) for arg in _first(x.args))})"
        if level > 0 and _is_plain_dataclass(kind):
            items = [f"{name}={self.repr1(value, level - 1)}" for name, value in _first(vars(x).items())]
            return f"{kind.__qualname__}({', '.join(items)})"
        if isinstance(x, _NESTING) or not _is_harmless(kind, "__repr__"):
            return object.__repr__(x)
        return super().repr_instance(x, level)


_bounded: Final = _Bounded()


def _first(values: Any) -> Any:
    return islice(values, MAX_ITEMS)


def _more(values: Collection[Any]) -> str:
    return ", ..." if len(values) > MAX_ITEMS else ""


def _is_harmless(kind: type, name: str) -> bool:
    """Return whether this method is in C, or the standard library's."""
    method = getattr(kind, name, None)
    if isinstance(method, types.FunctionType):
        return method.__module__.partition(".")[0] in sys.stdlib_module_names
    return method is not None


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    # Not a subclass: its methods may be the program's.
    return torch is not None and type(value) is getattr(torch, "Tensor", None)


def _is_plain_dataclass(kind: type) -> bool:
    """Return whether its instances show their fields by the `__repr__` that a dataclass is given."""
    made = getattr(kind.__repr__, "__wrapped__", kind.__repr__)
    is_generated = isinstance(made, types.FunctionType) and made.__code__.co_filename == "<string>"
    return is_generated and "__dataclass_fields__" in kind.__dict__ and "__slots__" not in kind.__dict__
