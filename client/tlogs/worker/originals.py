"""Modules of the interpreter as it made them, whatever a program has patched since (gevent, a test's mocks)."""

from __future__ import annotations

import importlib.util
from types import ModuleType

__all__ = ["original"]


def original(name: str) -> ModuleType:
    """A fresh copy of the C module *name*: the one in `sys.modules` may have been patched in place.

    Raises:
        ImportError: this interpreter has no such module.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module named {name!r}", name=name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
