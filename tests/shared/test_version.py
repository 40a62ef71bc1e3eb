"""The version, also where nothing is installed."""

from __future__ import annotations

import importlib.metadata
import runpy

import pytest

from tlogs_shared import version


def test_a_source_tree_that_was_never_installed_has_version_0(monkeypatch: pytest.MonkeyPatch) -> None:
    def version_of(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version_of)
    assert runpy.run_path(version.__file__)["__version__"] == "0"
