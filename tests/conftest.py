"""For every test: an environment of its own, logging put back, and torch where it is needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.limits import scaled

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "GROUP_RANK")

# On a busy machine an example takes as long as it takes. In CI the same examples are drawn each time.
settings.register_profile(
    "patient",
    settings.get_profile("ci" if os.environ.get("CI") else "default"),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test's limit, its own or that of all, is scaled as those inside it are."""
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = (
            marker.args[0] if marker is not None else float(config.getoption("timeout") or config.getini("timeout"))
        )
        item.add_marker(pytest.mark.timeout(scaled(seconds)), append=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs torch is skipped where there is none; in CI that hides a missing piece, so it fails."""
    if item.get_closest_marker("torch") is not None and find_spec("torch") is None:
        if os.environ.get("CI"):
            pytest.fail("needs torch: pip install torch==2.13.0", pytrace=False)
        pytest.skip("needs torch: pip install torch==2.13.0")


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No collector, outbox or setting of the person who runs the tests is seen or touched."""
    for name in list(os.environ):
        if (
            name.startswith(("TLOGS_", "TORCH_LOGS", "TORCHELASTIC_", "SLURM_", "OMPI_", "PMI_"))
            or name in RANK_VARIABLES
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TLOGS_OUTBOX_DIR", str(tmp_path / "outboxes"))


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Levels, handlers and switches of every logger are put back."""
    names = list(logging.Logger.manager.loggerDict)
    loggers = [logging.root, *(logging.getLogger(name) for name in names)]
    before = [(one, one.level, list(one.handlers), one.propagate, one.disabled, list(one.filters)) for one in loggers]
    disable, last_resort = logging.root.manager.disable, logging.lastResort
    yield
    logging.disable(disable)
    logging.lastResort = last_resort
    for logger, level, handlers, propagate, disabled, filters in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.filters[:] = filters
        logger.propagate, logger.disabled = propagate, disabled
