"""How others find this daemon: `collector.json` in its directory, and a link under the user's live ones."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from tlogs_shared.errors import ConfigError
from tlogs_shared.host import boot_id, is_running, live_directory
from tlogs_shared.protocol.notice import FILE_NAME, Notice
from tlogs_shared.protocol.secret import parse_secret

__all__ = ["Announcement", "own_secret"]

SECRET_FILE: Final = "secret"
SECRET_BYTES: Final = 32


def own_secret(directory: Path) -> bytes:
    """The secret of the daemons of this directory: made once, so that ranks still have it after a restart.

    Raises:
        ConfigError: it cannot be read or made.
    """
    path = directory / SECRET_FILE
    try:
        if not path.exists():
            # Whole or not at all: another daemon that shares the directory may begin at this moment.
            new = directory / f"{SECRET_FILE}.{os.getpid()}"
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(SECRET_BYTES) + "\n")
            try:
                os.link(new, path)
            except FileExistsError:
                pass
            new.unlink()
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; choose another directory with --dir") from None
    return parse_secret(text, str(path))


class Announcement:
    """The file and the link; gone with `withdraw`."""

    def __init__(self, notice: Notice, environ: Mapping[str, str]) -> None:
        """Write both.

        Raises:
            ConfigError: the file cannot be written.
        """
        self._notice = notice
        directory = Path(notice.directory)
        self.path = directory / FILE_NAME
        if self._is_anothers():
            self.path = directory / f"collector-{notice.pid}.json"
        self._link: Path | None = None
        self._write()
        live = live_directory(environ)
        try:
            live.mkdir(mode=0o700, parents=True, exist_ok=True)
            link = live / f"{socket.gethostname()}-{notice.pid}.json"
            link.unlink(missing_ok=True)
            link.symlink_to(self.path)
            self._link = link
        except OSError:
            pass  # a read-only home: commands then need --collector, with the endpoint of the ready line

    def _is_anothers(self) -> bool:
        try:
            other = Notice.from_json(self.path.read_text(), str(self.path))
        except (OSError, ConfigError, UnicodeDecodeError):
            return False
        same_machine = other.boot_id == boot_id()
        return other.pid != os.getpid() and same_machine and is_running(other.pid)

    def _write(self) -> None:
        temporary = self.path.with_suffix(f".{os.getpid()}")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(self._notice.to_json())
            temporary.rename(self.path)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}; choose another directory with --dir") from None

    def add_run(self, name: str) -> None:
        """Name one more run."""
        if name not in self._notice.runs:
            self._notice = replace(self._notice, runs=[*self._notice.runs, name])
            try:
                self._write()
            except ConfigError:
                pass  # the disk is full: the file already has all that others need to connect

    def withdraw(self) -> None:
        """Take both away."""
        for path in (self.path, self._link):
            if path is not None:
                try:
                    path.unlink(missing_ok=True)
                except OSError:
                    pass  # a stale one is recognised by its process
