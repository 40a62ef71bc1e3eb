"""The base where torch is not what we know."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from threading import RLock
from types import ModuleType

import pytest

from tlogs.loggers.base import Base
from tlogs.loggers.with_torch import INTERNAL, WithTorch

TORCH_OF_ANOTHER_DAY = """
class LogState:
    def is_artifact_enabled(self, name):
        return False

class Registry:
    def __getattr__(self, name):
        return None  # all the names that we look for, and nothing behind them

log_state = LogState()
log_registry = Registry()
_is_torch_handler = _set_log_state = _setup_handlers = _track_handler = getArtifactLogger = print

def _init_logs():
    return 7
"""


@pytest.fixture
def strange_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torch of which everything that we need has its name, and nothing its form."""
    package = tmp_path / "torch" / "_logging"
    package.mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "_internal.py").write_text(TORCH_OF_ANOTHER_DAY)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("torch", "torch._logging", INTERNAL):
        sys.modules.pop(name, None)


def broken(*names: str) -> None:
    raise AttributeError("no such thing in this torch")


def listening() -> Base:
    """A base that hears of an import, and has put nothing onto loggers."""
    base = Base(RLock(), broken, broken)
    base._listens = True
    base._hook.install()
    return base


def test_what_fails_in_us_does_not_end_the_import_of_torch(
    strange_torch: None, caplog: pytest.LogCaptureFixture
) -> None:
    base = listening()
    try:
        module: ModuleType = import_module(INTERNAL)
    finally:
        base._hook.remove()
    assert module._init_logs() == 7
    assert ["may not follow" in text for text in caplog.messages] == [True]


def test_what_fails_in_us_does_not_end_what_torch_does(strange_torch: None, caplog: pytest.LogCaptureFixture) -> None:
    module = import_module(INTERNAL)
    base = listening()
    base._hook.remove()
    torch = base._kept = WithTorch(module)
    base._hook_into(torch)
    assert module._init_logs() == 7
    assert ["may not follow" in text for text in caplog.messages] == [True]


def test_a_torch_without_the_names_that_we_need_is_left_alone(
    strange_torch: None, caplog: pytest.LogCaptureFixture
) -> None:
    base = listening()
    try:
        module: ModuleType = import_module(INTERNAL)
    finally:
        base._hook.remove()
    module.__dict__["log_registry"] = object()
    assert not WithTorch(module).is_complete
