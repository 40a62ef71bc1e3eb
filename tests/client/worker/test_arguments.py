"""Arguments as text: as the program would show them, or within limits and without the program's own code."""

from __future__ import annotations

import datetime
import enum
import logging
import pathlib
import re
from collections import Counter, OrderedDict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from tlogs.worker.arguments import MAX_REPR_CHARS, fields, formatted, is_emitted, message, shown, text


class Secretive:
    """Whose own texts must not be asked for."""

    def __repr__(self) -> str:
        raise AssertionError("asked")

    __str__ = __format__ = __repr__  # type: ignore[assignment]
    __hash__ = object.__hash__

    def __float__(self) -> float:
        raise AssertionError("asked")

    def __lt__(self, other: object) -> bool:
        raise AssertionError("asked")


class Leaves:
    def __str__(self) -> str:
        raise SystemExit(3)


class Interrupts:
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Colour(enum.IntEnum):
    RED = 1


class Step(int):
    pass


@dataclass
class Config:
    rate: float
    name: str


Point = namedtuple("Point", "x y")


def record(template: Any, *args: Any) -> logging.LogRecord:
    return logging.LogRecord("a", 20, "", 0, template, args, None)


@pytest.mark.parametrize(
    ("template", "args"),
    [
        ("%s %r", ([1, "a"], (2,))),
        ("%s %r", ({"b": 1, "a": {3}}, frozenset({4}))),
        ("%s %s %s %s", ([], (), set(), frozenset())),
        ("%s %r", (pathlib.Path("a/b"), pathlib.Path("a/b"))),
        ("%s %r", (ValueError("boom"), ValueError("boom"))),
        ("%s %r", (ValueError(), ValueError(1, "x"))),
        ("%s %r", (FileNotFoundError(2, "no such", "f"), KeyError("k"))),
        ("%s %r %d", (Colour.RED, Colour.RED, Colour.RED)),
        ("%d %s %r %x", (Step(3), Step(3), Step(3), Step(3))),
        ("%.2f %s %d", (Decimal("1.5"), Decimal("1.5"), Fraction(7, 2))),
        ("%s %s", (datetime.date(2026, 1, 2), datetime.timedelta(1))),
        ("%s %r", (Config(0.1, "x"), [Config(0.1, "x")])),
        ("%s %s %s", (b"x", int, len)),
        ("%s %r", (deque([1]), [...])),
        ("%(a)s %(b).1f", ({"a": [1], "b": Decimal(2)},)),
    ],
)
def test_harmless_arguments_are_shown_as_a_handler_would(template: str, args: tuple[Any, ...]) -> None:
    one = record(template, *args)
    assert message(one, emitted=False) == message(one, emitted=True) == one.getMessage()


def test_arguments_that_do_not_fit_are_shown_beside_the_template() -> None:
    for emitted in (True, False):
        found = message(record("%s", "x", "y"), emitted=emitted)
        assert found == "'%s' ('x', 'y') (TypeError when it was formatted)"


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        (Secretive(), "<.*Secretive object at 0x"),
        ([Secretive()], "\\[<.*Secretive"),
        ({"a": {Secretive(): Secretive()}}, "{'a': {<.*Secretive"),
        ({Secretive(), Secretive()}, "{<.*Secretive.*, <.*Secretive"),
        (ValueError(Secretive()), "<.*Secretive"),
        (SimpleNamespace(a=Secretive()), "<types.SimpleNamespace object at"),
        (Secretive().__float__, "<method object at"),
        ({"a": Secretive()}.values(), "dict_values"),
        (Config(0.1, Secretive()), "Config\\(rate=0.1, name=<.*Secretive"),  # type: ignore[arg-type]
        (Point(1, Secretive()), "Point\\(\\[1, <.*Secretive"),
        ([OrderedDict(a=Secretive())], "\\[OrderedDict\\({'a': <.*Secretive"),
        ([Counter(a=3)], "\\[Counter\\({'a': 3}"),
    ],
)
def test_code_of_the_program_is_not_run(value: Any, pattern: str) -> None:
    assert re.match(pattern, message(record("%s", value), emitted=False))
    assert message(record("%.1f", value), emitted=False).endswith("(TypeError when it was formatted)")


def test_texts_are_bounded() -> None:
    for value in ("x" * 10**6, ["y" * 10**6] * 1000, {n: n for n in range(10**4)}, b"z" * 10**6, 10**4000):
        assert len(shown(value)) <= MAX_REPR_CHARS
    deep: list[Any] = []
    deep.append(deep)
    assert shown(deep).count("[") < 20


@pytest.mark.parametrize("emitted", [True, False])
def test_nothing_but_a_keyboard_interrupt_gets_out(emitted: bool) -> None:
    assert "SystemExit in its text" in text(Leaves(), emitted=emitted)
    assert message(record("%s", Leaves()), emitted=True).endswith("(SystemExit when it was formatted)")
    assert formatted((ValueError, Leaves(), None)) == "<tuple: AttributeError in its text>"
    with pytest.raises(KeyboardInterrupt):
        text(Interrupts(), emitted=emitted)
    with pytest.raises(KeyboardInterrupt):
        message(record("%s", Interrupts()), emitted=True)


def test_an_object_that_is_a_text_is_asked_for_it() -> None:
    class Brace:
        def __str__(self) -> str:
            return "made of braces"

    assert text(Brace(), emitted=False) == "made of braces"
    assert message(record("%s", Brace()), emitted=False) == "made of braces"
    assert text(OSError(2, "x"), emitted=False) == "[Errno 2] x"


def test_fields_are_primitives_or_bounded() -> None:
    found = fields({"a": 1, 2: Secretive(), "big": 2**70, "long": ["x" * 10**5]})
    assert found["a"] == 1
    assert found["2"].startswith("<")
    assert found["big"] == str(2**70)
    assert len(found["long"]) <= MAX_REPR_CHARS


@pytest.mark.torch
def test_a_tensor_shows_its_shape_and_a_single_number_its_value() -> None:
    torch = pytest.importorskip("torch")
    assert message(record("%s", torch.zeros(2, 3)), emitted=False) == (
        "tensor(shape=[2, 3], dtype=torch.float32, device='cpu')"
    )
    assert message(record("%s %.1f", torch.tensor(0.5), torch.tensor(0.5)), emitted=False) == "tensor(0.5) 0.5"
    assert "(TypeError when" in message(record("%.1f", torch.zeros(1, device="meta")), emitted=False)


def handler(level: int) -> logging.Handler:
    found = logging.Handler(level)
    return found


@pytest.mark.parametrize(
    ("own", "parents", "propagate", "last", "expected"),
    [
        ([], [], True, 30, False),
        ([], [], True, 20, True),
        ([], [], True, None, False),
        ([logging.NullHandler()], [], True, 20, False),
        ([handler(20)], [], True, None, True),
        ([handler(30)], [], True, 20, False),
        ([], [handler(20)], True, None, True),
        ([], [handler(20)], False, None, False),
        ([handler(30)], [handler(0)], True, None, True),
    ],
)
def test_whether_a_handler_would_format_it(
    own: list[logging.Handler],
    parents: list[logging.Handler],
    propagate: bool,
    last: int | None,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging, "lastResort", None if last is None else handler(last))
    parent, child = logging.Logger("p"), logging.Logger("p.c")  # noqa: LOG001 - nobody else's handlers
    parent.handlers, child.handlers, child.parent, child.propagate = parents, own, parent, propagate
    assert is_emitted(child, 20) is expected
