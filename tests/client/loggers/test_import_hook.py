"""A call when a module has just been imported."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from tlogs.loggers.import_hook import ImportHook

NAME = "module_for_test_import_hook"


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ModuleType]]:
    (tmp_path / f"{NAME}.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    found: list[ModuleType] = []
    hook = ImportHook(NAME, found.append)
    hook.install()
    yield found
    hook.remove()
    hook.remove()
    assert hook not in sys.meta_path
    sys.modules.pop(NAME, None)


def test_the_call_comes_when_the_module_has_been_executed(heard: list[ModuleType]) -> None:
    module = import_module(NAME)
    assert heard == [module]
    assert module.value == 7


def test_nothing_shows_that_somebody_listened(heard: list[ModuleType]) -> None:
    module = import_module(NAME)
    assert module.__spec__ is not None
    assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader
    assert inspect.getsource(module) == "value = 7\n"


def test_other_modules_pass(heard: list[ModuleType]) -> None:
    import_module("colorsys")
    assert heard == []


def test_a_module_that_is_not_there_is_missing_as_ever() -> None:
    hook = ImportHook("no_such_module", lambda module: None)
    hook.install()
    try:
        with pytest.raises(ModuleNotFoundError):
            import_module("no_such_module")
    finally:
        hook.remove()
