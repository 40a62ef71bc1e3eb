"""The process group of torch.distributed is told as soon as it is made."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from tlogs.worker.group import MODULE, SEAM, GroupWatch


def module_with(updates: list[Any]) -> Any:
    found: Any = ModuleType(MODULE)
    setattr(found, SEAM, updates.append)
    return found


def test_each_group_that_is_made_is_told_and_none_that_is_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[Any] = []
    made: list[int] = []
    module = module_with(updates)
    before = getattr(module, SEAM)
    monkeypatch.setitem(sys.modules, MODULE, module)
    watch = GroupWatch(lambda: made.append(len(updates)))
    watch.install()
    for group in ("a", None, "b"):
        getattr(module, SEAM)(group)
    assert (updates, made) == (["a", None, "b"], [1, 3])
    watch.remove()
    assert getattr(module, SEAM) is before


def test_an_error_of_ours_and_another_torch_are_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    updates: list[Any] = []
    module = module_with(updates)
    monkeypatch.setitem(sys.modules, MODULE, module)
    watch = GroupWatch(fail)
    watch.install()
    getattr(module, SEAM)("a")
    theirs = getattr(module, SEAM)
    setattr(module, SEAM, lambda group: theirs(group))
    watch.remove()
    getattr(module, SEAM)("b")
    assert updates == ["a", "b"]
    monkeypatch.setitem(sys.modules, MODULE, ModuleType(MODULE))
    GroupWatch(fail).install()
