"""Whether a module exists, asked so that as little as possible is imported."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

__all__ = ["find_module", "locate"]


def find_module(name: str) -> bool:
    """Whether TORCH_LOGS and set_logs() may name this module: torch asks `find_spec`, and so do we.

    As with torch, naming `pkg.sub` imports `pkg`. Names below `torch` never import torch: where it is installed they
    are looked for on disk, where it is not they are believed.

    Raises:
        ImportError, ValueError: as `importlib.util.find_spec` raises them.
    """
    if name.startswith("torch.") and sys.modules.get("torch") is None:
        return find_spec("torch") is None or locate(name)
    return find_spec(name) is not None


def locate(name: str) -> bool:
    """Whether a module of this name is loaded or lies on disk; imports nothing, raises nothing."""
    if name in sys.modules:
        return True
    head, *rest = name.split(".")
    try:
        spec = find_spec(head)
        found = head
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return False
            found = f"{found}.{part}"
            spec = PathFinder.find_spec(found, list(spec.submodule_search_locations))
    except (ImportError, ValueError):  # a name that is none, or a module without a spec
        return False
    return spec is not None
