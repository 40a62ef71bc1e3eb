"""`tlogs drain`: wait until what was logged on this host is stored."""

from __future__ import annotations

import os
import time
from typing import Final

import click

from tlogs.agent.drain import drain
from tlogs.agent.recovery import NOT_OURS, Wish, recover
from tlogs.agent.search import find_outboxes
from tlogs.cli.options import DURATION

__all__ = ["command"]

LEAST_S: Final = 1.0
"""For what no agent sends, also where agents have used up the time."""


@click.command("drain")
@click.option("--timeout", type=DURATION, default=5.0, metavar="TIME", help="Wait at most this long (default 5s).")
def command(timeout: float) -> int:
    """Wait until all that was logged on this host is stored, to whichever collector it goes.

    For the end of a container or of a job step, which ends the agents too: a preStop hook, a task epilog. What dead
    workers left is brought in where no agent does it. The exit status is 1 if something could not be sent.

    \b
    Example:
      tlogs drain --timeout 20s   # in what srun --task-epilog runs
    """
    deadline = time.monotonic() + timeout
    _, failed = drain(os.environ, timeout)
    problems = [f"{failed} agents did not send all within {timeout:g} s"] if failed else []
    wish = Wish(patience_s=max(deadline - time.monotonic(), LEAST_S))
    for found in recover(find_outboxes(os.environ), os.environ, wish):
        if found.problem and found.problem not in NOT_OURS:
            problems.append(f"{found.path}: {found.problem}")
    for problem in problems:
        click.echo(problem, err=True)
    return 1 if problems else 0
