"""A disk that can be full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["Disk"]


class Disk:
    """The collector's disk: a small file system of its own where this user may mount one, so that it can be full."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self.is_full = self.was_full = False
        self.is_mounted = sys.platform.startswith("linux") and os.geteuid() == 0 and self._mount("size=8g")

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self._directory]
        try:
            return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
        except FileNotFoundError:
            return False

    def fill(self) -> None:
        """Take all room that is left."""
        found = os.statvfs(self._directory)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        self.is_full = self.was_full = self._mount(f"remount,size={max(used, 4096)}")

    def empty(self) -> None:
        """Give it back."""
        self._mount("remount,size=8g")
        self.is_full = False

    def close(self) -> None:
        """Take it away."""
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", self._directory], check=True)
