"""`tlogs keygen`: create a secret."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from tlogs_shared.errors import ConfigError

__all__ = ["command"]

SECRET_BYTES = 32


@click.command("keygen")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def command(file: Path) -> int:
    """Write a new secret to FILE, readable only by you, for a collector that other machines connect to.

    An existing file is never overwritten.

    \b
    Example:
      tlogs keygen ~/tlogs.secret
      tlogs-collector --listen 'tcp://*:5655' --secret-file ~/tlogs.secret
      TLOGS_SECRET_FILE=~/tlogs.secret torchrun ...
    """
    try:
        # Exclusive: a secret that is in use must not be overwritten by a slip.
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; choose another file") from None
    with os.fdopen(fd, "w") as opened:
        opened.write(secrets.token_urlsafe(SECRET_BYTES) + "\n")
    click.echo(f"wrote a secret to {file}; give it to the collector (--secret-file) and the job (TLOGS_SECRET_FILE)")
    return 0
