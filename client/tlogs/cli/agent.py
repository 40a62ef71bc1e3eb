"""`tlogs agent`: an agent in the foreground."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tlogs.access.agent_place import Place
from tlogs.agent.main import serve

__all__ = ["command"]


@click.command("agent")
@click.option(
    "--listen",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The socket to listen on, in a directory that only you may enter.",
)
def command(path: Path) -> int:
    """Run an agent in the foreground, for the workers whose TLOGS_AGENT is PATH.

    Workers start an agent by themselves, which ends with their container or job step. One that is started like this
    outlives them: a sidecar, a service. It ends on SIGTERM, once everything is stored, or after 5 s.

    \b
    Example:
      tlogs agent --listen /run/user/1000/tlogs/agent
      TLOGS_AGENT=/run/user/1000/tlogs/agent torchrun ...
    """
    directory, name = os.path.split(os.path.abspath(path))
    serve(Place(directory, name))
    return 0
