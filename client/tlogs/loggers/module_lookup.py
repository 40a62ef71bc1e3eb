"""Looking up modules by name, with as few imports as possible."""

from __future__ import annotations

import re
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

from tlogs.levels.torch_names import TORCH_VERSION

__all__ = ["find_module", "locate", "torch_may_know"]


def find_module(name: str) -> bool:
    """Return True if TORCH_LOGS and set_logs() may name this module, by `find_spec` as in torch.

    As with torch, naming `pkg.sub` imports `pkg`. Names below `torch` never import torch: where it is installed they
    are looked up on disk, where it is not they are accepted.

    Raises:
        ImportError, ValueError: as `importlib.util.find_spec` raises them.
    """
    if name.startswith("torch.") and sys.modules.get("torch") is None:
        return not _is_installed() or locate(name)
    return find_spec(name) is not None


def locate(name: str) -> bool:
    """Return True if a module of this name is loaded or on disk; imports nothing, raises nothing."""
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
    except (ImportError, ValueError):  # a malformed name, or a module without a spec
        return False
    return spec is not None


def torch_may_know(name: str) -> bool:
    """Return True if an unknown name in TORCH_LOGS may be known to the installed torch, which is not imported yet.

    That is so if it is newer than the recorded registry, or has plugged-in backends, which register names too.
    """
    if "." in name or not _is_installed():
        return False
    from importlib.metadata import PackageNotFoundError, entry_points, version  # 10 ms, which hardly anybody needs

    if entry_points(group="torch.backends"):
        return True
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return True
    return _numbers(installed) > _numbers(TORCH_VERSION)


def _is_installed() -> bool:
    """Return True if torch can be imported and is not yet."""
    return "torch" not in sys.modules and find_spec("torch") is not None


def _numbers(text: str) -> list[int]:
    """The first two numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", text)[:2]]
