"""A layer over loggers: what is laid, what lies under it, and what was touched."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tlogs.levels.state import Target
from tlogs.loggers.layer import Layer, current, put

NAME, CHILD = "layered", "layered.child"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    for name in (NAME, CHILD):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).propagate = True


def test_what_was_found_comes_back() -> None:
    logging.getLogger(NAME).setLevel(20)
    layer = Layer()
    layer.lay({NAME: Target(10), CHILD: Target(40, propagate=False)})
    assert (current(NAME), current(CHILD)) == (Target(10, True), Target(40, False))
    layer.lay({CHILD: Target(10, propagate=False)})
    assert (current(NAME), current(CHILD)) == (Target(20, True), Target(10, False))
    layer.lay({})
    assert current(CHILD) == Target(0, True)


def test_a_logger_that_need_not_change_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer()
    assert layer.lay({NAME: Target(10), CHILD: Target(20)}) == 2
    touched: list[str] = []
    monkeypatch.setattr(logging.Logger, "setLevel", lambda self, level: touched.append(self.name))
    assert layer.lay({NAME: Target(10), CHILD: Target(20)}) == 0
    layer.lay({NAME: Target(10), CHILD: Target(30)})
    assert touched == [CHILD]
    monkeypatch.undo()


def test_what_somebody_else_sets_meanwhile_is_theirs() -> None:
    layer = Layer()
    layer.lay({NAME: Target(10), CHILD: Target(10)})
    for name in (NAME, CHILD):
        logging.getLogger(name).setLevel(40)
    layer.lay({NAME: Target(10)})
    assert (current(NAME).level, current(CHILD).level) == (10, 40)
    layer.lay({})
    assert current(NAME).level == 40


def test_propagate_that_was_not_laid_is_left_alone() -> None:
    layer = Layer()
    layer.lay({NAME: Target(10)})
    logging.getLogger(NAME).propagate = False
    layer.lay({})
    assert current(NAME) == Target(0, False)


def test_a_new_base_lies_under_what_is_laid() -> None:
    layer = Layer()
    layer.lay({NAME: Target(10)}, {NAME: Target(30, propagate=False), CHILD: Target(40, propagate=True)})
    assert (current(NAME), current(CHILD)) == (Target(10, False), Target(40, True))
    layer.rebase({NAME: Target(20, propagate=True)})
    layer.lay({})
    assert current(NAME) == Target(20, False)


def test_records_pass_upwards_before_they_are_let_in_and_stop_after(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger(NAME)
    seen: list[tuple[int, bool]] = []
    monkeypatch.setattr(logging.Logger, "setLevel", lambda self, level: seen.append((level, self.propagate)))
    logger.propagate = False
    put({NAME: Target(10, propagate=True)})
    put({NAME: Target(40, propagate=False)})
    assert seen == [(10, True), (40, True)]
    assert logger.propagate is False


def test_a_logger_enabled_by_force_is_disabled_again() -> None:
    layer, logger = Layer(), logging.getLogger(CHILD)
    logger.disabled = True
    layer.enable({NAME})
    assert not logger.disabled
    layer.enable(set())
    assert logger.disabled
    logger.disabled = False
