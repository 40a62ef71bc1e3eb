"""The process group of torch.distributed: told as soon as it is made, because it may not live for a second."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from tlogs.loggers.import_hook import ImportHook

__all__ = ["GroupWatch", "is_in_group"]

MODULE: Final = "torch.distributed.distributed_c10d"
SEAM: Final = "_update_default_pg"
"""Every way to make or destroy the process group ends in this function, also for who has imported the others before."""


class GroupWatch:
    """A call of ours whenever a process group was made; torch is never imported for it."""

    def __init__(self, made: Callable[[], None]) -> None:
        self._made = made
        self._hook = ImportHook(MODULE, self._wrap)
        self._wrapped: tuple[Any, Callable[[Any], Any], Callable[[Any], Any]] | None = None

    @property
    def is_blind(self) -> bool:
        """Return whether this torch has no such function, so that its group has to be asked for now and then."""
        return self._wrapped is None and MODULE in sys.modules

    def install(self) -> None:
        """Begin to watch."""
        module = sys.modules.get(MODULE)
        if module is None:
            self._hook.install()
        else:
            self._wrap(module)

    def remove(self) -> None:
        """Stop; where somebody else has wrapped the function since, ours stays below it without effect."""
        self._hook.remove()
        self._made = lambda: None
        if self._wrapped is not None:
            module, ours, before = self._wrapped
            if getattr(module, SEAM, None) is ours:
                setattr(module, SEAM, before)

    def _wrap(self, module: Any) -> None:
        before = getattr(module, SEAM, None)
        if before is None:
            return  # another version of torch: its group is asked for once a second

        def update(group: Any) -> Any:
            result = before(group)
            if group is not None:
                try:
                    self._made()
                except Exception:  # noqa: BLE001 - a training job must not fail for its label
                    pass
            return result

        self._wrapped = (module, update, before)
        setattr(module, SEAM, update)


def is_in_group() -> bool:
    """Return whether torch.distributed is initialised here."""
    distributed = sys.modules.get("torch.distributed")
    try:
        return distributed is not None and bool(distributed.is_available() and distributed.is_initialized())
    except (AttributeError, RuntimeError, ValueError):  # half imported, or being taken down at this moment
        return False
