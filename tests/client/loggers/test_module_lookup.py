"""Whether a module exists, asked without importing what need not be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.limits import scaled

from tlogs.loggers import module_lookup as modules
from tlogs.loggers.module_lookup import find_module, locate, torch_may_know


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "package_for_test_modules"
    (tmp_path / name / "sub").mkdir(parents=True)
    for file in ("__init__.py", "leaf.py", "sub/__init__.py", "sub/deep.py"):
        (tmp_path / name / file).write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("below", ["", ".leaf", ".sub", ".sub.deep"])
def test_locate_finds_what_lies_on_disk_and_imports_nothing(package: str, below: str) -> None:
    assert locate(package + below)
    assert package not in sys.modules


@pytest.mark.parametrize("below", [".nope", ".leaf.nope", ".sub.nope", "."])
def test_locate_says_no_to_anything_else(package: str, below: str) -> None:
    assert not locate(package + below)


@pytest.mark.parametrize("name", ["", ".", "no.where", "__main__.x"])
def test_locate_never_raises(name: str) -> None:
    assert not locate(name)


def test_a_name_below_a_package_imports_the_package_as_find_spec_does(package: str) -> None:
    assert find_module(package)
    with pytest.raises(RuntimeError, match="imported"):
        find_module(f"{package}.leaf")


@pytest.mark.torch
def test_a_name_below_torch_does_not_import_torch() -> None:
    code = (
        "import sys; from tlogs.loggers.module_lookup import find_module;"
        "print(find_module('torch._dynamo.guards'), find_module('torch.nope'), 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=scaled(60), check=True)
    assert ran.stdout.split() == ["True", "False", "False"]


@pytest.mark.parametrize(
    ("installed", "plugins", "left"), [("2.14.2", [], False), ("2.8.0", [], False), ("2.15.0+cpu", [], True)]
)
def test_a_name_is_left_to_a_torch_that_is_newer_than_what_was_recorded(
    monkeypatch: pytest.MonkeyPatch, installed: str, plugins: list[str], left: bool
) -> None:
    monkeypatch.setattr(modules, "_is_installed", lambda: True)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: plugins)
    monkeypatch.setattr("importlib.metadata.version", lambda name: installed)
    assert torch_may_know("fresh") is left
    assert not torch_may_know("my.module")


def test_a_name_is_left_to_a_torch_with_plugged_in_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_is_installed", lambda: True)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: ["npu"])
    assert torch_may_know("npu")


def test_nothing_is_left_to_a_torch_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_is_installed", lambda: False)
    assert not torch_may_know("fresh")
