"""Handlers on torch's loggers, with a stand-in for torch's module of 2.13 and of 2.14."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakSet

import pytest
from _pytest.logging import LogCaptureHandler

from tlogs.levels.state import OFF
from tlogs.loggers.with_torch import WithTorch

NAME = "torch_of_two_versions"


class StderrHandler(logging.Handler):
    """As torch 2.14 has it: not a StreamHandler, and always on the standard error of now."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        self.stream.write(self.format(record) + "\n")


class Internal(ModuleType):
    """torch._logging._internal, as far as handlers are concerned."""

    def __init__(self, console: type[logging.Handler]) -> None:
        super().__init__("torch._logging._internal")
        self.handlers: WeakSet[logging.Handler] = WeakSet()
        if console is StderrHandler:
            self._StderrHandler = console

    def _is_torch_handler(self, handler: logging.Handler) -> bool:
        return handler in self.handlers

    def _setup_handlers(self, create: Callable[[], logging.Handler], logger: logging.Logger) -> None:
        handler = create()
        handler.setLevel(logging.DEBUG)
        self.handlers.add(handler)
        logger.addHandler(handler)


@pytest.fixture(params=[logging.StreamHandler, StderrHandler], ids=["2.13", "2.14"])
def console(request: pytest.FixtureRequest) -> type[logging.Handler]:
    found: type[logging.Handler] = request.param
    return found


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger(NAME)
    logger.propagate = False
    yield logger
    for handler in handlers(logger):
        logger.removeHandler(handler)
        handler.close()


def handlers(logger: logging.Logger) -> list[logging.Handler]:
    """The handlers of *logger* but pytest's."""
    return [handler for handler in logger.handlers if not isinstance(handler, LogCaptureHandler)]


def test_a_logger_that_torch_set_up_gets_no_second_console(
    console: type[logging.Handler], logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    module = Internal(console)
    module._setup_handlers(console, logger)
    WithTorch(module).set_up_handlers([NAME], None)
    logger.warning("once")
    assert capsys.readouterr().err == "once\n"


def test_a_console_that_is_missing_is_one_of_torchs_own_and_follows_the_standard_error(
    console: type[logging.Handler], logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = WithTorch(Internal(console))
    monkeypatch.setattr(sys, "stderr", earlier := io.StringIO())
    torch.set_up_handlers([NAME], None)
    assert [type(handler) for handler in handlers(logger)] == [console]
    monkeypatch.setattr(sys, "stderr", later := io.StringIO())
    torch.set_up_handlers([NAME], None)
    logger.warning("to the stream of now")
    assert (earlier.getvalue(), later.getvalue()) == ("", "to the stream of now\n")


def test_quiet_silences_torchs_console_and_neither_its_file_nor_a_handler_of_the_program(
    console: type[logging.Handler], logger: logging.Logger, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = Internal(console)
    torch = WithTorch(module)
    torch.set_up_handlers([NAME], str(tmp_path / "out"))
    logger.addHandler(own := logging.StreamHandler(io.StringIO()))
    torch.silence_stderr([NAME], quiet=True)
    logger.warning("unseen")
    assert capsys.readouterr().err == ""
    assert own.stream.getvalue() == (tmp_path / "out").read_text() == "unseen\n"
    assert [handler.level for handler in handlers(logger)] == [OFF, logging.DEBUG, logging.NOTSET]
    torch.silence_stderr([NAME], quiet=False)
    logger.warning("seen")
    assert capsys.readouterr().err == "seen\n"
